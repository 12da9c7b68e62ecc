"""Processes of this node: who they are, when they end, how a whole session of them is ended.

A process is known by pid, start ticks and boot id, because pids are reused: without a match nothing
is signalled. A command or a shell runs in a session of its own, and ending it means the session:
every process whose session id is the leader's, whatever process group it moved to. Reads /proc;
Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.02
_KILL_S = 5.0
"""How long killed processes may take to leave /proc before they are given up."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told apart from every other that ever had its pid."""

    pid: int
    start_ticks: int
    """When it started, in clock ticks after boot (proc(5), field 22)."""
    boot_id: str

    def is_alive(self) -> bool:
        """Say whether this very process still runs (a zombie doesn't)."""
        stat = _read_stat(self.pid)
        return (
            stat is not None
            and stat.start_ticks == self.start_ticks
            and stat.state not in ("Z", "X")
            and self.boot_id == boot_id()
        )

    def age_s(self) -> float:
        """Return the seconds since it started, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / TICKS_PER_SECOND


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    state: str
    session: int
    start_ticks: int


@cache
def boot_id() -> str:
    """Return the kernel's random id of this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def process_from_stat(line: str) -> Process:
    """Build the process that a line of /proc/PID/stat of this boot describes.

    Raises:
        ValueError: The line is not of that form.
    """
    stat = _parse_stat(line)
    return Process(stat.pid, stat.start_ticks, boot_id())


def find_process(pid: int) -> Process | None:
    """Return the process that has this pid now, or None."""
    stat = _read_stat(pid)
    return Process(stat.pid, stat.start_ticks, boot_id()) if stat else None


def session_members(leader: Process) -> set[int]:
    """Return the pids of the living processes in the session that `leader` made, no zombies."""
    current = _read_stat(leader.pid)
    if leader.boot_id != boot_id() or (current and current.start_ticks != leader.start_ticks):
        return set()  # the number has a new owner, so nobody of that session is left
    stats = (_read_stat(int(entry.name)) for entry in os.scandir(PROC) if entry.name.isdigit())
    return {
        stat.pid
        for stat in stats
        if stat is not None and stat.session == leader.pid and stat.state not in ("Z", "X")
    }


async def wait_end(process: Process) -> None:
    """Wait until the process has ended; it may be a child of this process or of another."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # Linux before 5.3
        while process.is_alive():  # noqa: ASYNC110 - such a kernel has nothing to wait for
            await asyncio.sleep(_POLL_S)
        return
    try:
        # The pidfd may belong to a successor of the pid: then the one waited for is gone already.
        if process.is_alive():
            await readable(fd)
    finally:
        os.close(fd)


async def readable(fd: int) -> None:
    """Wait until the descriptor is readable."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def end_session(
    leader: Process, *, first: signal.Signals, grace_s: float, spare_leader: bool = False
) -> bool:
    """Signal all processes of the leader's session, and kill those that are left after the grace.

    Args:
        leader: The process that made the session; its pid is the session's id.
        first: The signal to ask with.
        grace_s: How long they may take to end by themselves.
        spare_leader: Leave the leader itself alone, so that it can tell how its child ended.

    Returns:
        Whether /proc shows none of them any more. False when some can't be killed: they belong to
        another user, or hang in the kernel.
    """
    spared = {leader.pid} if spare_leader else set()
    kill_at = time.monotonic() + grace_s
    _signal(session_members(leader) - spared, first)
    while members := session_members(leader) - spared:
        now = time.monotonic()
        if now >= kill_at + _KILL_S:
            return False
        if now >= kill_at:
            _signal(members, signal.SIGKILL)
        await _wait_any_end(members)
    return True


async def _wait_any_end(members: set[int]) -> None:
    """Wait for the end of one of them, at most for one poll."""
    process = find_process(next(iter(members)))
    if process is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_S):
                await wait_end(process)


def _signal(pids: set[int], number: signal.Signals) -> None:
    """Signal processes; those that ended or that we may not signal are passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _read_stat(pid: int) -> _Stat | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return _parse_stat(file.read())
    except (OSError, ValueError):
        return None


def _parse_stat(line: str) -> _Stat:
    # The name is in parentheses and may hold anything, parentheses too: count from the last one.
    pid, _, rest = line.partition(" (")
    fields = rest.rpartition(") ")[2].split()
    if len(fields) < 20:
        raise ValueError("not a line of /proc/PID/stat")
    return _Stat(int(pid), fields[0], int(fields[3]), int(fields[19]))
