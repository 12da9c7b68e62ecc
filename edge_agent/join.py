"""How this machine becomes a node: a key made here, the root compared with the pin, one request.

    config = join(token_text, StateDir(path), hub_url=None, name=None, agent_version="0.1.0")

Nothing is written before the hub's answer is verified, and `agent.json` comes last; until it is
there the directory counts as unused. Every failure has a name, `JoinFailed.reason`.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from cryptography import x509

from certs.contexts import JOIN_ALPN, join_context, untrusting_context
from certs.errors import CertificateRefused, PinMismatch, TokenMalformed
from certs.identity import check_hub
from certs.keys import make_key_and_csr
from certs.tokens import JoinToken, decode_token, secret_to_text
from certs.trust import NotAMesh, mesh_of, pinned_root, to_pem
from edge_agent.config import AgentConfig, load_config, save_config
from edge_agent.credentials import CredentialRefused, check_certificate
from edge_agent.facts import gather_facts
from edge_agent.hub_http import Answer, Call, exchange
from edge_agent.policy import default_policy
from edge_agent.proxies import BadProxy, ProxyFailed, route_to
from edge_agent.state import StateDir, StateError
from edge_agent.tls_faults import tls_fault
from protocol.messages import Facts

_log = logging.getLogger(__name__)

TRIES = 5
WAIT_LIMIT_S = 60.0
_HUB = re.compile(r"https://[A-Za-z0-9.:\[\]-]{1,255}")


class Reason(StrEnum):
    """Why joining failed."""

    BAD_TOKEN = "bad_token"  # noqa: S105 - a name, not a secret
    ALREADY_JOINED = "already_joined"
    BAD_ADDRESS = "bad_address"
    UNREACHABLE = "unreachable"
    PROXY = "proxy"
    TLS = "tls"
    WRONG_PIN = "wrong_pin"
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105
    TOKEN_USED = "token_used"  # noqa: S105
    TOKEN_EXPIRED = "token_expired"  # noqa: S105
    THROTTLED = "throttled"
    REFUSED = "refused"


class JoinFailed(Exception):
    """Joining failed and nothing was changed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    secret: str
    csr_pem: str
    name: str | None = None
    facts: Facts


class _Granted(msgspec.Struct, frozen=True):
    node_id: str
    name: str
    certificate_pem: str


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Root:
    """A mesh whose pin was right."""

    certificate: x509.Certificate
    mesh_id: str


