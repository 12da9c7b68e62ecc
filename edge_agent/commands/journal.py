"""What a run is, on disk: `runs/RUN/{request,stdin,stdout,stderr,status,ending,outcome}`.

`request` is written before the start, `status` by the wrapper, `ending` before the agent ends a
command by itself, `outcome` only where the files alone don't tell how it went. The result is always
derived from these files, so a restarted agent comes to the same one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.processes import Process, process_from_stat
from edge_agent.users import Account
from protocol.messages import Exec
from protocol.record_types import Exited

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_STREAMS = ("stdout", "stderr")
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_REPLACE = os.O_WRONLY | os.O_TRUNC | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_STATUS_MAX = 64 * 1024


class Request(msgspec.Struct, frozen=True):
    """What `request` holds."""

    opening: Exec
    boot_id: str
    requested_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the wrapper wrote."""

    process: Process | None = None
    """The wrapper, whose pid is the command's process group and session."""
    exit_code: int | None = None
    """As a shell gives it: 128 and more may be a signal."""
    was_signal: bool = False
    """The shell said that a signal ended the command."""
    problem: str = ""
    """Why the command could not be started."""


def is_run_name(run: str) -> bool:
    """Say whether a run's name may be a directory's."""
    return _RUN.fullmatch(run) is not None


def parse_status(text: str) -> Status:
    """Parse what the wrapper wrote, or the beginning of it; half a line counts for nothing."""
    lines = text.split("\n")[:-1]
    if not lines:
        return Status()
    try:
        process = process_from_stat(lines[0])
    except ValueError:
        return Status()
    last = lines[-1] if len(lines) > 1 else ""
    said = "\n".join(lines[1:-1])
    if last == "! 126":
        return Status(process, exit_code=126, problem=said or "can't enter the directory")
    if last.startswith("= ") and last[2:].isdigit():
        return Status(process, exit_code=int(last[2:]) & 0xFF, was_signal=bool(said))
    return Status(process)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The directory of one run."""

    directory: Path

    def create(self, request: Request, stdin: bytes | None, account: Account) -> None:
        """Write the directory of a run that is about to start.

        It becomes the account's, because the wrapper writes there; its parents don't let the
        command back in.
        """
        shutil.rmtree(self.directory, ignore_errors=True)  # a start that never came to be
        self.directory.mkdir(mode=0o700)
        if stdin is not None:
            self._write_new("stdin", stdin)
        self._write_new("request", msgspec.json.encode(request))
        for name in (*_STREAMS, "status"):
            self._write_new(name, b"")
            if not account.is_own:
                os.chown(self.directory / name, account.uid, account.gid)
        if not account.is_own:
            os.chown(self.directory, account.uid, account.gid)

    def open_for_command(self) -> tuple[int, int, int]:
        """Open stdin, stdout and stderr for the command; the caller closes them."""
        stdin = self.directory / "stdin"
        return (
            os.open(stdin if stdin.exists() else os.devnull, _READ),
            os.open(self.directory / "stdout", _APPEND),
            os.open(self.directory / "stderr", _APPEND),
        )

    def read_request(self) -> Request | None:
        """Return the request, or None when it is not there or torn by a power cut."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._read("request", 64 * 1024**2), type=Request)
        return None

    def read_status(self) -> Status:
        """Return what the wrapper wrote so far."""
        try:
            return parse_status(self._read("status", _STATUS_MAX).decode("utf-8", "replace"))
        except OSError:
            return Status()

    def write_ending(self, reason: str) -> None:
        """Write down why the agent is about to end the command."""
        self._write("ending", reason.encode())

    def write_outcome(self, outcome: Exited) -> None:
        """Fix the result."""
        self._write("outcome", msgspec.json.encode(outcome))

    def drop_output(self, outcome: Exited) -> None:
        """Delete the output and keep the result."""
        self.write_outcome(outcome)
        for name in (*_STREAMS, "stdin"):
            (self.directory / name).unlink(missing_ok=True)

    def open_output(self) -> tuple[int, int]:
        """Open stdout and stderr for reading; the caller closes them.

        Raises:
            OSError: They are not there.
        """
        stdout = os.open(self.directory / "stdout", _READ)
        try:
            return stdout, os.open(self.directory / "stderr", _READ)
        except OSError:
            os.close(stdout)
            raise

    def output_sizes(self) -> tuple[int, int]:
        """Return the bytes that stdout and stderr hold."""
        stdout, stderr = (self._size(name) for name in _STREAMS)
        return stdout, stderr

    def conclude(self) -> Exited:
        """Return the result of a run whose wrapper has ended."""
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return msgspec.json.decode(self._read("outcome", _STATUS_MAX), type=Exited)
        status = self.read_status()
        stdout_bytes, stderr_bytes = self.output_sizes()
        code, signal = status.exit_code, 0
        reason, detail = self._ending(), ""
        if status.problem:
            reason, detail = "not_started", status.problem[:4096]
        elif code is None:
            reason = reason or "interrupted"
            detail = "the command was killed, or the node stopped, before its exit status was known"
        elif code > 128 and (status.was_signal or reason) and code - 128 <= 64:
            signal = code - 128
            code = None
        return Exited(
            exit_code=code,
            signal=signal or None,
            reason=reason,
            detail=detail,
            stdout_bytes=stdout_bytes,
            stderr_bytes=stderr_bytes,
        )

    def sync(self) -> None:
        """Bring everything to the disk."""
        if not self.directory.exists():  # never started
            return
        for path in (*self.directory.iterdir(), self.directory, self.directory.parent):
            with contextlib.suppress(OSError):
                fd = os.open(path, _READ)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)

    def remove(self) -> None:
        """Delete the run."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ending(self) -> str:
        try:
            return self._read("ending", 256).decode("ascii", "replace")
        except OSError:
            return ""

    def _size(self, name: str) -> int:
        try:
            return (self.directory / name).stat(follow_symlinks=False).st_size
        except OSError:
            return 0

    def _read(self, name: str, limit: int) -> bytes:
        fd = os.open(self.directory / name, _READ)
        with os.fdopen(fd, "rb") as file:
            return file.read(limit)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all."""
        self._write_new(f"{name}.part", content)
        (self.directory / f"{name}.part").rename(self.directory / name)

    def _write_new(self, name: str, content: bytes) -> None:
        with os.fdopen(os.open(self.directory / name, _REPLACE, 0o600), "wb") as file:
            file.write(content)
