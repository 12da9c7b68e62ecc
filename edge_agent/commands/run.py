"""Serves one `exec` stream: starts the run or attaches to it, and tells what it writes.

The stream only watches: when it goes away the run goes on, and a later `exec` with the same name
continues from the offsets that it names. Standard input is taken whole before the start, so that a
command never reads half of it because a link broke; an empty `Stdin` or FIN ends it. After `Exited`
the node's FIN says that the acknowledgement was carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from typing import TypeAlias, assert_never

import msgspec

from edge_agent.commands.journal import is_run_name
from edge_agent.commands.runs import Overloaded, Run, Runs
from edge_agent.policy import PolicyFile, Refused
from edge_agent.users import CannotBecome, UnknownUser, find_account
from protocol.aio import (
    Channel,
    RemoteProtocolError,
    ResetCode,
    Stream,
    StreamReset,
    TunnelClosed,
)
from protocol.messages import Exec
from protocol.record_types import (
    Acknowledge,
    Cancel,
    ExecFromHub,
    ExecFromNode,
    Exited,
    Output,
    Started,
    Stdin,
)

_log = logging.getLogger(__name__)

STDIN_BYTES = 16 * 1024**2
"""The longest standard input, because it is journalled before the start."""
_PIECE = 32 * 1024
_STDIN_S = 600.0
_ACKNOWLEDGE_S = 30.0
"""How long the stream stays open for an acknowledgement after the end."""
_Channel: TypeAlias = Channel[ExecFromNode, ExecFromHub]


async def handle_exec(opening: Exec, stream: Stream, runs: Runs, policy: PolicyFile) -> None:
    """Serve one `exec` stream until its run ended and the hub acknowledged it or went away."""
    if not is_run_name(opening.run):
        stream.reset(ResetCode.PROTOCOL, "a run's name is 1 to 128 letters, digits, '.', '_', '-'")
        return
    channel: _Channel = Channel(stream, ExecFromHub)
    try:
        run = await _find_or_submit(opening, channel, runs, policy)
    except (Refused, CannotBecome) as error:
        stream.reset(ResetCode.REFUSED, str(error))
    except Overloaded as error:
        stream.reset(ResetCode.OVERLOADED, str(error))
    except UnknownUser as error:
        await channel.send(Exited(exit_code=126, reason="not_started", detail=str(error)))
    else:
        if run is not None:
            await _attend(run, opening, channel, runs)


async def _find_or_submit(
    opening: Exec, channel: _Channel, runs: Runs, policy: PolicyFile
) -> Run | None:
    """Return the run to attend to; None when the stream was refused meanwhile."""
    account = await find_account(opening.user)
    policy.current().allow_exec(account.name)
    stdin = None
    if opening.has_stdin and runs.find(opening.run) is None:
        try:
            async with asyncio.timeout(_STDIN_S):
                stdin = await _read_stdin(channel)
        except _Cancelled:
            await channel.send(Exited(reason="cancelled", detail="cancelled before it was started"))
            return None
        except TimeoutError:
            channel.reset(ResetCode.TIMEOUT, "the standard input did not come to its end")
            return None
        except _TooLong:
            limit = STDIN_BYTES // 1024**2
            channel.reset(ResetCode.OVERLOADED, f"standard input is longer than {limit} MiB")
            return None
    # Another stream may have brought the same run while this one read: never await in between.
    return runs.find(opening.run) or runs.submit(opening, account, stdin)


class _Cancelled(Exception):
    """The hub cancelled before all of the standard input was there."""


class _TooLong(Exception):
    """The standard input passed `STDIN_BYTES`."""


async def _read_stdin(channel: _Channel) -> bytes:
    content = bytearray()
    while isinstance(record := await channel.receive(), Stdin) and record.data:
        content += record.data
        if len(content) > STDIN_BYTES:
            raise _TooLong
    if isinstance(record, Cancel):
        raise _Cancelled
    return bytes(content)


async def _attend(run: Run, opening: Exec, channel: _Channel, runs: Runs) -> None:
    """Tell the hub about the run and do what it says, until both are done or the stream ends."""
    try:
        async with asyncio.TaskGroup() as tasks:
            obeying = tasks.create_task(_obey(run, channel, runs))
            await _tell(run, opening, channel)
            await asyncio.wait([obeying], timeout=_ACKNOWLEDGE_S)
            if obeying.cancel():
                channel.reset(ResetCode.TIMEOUT, "the result was not acknowledged")
            else:
                channel.finish()
    except* (StreamReset, TunnelClosed):
        pass  # the run goes on without it
    except* RemoteProtocolError as errors:
        _log.warning("run %s: %s", opening.run, errors.exceptions[0])  # the channel was reset


async def _obey(run: Run, channel: _Channel, runs: Runs) -> None:
    """Carry out the hub's records until it has acknowledged or finished."""
    while (record := await channel.receive()) is not None:
        match record:
            case Cancel():
                run.cancel()
            case Acknowledge():
                await runs.acknowledge(run)
                if run.acknowledged.is_set():
                    return
            case Stdin():
                pass  # of a run that has all of it
            case _:
                assert_never(record)


