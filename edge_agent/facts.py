"""What this node is: system, processors, memory, disks, addresses, and what its policy allows.

Every fact is gathered by itself: what can't be read on some node stays empty and never costs the
others. Texts from the system are cut to the wire's lengths here.

    facts = gather_facts(agent_version="0.1.0", verbs=policy.verbs())
"""

from __future__ import annotations

import ipaddress
import logging
import os
import platform
import shlex
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from edge_agent.processes import boot_id
from edge_agent.users import own_name
from protocol.messages import Disk, Facts

_log = logging.getLogger(__name__)
T = TypeVar("T")

_NAME = 256
_TEXT = 4096
_LIST = 64
_FAMILIES = {
    "debian": {"debian", "ubuntu", "raspbian", "linuxmint", "uos", "deepin", "devuan"},
    "rhel": {
        "rhel", "centos", "rocky", "almalinux", "fedora", "ol", "amzn", "openeuler", "kylin",
        "anolis", "alinux", "opencloudos", "tencentos", "bclinux", "hce",
    },
    "alpine": {"alpine"},
    "suse": {"suse", "opensuse", "sles", "opensuse-leap", "opensuse-tumbleweed"},
    "arch": {"arch", "archlinux", "manjaro"},
}  # fmt: skip


def parse_os_release(text: str) -> dict[str, str]:
    """Return the variables of an os-release file (os-release(5)); malformed lines are left out."""
    variables = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if not equals or key.startswith("#"):
            continue
        try:
            variables[key] = "".join(shlex.split(value))  # removes quotes and escapes
        except ValueError:
            continue
    return variables


def os_family(os_id: str, os_like: str = "") -> str:
    """Return debian, rhel, alpine, suse, arch or other for os-release's ID and ID_LIKE.

    The ID decides before the ID_LIKEs do, and those in their order, nearest relative first. Kylin
    comes in two kinds: the server's is of the rhel family, the desktop's says ID_LIKE=debian.
    """
    candidates = [os_id, *os_like.split()]
    if os_id.lower() == "kylin" and os_like:
        candidates.reverse()
    for candidate in candidates:
        for family, ids in _FAMILIES.items():
            if candidate.lower() in ids:
                return family
    return "other"


def gather_facts(*, agent_version: str, verbs: Sequence[str]) -> Facts:
    """Return this node's facts.

    Args:
        agent_version: The version of the running agent.
        verbs: What the node's policy allows.
    """
    no_release: dict[str, str] = {}
    release = _try(_read_os_release, no_release)
    os_id = release.get("ID", "")
    return Facts(
        hostname=_try(socket.gethostname, "")[:_NAME],
        os_id=os_id[:_NAME],
        os_family=os_family(os_id, release.get("ID_LIKE", "")),
        os_name=release.get("PRETTY_NAME", release.get("NAME", platform.system()))[:_NAME],
        os_version=release.get("VERSION_ID", "")[:_NAME],
        arch=platform.machine()[:_NAME],
        kernel=platform.release()[:_NAME],
        cpus=_try(lambda: psutil.cpu_count(logical=True) or 0, 0),
        cpu_model=_try(_cpu_model, "")[:_NAME],
        memory_bytes=_try(lambda: psutil.virtual_memory().total, 0),
        swap_bytes=_try(lambda: psutil.swap_memory().total, 0),
        disks=_try(_disks, []),
        addresses=_try(_addresses, []),
        boot_id=_try(boot_id, "")[:_NAME],
        boot_time=_try(lambda: int(psutil.boot_time()), 0),
        timezone=_try(_timezone, "")[:_NAME],
        agent_version=agent_version,
        agent_user=_try(own_name, ""),
        verbs=list(verbs)[:32],
    )


def parse_cpu_model(cpuinfo: str) -> str:
    """Return the processor's name from /proc/cpuinfo, whose key differs by architecture."""
    values: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), value.strip())
    for key in ("model name", "Model Name", "cpu model", "Model", "Hardware", "cpu"):
        if values.get(key):
            return values[key]
    return ""


def _try(gather: Callable[[], T], otherwise: T) -> T:
    try:
        return gather()
    except Exception:
        # Deliberately wide: /proc and psutil differ between kernels and containers in endless ways.
        _log.debug("a fact can't be gathered", exc_info=True)
        return otherwise


def _read_os_release() -> dict[str, str]:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if path.is_file():
            return parse_os_release(path.read_text(errors="replace"))
    return {}


def _cpu_model() -> str:
    return parse_cpu_model(Path("/proc/cpuinfo").read_text(errors="replace"))


def _disks() -> list[Disk]:
    disks: dict[str, Disk] = {}
    for part in psutil.disk_partitions(all=False):
        if part.device in disks or len(disks) >= _LIST:
            continue  # bind mounts show a device again
        size = _try(lambda mount=part.mountpoint: psutil.disk_usage(mount).total, 0)  # type: ignore[misc]
        disks[part.device] = Disk(
            mount=part.mountpoint[:_TEXT],
            device=part.device[:_TEXT],
            kind=part.fstype[:_NAME],
            size_bytes=size,
        )
    return list(disks.values())


def _addresses() -> list[str]:
    found = []
    for addresses in psutil.net_if_addrs().values():
        for entry in addresses:
            if entry.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            address = ipaddress.ip_address(entry.address.partition("%")[0])
            if not (address.is_loopback or address.is_link_local):
                found.append(str(address))
    return found[:_LIST]


def _timezone() -> str:
    if name := os.environ.get("TZ"):
        return name.lstrip(":")
    localtime = Path("/etc/localtime").resolve()
    if "zoneinfo" in localtime.parts:
        return "/".join(localtime.parts[localtime.parts.index("zoneinfo") + 1 :])
    timezone = Path("/etc/timezone")
    return timezone.read_text().strip() if timezone.is_file() else "UTC"