def join(
    token_text: str,
    state: StateDir,
    *,
    hub_url: str | None = None,
    name: str | None = None,
    proxy: str | None = None,
    agent_version: str = "",
    facts: Facts | None = None,
    force: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> AgentConfig:
    """Join the hub of a token; blocks for network and disk.

    Args:
        token_text: the join token.
        state: where to keep the identity.
        hub_url: https://host[:port]; without it the token's addresses are tried in order.
        name: the node's name; without it the hub takes the host name.
        proxy: its URL or `DIRECT`, for now and for the agent; without it the environment decides.
        agent_version: told to the hub.
        facts: what the node is; by default what this machine is.
        force: replace an identity that is still valid.
        wait: waits for some seconds when the hub asks to come back later.

    Raises:
        JoinFailed: with the reason.
        StateError: the directory can't be used.
    """
    try:
        token = decode_token(token_text)
    except TokenMalformed as error:
        raise JoinFailed(Reason.BAD_TOKEN, str(error)) from error
    hubs = [check_address(hub_url)] if hub_url else list(token.hubs)
    state.prepare()
    with state.lock():
        _check_unused(state, force=force)
        hub, root = _find_hub(hubs, token, proxy)
        key_pem, csr_pem = make_key_and_csr()
        body = _Body(
            secret=secret_to_text(token.secret),
            csr_pem=csr_pem.decode(),
            name=name,
            facts=facts or gather_facts(agent_version=agent_version, verbs=default_policy().verbs),
        )
        granted = _ask(hub, root, msgspec.json.encode(body), proxy, wait)
        _check_granted(granted, key_pem, root)
        config = AgentConfig(
            node_id=granted.node_id,
            mesh_id=root.mesh_id,
            name=granted.name,
            hubs=list(dict.fromkeys([hub, *token.hubs])),
            proxy=proxy,
        )
        _write(state, config, key_pem, granted.certificate_pem.encode(), root)
    return config


def check_address(hub_url: str) -> str:
    """Return a hub's address as it is used everywhere.

    Raises:
        JoinFailed: it is no https://host[:port].
    """
    address = hub_url.rstrip("/")
    if not _HUB.fullmatch(address):
        problem = f"{hub_url[:100]!r} is no hub's address: use https://HOST or https://HOST:PORT"
        raise JoinFailed(Reason.BAD_ADDRESS, problem)
    return address


def _check_unused(state: StateDir, *, force: bool) -> None:
    """Refuse to throw away an identity that works, or that we can't judge."""
    if force or not state.config.exists():
        return
    try:
        name = load_config(state).name
        leaf = x509.load_pem_x509_certificate(state.certificate.read_bytes())
        expired = time.time() >= leaf.not_valid_after_utc.timestamp()
    except (StateError, OSError, ValueError) as error:
        problem = (
            f"{state.root} holds an identity that can't be read ({error}); --force replaces it"
        )
        raise JoinFailed(Reason.ALREADY_JOINED, problem) from error
    if not expired:
        problem = f"{state.root} already belongs to node {name!r}; --force replaces its identity"
        raise JoinFailed(Reason.ALREADY_JOINED, problem)


def _find_hub(hubs: list[str], token: JoinToken, proxy: str | None) -> tuple[str, _Root]:
    """Find the first address that answers with the pinned root; the last failure tells why none."""
    failure = JoinFailed(Reason.UNREACHABLE, "the token names no hub")
    for hub in hubs:
        try:
            return hub, _fetch_root(hub, token.pin, proxy)
        except JoinFailed as error:
            _log.info("%s: %s", hub, error)
            failure = error
    raise failure


def _fetch_root(hub: str, pin: bytes, proxy: str | None) -> _Root:
    call = Call("GET", "/api/v1/ca")
    answer = asyncio.run(_exchange(hub, call, untrusting_context(), proxy, None))
    if answer.status != 200:
        raise JoinFailed(Reason.REFUSED, f"{hub} answered {answer.status}: is it a Mooring hub?")
    try:
        root = pinned_root(answer.body, pin)
        return _Root(root, mesh_of(root))
    except (PinMismatch, NotAMesh) as error:
        problem = (
            f"{hub} is not the hub that made this token, or somebody sits in between: "
            "its CA doesn't have the token's pin; nothing secret was sent"
        )
        raise JoinFailed(Reason.WRONG_PIN, problem) from error


def _ask(
    hub: str, root: _Root, body: bytes, proxy: str | None, wait: Callable[[float], None]
) -> _Granted:
    """Send the request, again when the hub is busy; any other answer is final."""
    context = join_context(to_pem([root.certificate]))
    call = Call("POST", "/api/v1/join", body)
    for attempt in range(1, TRIES + 1):
        answer = asyncio.run(_exchange(hub, call, context, proxy, root.mesh_id))
        if answer.status not in (429, 503) or attempt == TRIES:
            break
        seconds = min(answer.retry_after_s or 5.0, WAIT_LIMIT_S)
        _log.info("%s is busy; trying again in %.0f s", hub, seconds)
        wait(seconds)
    if answer.status not in (200, 201):
        raise _refusal(answer)
    try:
        return msgspec.json.decode(answer.body, type=_Granted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JoinFailed(Reason.REFUSED, f"{hub} gave an answer that makes no sense") from error


def _refusal(answer: Answer) -> JoinFailed:
    try:
        problem = msgspec.json.decode(answer.body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem(detail=f"the hub answered {answer.status}")
    known = problem.code in {*Reason}
    return JoinFailed(Reason(problem.code) if known else Reason.REFUSED, problem.detail[:500])


async def _exchange(
    hub: str, call: Call, context: ssl.SSLContext, proxy: str | None, mesh_id: str | None
) -> Answer:
    """Make one request; `mesh_id` names the hub to insist on, None for fetching the root."""

    def check(der: bytes | None) -> None:
        if mesh_id is not None:
            check_hub(der, mesh_id)

    try:
        route = route_to(hub, proxy)
    except BadProxy as error:
        raise JoinFailed(Reason.PROXY, str(error)) from error
    try:
        return await exchange(hub, route, context, call, check=check)
    except ssl.SSLError as error:
        problem = f"{await tls_fault(hub, route, error, JOIN_ALPN)}"
        raise JoinFailed(Reason.TLS, problem) from error
    except CertificateRefused as error:
        raise JoinFailed(Reason.TLS, f"{hub} is not the mesh's hub: {error}") from error
    except ProxyFailed as error:
        raise JoinFailed(Reason.PROXY, str(error)) from error
    except (OSError, http.client.HTTPException) as error:
        problem = f"can't reach {hub}: {str(error) or 'no answer in time'}"
        raise JoinFailed(Reason.UNREACHABLE, problem) from error


def _check_granted(granted: _Granted, key_pem: bytes, root: _Root) -> None:
    try:
        identity = check_certificate(
            granted.certificate_pem.encode(),
            key_pem,
            [root.certificate],
            root.mesh_id,
            time.time(),
        )
    except CredentialRefused as error:
        problem = f"the hub's certificate for this node is wrong: {error}; compare both clocks"
        raise JoinFailed(Reason.REFUSED, problem) from error
    if identity.node_id != granted.node_id:
        raise JoinFailed(Reason.REFUSED, "the hub's certificate names another node")


def _write(
    state: StateDir, config: AgentConfig, key_pem: bytes, chain_pem: bytes, root: _Root
) -> None:
    state.remove(state.config)
    state.write(state.key, key_pem)
    state.write(state.certificate, chain_pem)
    state.write(state.trust, to_pem([root.certificate]))
    if not state.policy.exists():
        policy = msgspec.json.format(msgspec.json.encode(default_policy()), indent=2)
        state.write(state.policy, policy + b"\n")
    save_config(state, config)
