"""Starts a command under a tiny shell that outlives the agent and writes down how it ended.

The shell leads a session of its own, so that nothing that happens to the agent reaches the command.
It appends to `status` in the run's directory: its own line of /proc (who it is), whatever the shell
says (a killing signal), and last `= CODE`, or `! 126` when it couldn't enter the directory.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.commands.argv import NotStarted, resolve_argv, start_directory
from edge_agent.commands.journal import RunFiles
from edge_agent.processes import Process, find_process
from edge_agent.users import Account, environment
from protocol.messages import Exec

# The subshell takes the redirection, so that the shell's own words about it go to `status` and not
# into the command's stderr. The traps keep the shell alive when the command signals its whole
# group; a subshell starts with the default actions again.
_SCRIPT = """
exec 3>&2 2>>status || exit 126
read -r stat </proc/$$/stat
echo "$stat" >&2
trap : HUP INT QUIT TERM USR1 USR2 ALRM PIPE
if cd -- "$1"; then
  shift
  unset OLDPWD stat
  (exec "$@" 2>&3 3>&-)
  echo "= $?" >&2
else
  echo "! 126" >&2
fi
"""
_SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class Command:
    """A command that can be started, checked."""

    argv: Sequence[str]
    directory: Path
    env: Mapping[str, str]
    account: Account


def check(opening: Exec, account: Account) -> Command:
    """Return what to start.

    Raises:
        NotStarted: It can't be started as asked.
    """
    directory = start_directory(opening.cwd, account)
    env = environment(account, opening.env, term="dumb")
    return Command(resolve_argv(opening.argv, directory, env), directory, env, account)


def start(command: Command, files: RunFiles) -> Process:
    """Start a command whose journal is on disk. Blocks for about a millisecond.

    Raises:
        NotStarted: The system refused.
    """
    account = command.account
    switch = {} if account.is_own else _become(account)
    stdin, stdout, stderr = files.open_for_command()
    try:
        child = subprocess.Popen(  # type: ignore[call-overload]  # noqa: S603 - that's what it is for
            [_SHELL, "-c", _SCRIPT, "mooring-run", str(command.directory), *command.argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=files.directory,
            env=command.env,
            start_new_session=True,
            umask=0o022,
            **switch,
        )
    except OSError as error:
        raise NotStarted(126, f"can't start {command.argv[0]}: {error.strerror}") from error
    finally:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
    process = find_process(child.pid)
    assert process is not None, "a child that nobody waited for is in /proc"
    # The run is watched by its pidfd, and may well outlive this object.
    child.returncode = 0
    return process


def _become(account: Account) -> dict[str, object]:
    return {"user": account.uid, "group": account.gid, "extra_groups": list(account.groups)}
