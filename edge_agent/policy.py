"""The node's own policy: which verbs, users and forward targets it allows, whatever the hub asks.

`policy.json` is written when the node joins and belongs to whoever runs the node; the agent only
reads it, again at each check when it changed. A policy that is missing, malformed or writable by
others denies everything: a mistake in it must never open the node. The format: docs/policy.md.

    policy = PolicyFile(path)
    policy.current().allow_exec("root")      # raises Refused
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
import psutil

from edge_agent.forward_rules import (
    Address,
    ForwardRule,
    is_guarded,
    normal,
    parse_listen_rule,
    parse_rule,
)

_log = logging.getLogger(__name__)

Verb: TypeAlias = Literal["exec", "shell", "forward", "deploy"]
VERBS: tuple[Verb, ...] = get_args(Verb)


class Refused(Exception):
    """The node's policy doesn't allow it; the text says which line of the policy would."""


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `policy.json` holds."""

    verbs: Annotated[list[Verb], msgspec.Meta(max_length=16)]
    users: Annotated[list[str], msgspec.Meta(max_length=1000)]
    """Names of users that commands and shells may run as; `*` is everybody."""
    forward: Annotated[list[str], msgspec.Meta(max_length=1000)]
    """Targets of forwards, each a rule of `edge_agent.forward_rules`."""
    listen: Annotated[list[str], msgspec.Meta(max_length=1000)] = []
    """Addresses and ports that may be opened for the hub; a file without it opens none."""

    def __post_init__(self) -> None:
        for rule in self.forward:
            parse_rule(rule)
        for rule in self.listen:
            parse_listen_rule(rule)

    def allow_exec(self, user: str) -> None:
        """Raise `Refused` unless commands may run as this user."""
        self._allow_verb("exec")
        self._allow_user(user)

    def allow_shell(self, user: str) -> None:
        """Raise `Refused` unless shells may run as this user."""
        self._allow_verb("shell")
        self._allow_user(user)

    def allow_deploy(self) -> None:
        """Raise `Refused` unless packages may be installed and removed."""
        self._allow_verb("deploy")

    def allow_forward(self, host: str, address: str, port: int) -> None:
        """Raise `Refused` unless a connection to this target is allowed.

        Args:
            host: The name or address that was asked for.
            address: The address it resolved to, which will be connected to.
            port: The TCP port.
        """
        self._allow_verb("forward")
        target = normal(ipaddress.ip_address(address.partition("%")[0]))
        own = target.is_loopback or target.is_unspecified or str(target) in own_addresses()
        rules = map(parse_rule, self.forward)
        if any(rule.matches(host, target, port, is_own=own) for rule in rules):
            return
        if is_guarded(target):
            raise Refused(
                f"{host}:{port} is the link-local or metadata address {target}, which this node's "
                'policy.json must name itself under "forward" to allow'
            )
        raise Refused(
            f'{host}:{port} is not among the "forward" targets of this node\'s policy.json'
        )

    def allow_listen(self, address: Address, port: int) -> None:
        """Raise `Refused` unless this port may be opened for the hub."""
        self._allow_verb("forward")
        if any(_covers(rule, address, port) for rule in map(parse_listen_rule, self.listen)):
            return
        where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        raise Refused(
            f'{where} is not among the "listen" addresses of this node\'s policy.json; '
            f'add "{where}" there to allow it'
        )

    def _allow_verb(self, verb: Verb) -> None:
        if verb not in self.verbs:
            raise Refused(f'this node\'s policy.json does not list "{verb}" under "verbs"')

    def _allow_user(self, user: str) -> None:
        if "*" not in self.users and user not in self.users:
            raise Refused(f'this node\'s policy.json does not list the user {user!r} under "users"')


def _covers(rule: ForwardRule, address: Address, port: int) -> bool:
    """Say whether a listen rule covers a port of an address; 0.0.0.0 means all of them."""
    return port in rule.ports and (isinstance(rule.target, str) or address in rule.target)


class PolicyFile:
    """A `policy.json`, read again whenever it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, ...] | None = None
        self._policy: Policy | str = f"{path} was not read yet"

    def current(self) -> Policy:
        """Return the policy in force.

        Raises:
            Refused: The file is missing or wrong, so that nothing is allowed.
        """
        stamp = self._read_stamp()
        if stamp is None or stamp != self._stamp:
            self._stamp = stamp
            self._policy = read_policy(self._path)
            if isinstance(self._policy, str):
                _log.error("everything is refused: %s", self._policy)
        if isinstance(self._policy, str):
            raise Refused(f"everything is refused until it is repaired: {self._policy}")
        return self._policy

    def verbs(self) -> list[str]:
        """Return the verbs in force, none while the file is wrong."""
        try:
            return list(self.current().verbs)
        except Refused:
            return []

    def _read_stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)


def read_policy(path: Path) -> Policy | str:
    """Read a `policy.json`; a text says why it can't be used."""
    try:
        if path.stat().st_mode & 0o022:
            return f"{path} is writable by others: run chmod 600 on it"
        return msgspec.json.decode(path.read_bytes(), type=Policy)
    except FileNotFoundError:
        return f"{path} is missing"
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        return f"{path}: {error}"


def default_policy() -> Policy:
    """Return what a joined node allows: every verb and user, forwards to and from itself."""
    listen = ["127.0.0.1:1024-65535"]
    return Policy(verbs=list(VERBS), users=["*"], forward=["node"], listen=listen)


def own_addresses() -> set[str]:
    """Return the addresses of this node's interfaces as text."""
    return {
        str(normal(_address(address.address)))
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])
