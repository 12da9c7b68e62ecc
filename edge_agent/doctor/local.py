"""What the doctor sees without the network: directory, identity, certificate, policy, the agent."""

from __future__ import annotations

import fcntl
import os
import pwd
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509

from edge_agent.config import AgentConfig, NotJoined, load_config
from edge_agent.credentials import CredentialRefused, check_certificate, read_roots
from edge_agent.doctor.findings import Finding, failed, ok, skipped, warning
from edge_agent.policy import read_policy
from edge_agent.renewal import load_leaf
from edge_agent.state import StateDir, StateError

ROOM_BYTES = 50_000_000
_JOIN = "join again with a new token: mooring agent join --force"


@dataclass(frozen=True, slots=True)
class Own:
    """What this machine is."""

    state: StateDir
    config: AgentConfig | None = None
    trust_pem: bytes | None = None
    """The roots it trusts, when they can be read."""
    usable: bool = False
    """Its certificate can be shown to the hub."""


def look_at_home(state: StateDir, *, joining: bool) -> tuple[Own, list[Finding]]:
    """Look at an agent's directory; `joining` says that it need not hold an identity yet."""
    directory = _directory(state, joining=joining)
    if directory.status != "ok":
        return Own(state), [directory]
    findings = [directory, _files(state), _room(state)]
    try:
        config = load_config(state)
    except NotJoined as error:
        if joining:
            return Own(state), [*findings, skipped("identity", "none yet")]
        advice = f"mooring agent join --hub URL --state-dir {state.root}"
        return Own(state), [*findings, failed("identity", str(error).partition(":")[0], advice)]
    except StateError as error:
        return Own(state), [*findings, failed("identity", str(error), _JOIN)]
    findings.append(ok("identity", f"node {config.name} ({config.node_id})"))
    certificate = _certificate(state, config)
    findings += [*certificate, _policy(state), _agent(state)]
    usable = all(finding.status != "failed" for finding in certificate)
    return Own(state, config, _trust(state), usable), findings


def _directory(state: StateDir, *, joining: bool) -> Finding:
    root = state.root
    try:
        status = root.stat()
    except FileNotFoundError:
        if joining:
            return skipped("directory", f"{root} is not there yet: joining makes it")
        advice = "name the agent's --state-dir, or join: mooring agent join"
        return failed("directory", f"{root} does not exist", advice)
    except OSError as error:
        return failed("directory", f"{root} can't be looked at: {error.strerror}", "run as root")
    if not root.is_dir():
        return failed("directory", f"{root} is not a directory", "name another --state-dir")
    owner = _user(status.st_uid)
    if os.geteuid() not in (0, status.st_uid):
        detail = f"{root} belongs to {owner}, and this is {_user(os.geteuid())}"
        return failed("directory", detail, f"run this, and the agent, as {owner}")
    if status.st_mode & 0o077:
        detail = f"{root} is open to others (mode {status.st_mode & 0o777:03o})"
        return failed("directory", detail, f"chmod 700 {root}")
    return ok("directory", f"{root}, private to {owner}")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _files(state: StateDir) -> Finding:
    paths = (state.config, state.key, state.certificate, state.trust, state.policy)
    open_ones = [path for path in paths if path.exists() and path.stat().st_mode & 0o077]
    if not open_ones:
        return ok("files", "private")
    names = " ".join(map(str, open_ones))
    advice = f"chmod 600 {names}; if others had access, join again for a new key"
    return failed("files", f"open to others: {names}", advice)


def _room(state: StateDir) -> Finding:
    disk = os.statvfs(state.root)
    free = disk.f_bavail * disk.f_frsize
    if disk.f_flag & os.ST_RDONLY:
        return failed("disk", f"{state.root} is mounted read-only", "mount it for writing")
    if free < ROOM_BYTES or (disk.f_files and not disk.f_favail):
        return failed("disk", f"{free // 1_000_000} MB or no inodes are left", "make room")
    return ok("disk", f"{free // 1_000_000} MB free")


def _certificate(state: StateDir, config: AgentConfig) -> list[Finding]:
    """Key, chain and name apart from the time: the clock may be what is wrong."""
    try:
        leaf = load_leaf(state)
        start, end = _times(leaf)
        identity = check_certificate(
            state.certificate.read_bytes(),
            state.key.read_bytes(),
            read_roots(state.trust.read_bytes()),
            config.mesh_id,
            (start + end) / 2,
        )
    except (StateError, CredentialRefused) as error:
        return [failed("certificate", f"it can't be used: {error}".split("; ")[0], _JOIN)]
    except OSError as error:
        return [failed("certificate", f"{error.filename}: {error.strerror}", _JOIN)]
    if identity.node_id != config.node_id:
        return [failed("certificate", "it is another node's", _JOIN)]
    return [ok("certificate", "ours, for our key, by the mesh's CA"), _validity(start, end)]


def _trust(state: StateDir) -> bytes | None:
    try:
        trust_pem = state.trust.read_bytes()
        return trust_pem if read_roots(trust_pem) else None
    except (OSError, CredentialRefused):
        return None


def _times(certificate: x509.Certificate) -> tuple[float, float]:
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )


def _validity(start: float, end: float) -> Finding:
    now = time.time()
    if now < start:
        detail = f"it begins at {_at(start)}, and this machine's clock says {_at(now)}"
        return failed("validity", detail, "set the clock: timedatectl set-ntp true")
    if now >= end:
        detail = f"it ended at {_at(end)}, and this machine's clock says {_at(now)}"
        return failed("validity", detail, f"set the clock, or, if that is right, {_JOIN}")
    if now > start + 0.75 * (end - start):
        detail = f"it ends at {_at(end)} and should have been renewed at half its life"
        return warning("validity", detail, "see the agent's log for why it was not")
    return ok("validity", f"until {_at(end)}")


def _at(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _policy(state: StateDir) -> Finding:
    policy = read_policy(state.policy)
    if isinstance(policy, str):
        advice = "repair it; until then this node refuses everything (docs/policy.md)"
        return failed("policy", policy, advice)
    return ok("policy", f"allows {', '.join(policy.verbs) or 'nothing'}")


def _agent(state: StateDir) -> Finding:
    """Ask the lock: a shared one, for an instant, so that it is never taken from an agent."""
    descriptor = os.open(state.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ok("agent", "runs on this directory")
    finally:
        os.close(descriptor)
    advice = f"start it: mooring agent run --state-dir {state.root}, or its service"
    return warning("agent", "none runs on this directory", advice)