@dataclass(slots=True)
class _Tail:
    """Where in one of the two files the stream is."""

    stream: int
    fd: int
    position: int
    """In the file."""
    base: int = 0
    """What a command truncated away that was told already; offsets on the wire count it."""

    def read(self, end: int | None) -> Output | None:
        """Return the next piece before `end` of the file, if there is one."""
        if os.fstat(self.fd).st_size < self.position:
            self.base += self.position
            self.position = 0
        limit = _PIECE if end is None else min(_PIECE, end - self.position)
        data = os.pread(self.fd, limit, self.position) if limit > 0 else b""
        if not data:
            return None
        piece = Output(stream=self.stream, offset=self.base + self.position, data=data)
        self.position += len(data)
        return piece


async def _tell(run: Run, opening: Exec, channel: _Channel) -> None:
    """Send `Started`, the output from the offsets on as it grows, and `Exited`."""
    while run.process is None and run.outcome is None:
        await run.changes.next().wait()
    if run.process is not None:
        await channel.send(Started(pid=run.process.pid, started_at=run.started_at))
    with contextlib.ExitStack() as files:
        tails = _open_tails(run, opening, files)
        outcome = None
        while outcome is None:
            change = run.changes.next()
            outcome = run.outcome  # before reading: what is there now is all there will be
            await _send_growth(tails, outcome, channel)
            if outcome is None:
                await change.wait()
    await channel.send(_counted(outcome, tails))


def _open_tails(run: Run, opening: Exec, files: contextlib.ExitStack) -> list[_Tail]:
    try:
        stdout, stderr = run.files.open_output()
    except OSError:  # never started, or dropped for want of space
        return []
    files.callback(os.close, stdout)
    files.callback(os.close, stderr)
    return [
        _tail_from(1, stdout, opening.stdout_offset),
        _tail_from(2, stderr, opening.stderr_offset),
    ]


def _tail_from(stream: int, fd: int, offset: int) -> _Tail:
    position = min(offset, os.fstat(fd).st_size)
    return _Tail(stream, fd, position, base=offset - position)


def _counted(outcome: Exited, tails: list[_Tail]) -> Exited:
    """Return the outcome with what was truncated away counted too."""
    if not any(tail.base for tail in tails):
        return outcome
    stdout, stderr = tails
    return msgspec.structs.replace(
        outcome,
        stdout_bytes=outcome.stdout_bytes + stdout.base,
        stderr_bytes=outcome.stderr_bytes + stderr.base,
    )


async def _send_growth(tails: list[_Tail], outcome: Exited | None, channel: _Channel) -> None:
    """Send what the files hold now, in turns, so that neither waits for all of the other."""
    ends = (outcome.stdout_bytes, outcome.stderr_bytes) if outcome else (None, None)
    sent = True
    while sent:
        sent = False
        for tail, end in zip(tails, ends, strict=False):
            if (piece := tail.read(end)) is not None:
                await channel.send(piece)
                sent = True
