"""Takes one run to its ending: open the stream, take what the node tells, attach after any cut.

The rule it guards: a run is started at most once. It is sent again only under the same id, which
the node knows; what may not start any more (a cancelled run, a result that is only to be
acknowledged) is attached with an empty argv, which a node refuses unless it knows the run. Waiting
for a node ends with `lost`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import assert_never

import msgspec

from hub.errors import NodeOffline
from hub.node_reports import clean_text
from hub.registry import Registry
from hub.tasks.arrivals import Arrivals, was_cut
from hub.tasks.recorder import Recorder
from hub.tasks.spec import exec_message
from hub.tasks.state import Ending, LiveRun, LiveTask, RunState
from protocol.aio import Channel, Stream
from protocol.errors import (
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ResetCode,
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

logger = logging.getLogger(__name__)

LOST_AFTER_S = 3600.0
"""How long past its time-out a run waits for its node."""
ATTEMPTS = 3
"""Attachments that may end in a fault of the node before the run is given up."""
ACKNOWLEDGE_TIMEOUT_S = 60.0
ACKNOWLEDGE_SEND_S = 5.0
"""A node that told a result and then reads nothing must not hold up the runs behind it."""
STDIN_PIECE = 64 * 1024
EVERYTHING = 2**53
"""An offset past all output: nothing is to be replayed."""

_SAYS_NO = frozenset(
    {
        ResetCode.REFUSED,
        ResetCode.UNKNOWN_KIND,
        ResetCode.PROTOCOL,
        ResetCode.OVERLOADED,
        ResetCode.NOT_FOUND,
    }
)
_REASONS = {
    "timeout": RunState.TIMED_OUT,
    "cancelled": RunState.CANCELLED,
    "interrupted": RunState.LOST,
}
"""`Exited.reason` of the wire, where the exit status does not decide."""


@dataclass(slots=True)
class Driver:
    """Drives runs; one call of `drive` each."""

    registry: Registry
    recorder: Recorder
    lost_after_s: float = LOST_AFTER_S
    arrivals: Arrivals = field(default_factory=Arrivals)

    async def drive(self, task: LiveTask, run: LiveRun) -> Ending:
        """Take the run to its ending; `run.channel` stays open when the node told it."""
        try:
            async with asyncio.timeout(None) as limit:
                self._extend(task, run, limit)
                return await self._until_ended(task, run, limit)
        except TimeoutError:
            if run.channel is not None:
                run.channel.reset(ResetCode.TIMEOUT, "the hub gave the run up")
                run.channel = None
            return Ending(RunState.LOST, "the node did not tell its result in time")

    def _extend(self, task: LiveTask, run: LiveRun, limit: asyncio.Timeout) -> None:
        """Count the patience from the run's start, or from now."""
        age_s = 0.0 if run.started_at is None else max(0.0, time.time() - run.started_at)
        patience_s = max(0.0, task.spec.timeout_s + self.lost_after_s - age_s)
        limit.reschedule(asyncio.get_running_loop().time() + patience_s)

    async def _until_ended(self, task: LiveTask, run: LiveRun, limit: asyncio.Timeout) -> Ending:
        faults = 0
        while True:
            seen = self.arrivals.seen(run.node_id)
            try:
                return await self._attach(task, run, limit)
            except NodeOffline as error:
                if run.state is RunState.QUEUED and not task.resumed:
                    return Ending(RunState.SKIPPED, run.offline_reason or str(error))
            except ProtocolError as error:
                if not was_cut(error):
                    faults += 1
                    if (ending := _given_up(task, run, error, faults)) is not None:
                        return ending
                    continue
                logger.info("run %s: %s; waiting for %s", run.id, error, run.node_name)
            await self.arrivals.wait(run.node_id, seen)

    async def _attach(self, task: LiveTask, run: LiveRun, limit: asyncio.Timeout) -> Ending:
        attach_only = task.is_stopped or run.state is RunState.RUNNING
        message = _message(task, run, attach_only=attach_only)
        stream = await self.registry.open(run.node_id, message)
        channel: Channel[ExecFromHub, ExecFromNode] = Channel(stream, ExecFromNode)
        run.channel = channel
        if run.state is RunState.QUEUED:
            run.move(RunState.SENT)
            self.recorder.note(run)
        try:
            if task.cancelled:
                await channel.send(Cancel())
            if not message.has_stdin:
                exited = await self._receive(task, run, channel, limit)
            else:
                exited = await self._feed_and_receive(task, run, channel, limit)
            if attach_only and exited.reason == "not_started":
                raise StreamReset(ResetCode.NOT_FOUND, "the node does not know the run")
        except Exception:
            run.channel = None
            raise
        return _ending(exited)

    async def _feed_and_receive(
        self,
        task: LiveTask,
        run: LiveRun,
        channel: Channel[ExecFromHub, ExecFromNode],
        limit: asyncio.Timeout,
    ) -> Exited:
        """Send stdin beside receiving: a command may talk before it has read all."""
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(channel, task.stdin or b""))
            outcome: Exited | Exception
            try:
                outcome = await self._receive(task, run, channel, limit)
            except Exception as error:  # kept out of the group's wrapping
                outcome = error
            feeding.cancel()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _receive(
        self,
        task: LiveTask,
        run: LiveRun,
        channel: Channel[ExecFromHub, ExecFromNode],
        limit: asyncio.Timeout,
    ) -> Exited:
        assert run.stdout is not None and run.stderr is not None
        kept = {1: run.stdout, 2: run.stderr}
        while (record := await channel.receive()) is not None:
            match record:
                case Started():
                    if run.state is RunState.SENT:
                        run.started_at = time.time()
                        run.move(RunState.RUNNING)
                        self._extend(task, run, limit)
                        self.recorder.note(run)
                case Output(stream=number, offset=offset, data=data):
                    kept[number].append(offset, data)
                    task.feed.touch(run.id)
                case Exited():
                    return record
                case _:
                    assert_never(record)
        raise StreamReset(ResetCode.INTERNAL, "the node ended the stream without a result")

    async def cancel(self, run: LiveRun) -> None:
        """Ask the node to end a run; one that is away is asked when it is attached again.

        The record is queued at once; a node that reads nothing is not waited for.
        """
        if run.channel is None:
            return
        try:
            async with asyncio.timeout(0):
                await run.channel.send(Cancel())
        except (StreamReset, TunnelClosed, TimeoutError) as error:
            logger.debug("run %s does not take its cancelling now: %s", run.id, error)

    async def acknowledge(self, run: LiveRun) -> None:
        """Let the node forget a run whose result is stored; it asks again when that fails."""
        channel, run.channel = run.channel, None
        if channel is not None:
            await _acknowledge(channel)

    async def acknowledge_stored(self, node_id: str, run_id: str) -> None:
        """Let a node forget a run that ended long ago for the hub."""
        message = Exec(run=run_id, argv=[], stdout_offset=EVERYTHING, stderr_offset=EVERYTHING)
        stream: Stream | None = None
        try:
            stream = await self.registry.open(node_id, message)
            channel: Channel[ExecFromHub, ExecFromNode] = Channel(stream, ExecFromNode)
            async with asyncio.timeout(ACKNOWLEDGE_TIMEOUT_S):
                while not isinstance(await channel.receive(), Exited | None):
                    pass
        except (
            NodeOffline, TunnelClosed, StreamReset, RemoteProtocolError, LocalProtocolError,
            TimeoutError,
        ) as error:  # fmt: skip
            logger.info("run %s stays on its node: %s", run_id, error)
            if stream is not None:
                stream.reset(ResetCode.TIMEOUT, "the run was not shown in time")
            return
        await _acknowledge(channel)


