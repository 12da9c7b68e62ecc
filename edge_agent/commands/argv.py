"""What can be started: the argv, directory and environment that were asked for, checked before.

Everything is checked before anything is forked, so that a mistake of the caller has a clear answer
with the exit code that a shell would give (127 not found, 126 can't be executed).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_agent.users import Account


class NotStarted(Exception):
    """The command can't be started; nothing of it ran."""

    def __init__(self, exit_code: int, detail: str) -> None:
        super().__init__(exit_code, detail)
        self.exit_code = exit_code
        """126 or 127, as a shell would answer."""
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


def start_directory(cwd: str | None, account: Account) -> Path:
    """Return the directory to start in: the one asked for, else the account's home.

    Raises:
        NotStarted: It isn't there.
    """
    directory = Path(cwd or account.start_directory)
    if "\0" in str(directory):
        raise NotStarted(126, "the directory contains a NUL byte")
    if not directory.is_absolute():
        raise NotStarted(126, f"the directory {cwd!r} is not an absolute path")
    if not directory.is_dir():
        raise NotStarted(126, f"there is no directory {cwd!r}")
    return directory


def resolve_argv(argv: Sequence[str], directory: Path, env: Mapping[str, str]) -> list[str]:
    """Return the argv with a path in the place of a bare command name, found in env's PATH.

    A shell would take a bare name for a builtin, and exec for an entry of the agent's PATH.

    Raises:
        NotStarted: It can't be started as asked.
    """
    if not argv or not argv[0]:
        raise NotStarted(127, "no command was given")
    texts = (*argv, *env.keys(), *env.values())
    if any("\0" in text for text in texts):
        raise NotStarted(126, "the command or its environment contains a NUL byte")
    if any(not name or "=" in name for name in env):
        raise NotStarted(126, "a variable of the environment has an empty name or one with =")
    return [_resolve(argv[0], directory, env), *argv[1:]]


def _resolve(command: str, directory: Path, env: Mapping[str, str]) -> str:
    if "/" not in command:
        found = shutil.which(command, path=env.get("PATH", os.defpath))
        if found is None:
            raise NotStarted(127, f"command not found: {command}")
        return found if found.startswith("/") else f"./{found}"
    target = directory / command
    if not target.exists():
        raise NotStarted(127, f"there is no file {command}")
    if target.is_dir():
        raise NotStarted(126, f"{command} is a directory")
    if not os.access(target, os.X_OK):
        raise NotStarted(126, f"{command} is not executable")
    return f"./{command}" if command.startswith("-") else command
