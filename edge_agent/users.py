"""Which account a command or a shell runs as, and the environment it starts with.

An agent that is root can become any account; any other agent can only be itself and refuses the
rest by name. Nothing of the agent's own environment reaches a command except the language.
"""

from __future__ import annotations

import asyncio
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this node."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str

    @property
    def is_own(self) -> bool:
        """Whether the agent runs as this account already."""
        return self.uid == os.geteuid()

    @property
    def start_directory(self) -> str:
        """The home directory where there is one, else the root."""
        return self.home if Path(self.home).is_dir() else "/"


class UnknownUser(Exception):
    """The node has no such user."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"this node has no user {self.name!r}"


class CannotBecome(Exception):
    """The agent isn't root and was asked to be somebody else."""

    def __init__(self, own: str, wanted: str) -> None:
        super().__init__(own, wanted)
        self.own = own
        self.wanted = wanted

    def __str__(self) -> str:
        return f"this agent runs as {self.own} and cannot become {self.wanted}"


def own_name() -> str:
    """Return the name of the user the agent runs as, or its number where it has no name."""
    return _own_account(os.geteuid()).name


async def find_account(name: str | None) -> Account:
    """Return the account of that name, the agent's own for None.

    Raises:
        UnknownUser: There is none.
        CannotBecome: The agent isn't root and this isn't its own account.
    """
    own = _own_account(os.geteuid())
    if name is None or name == own.name:
        return own
    # The name service takes time on nodes with a directory server.
    return await asyncio.to_thread(_other_account, own, name)


def environment(account: Account, given: Mapping[str, str], *, term: str) -> dict[str, str]:
    """Return a clean environment for the account with what was given on top."""
    return {
        "PATH": _PATH,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TERM": term,
    } | dict(given)


@cache
def _own_account(uid: int) -> Account:
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:  # a container's bare number
        home = os.environ.get("HOME", "/")
        return Account(str(uid), uid, os.getegid(), tuple(os.getgroups()), home, "/bin/sh")


def _other_account(own: Account, name: str) -> Account:
    try:
        entry = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise UnknownUser(name) from None
    if own.uid not in (0, entry.pw_uid):
        raise CannotBecome(own.name, name)
    return _account(entry)


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir or "/",
        shell=entry.pw_shell or "/bin/sh",
    )