async def _acknowledge(channel: Channel[ExecFromHub, ExecFromNode]) -> None:
    try:
        async with asyncio.timeout(ACKNOWLEDGE_SEND_S):
            await channel.send(Acknowledge())
    except (StreamReset, TunnelClosed) as error:
        logger.debug("a result could not be acknowledged: %s", error)
    except TimeoutError:
        channel.reset(ResetCode.TIMEOUT, "the node does not read its acknowledgement")
    channel.leave()


async def _feed(channel: Channel[ExecFromHub, ExecFromNode], stdin: bytes) -> None:
    """Send standard input and its end; a command that ends first does not read it."""
    try:
        for start in range(0, len(stdin), STDIN_PIECE):
            await channel.send(Stdin(data=stdin[start : start + STDIN_PIECE]))
        await channel.send(Stdin(data=b""))
    except (StreamReset, TunnelClosed) as error:
        logger.debug("stdin was not read to its end: %s", error)


def _message(task: LiveTask, run: LiveRun, *, attach_only: bool) -> Exec:
    assert run.stdout is not None and run.stderr is not None
    message = exec_message(
        task.spec,
        run.id,
        task.subject,
        has_stdin=task.stdin is not None,
        stdout_offset=run.stdout.total,
        stderr_offset=run.stderr.total,
    )
    if attach_only:
        return msgspec.structs.replace(message, argv=[], has_stdin=False)
    return message


def _given_up(task: LiveTask, run: LiveRun, error: ProtocolError, faults: int) -> Ending | None:
    """Say how a run ends when its stream failed, or None when attaching again is worth it."""
    says_no = not isinstance(error, StreamReset) or error.code in _SAYS_NO
    if not says_no and faults < ATTEMPTS:
        return None
    reason = clean_text(str(error))
    if not says_no or run.state is RunState.RUNNING:
        return Ending(RunState.LOST, reason)
    if task.cancelled:
        return Ending(RunState.CANCELLED, "cancelled before it started")
    if task.too_many_errors:
        return Ending(RunState.SKIPPED, "not sent: the task had too many errors")
    return Ending(RunState.REJECTED, reason)


def _ending(exited: Exited) -> Ending:
    """Map what the node said to a run's ending."""
    state = _REASONS.get(exited.reason)
    if state is None:
        state = RunState.SUCCEEDED if exited.exit_code == 0 else RunState.FAILED
        if exited.reason:
            state = RunState.FAILED
    return Ending(
        state,
        clean_text(exited.detail or exited.reason),
        exited.exit_code,
        exited.signal,
        exited.stdout_bytes,
        exited.stderr_bytes,
    )
