"""The node's commands: started at most once, supervised until they end, kept until acknowledged.

A `Run` belongs to the agent, not to the stream that asked for it: deadlines, the output limit and
cancelling work while the tunnel is gone, and after a restart of the agent the runs that are alive
are supervised again with the time they have left.

    async with Runs(state.runs) as runs:
        run = runs.find(name) or runs.submit(opening, account, stdin)

The output is limited by a watcher, not by RLIMIT_FSIZE, which would also hit the files that the
command itself writes. It may overshoot by what is written until the command is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from edge_agent.commands.argv import NotStarted
from edge_agent.commands.growth import Changes, Growth
from edge_agent.commands.journal import Request, RunFiles
from edge_agent.commands.starts import Starts
from edge_agent.commands.wrapper import check, start
from edge_agent.processes import Process, boot_id, end_session, wait_end
from edge_agent.users import Account
from protocol.messages import Exec
from protocol.record_types import Exited

_log = logging.getLogger(__name__)
T = TypeVar("T")

_GRACE_S = {"timeout": 2.0, "cancelled": 5.0, "output_limit": 0.0}
"""Between SIGTERM and SIGKILL."""
_WRAPPER_S = 2.0
"""How long the wrapper may take to write the status after its command is gone."""
_SYNC_AFTER_S = 1.0
"""A result acknowledged within this time needs no fsync, because it is deleted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what commands may use."""

    at_once: int = 4
    waiting: int = 100
    output_bytes: int = 64 * 1024**2
    """Of each of stdout and stderr; more ends the command."""
    kept_runs: int = 1000
    kept_bytes: int = 256 * 1024**2
    """Output of ended runs that the hub hasn't acknowledged."""


class Overloaded(Exception):
    """Too many commands wait already."""


class Run:
    """One command: waiting, running or ended."""

    def __init__(self, opening: Exec, files: RunFiles) -> None:
        self.opening = opening
        self.files = files
        self.changes = Changes()
        """Notified when it starts, writes output or ends."""
        self.process: Process | None = None
        """The wrapper; its pid is the command's session. None until it started."""
        self.started_at = time.time()
        """Seconds since the epoch."""
        self.outcome: Exited | None = None
        self.acknowledged = asyncio.Event()
        self.cancel_wanted = False
        self.is_ending = False
        """The agent brings its end about."""

    def cancel(self) -> None:
        """End the command, or never start it."""
        self.cancel_wanted = True
        if self.process is None and self.outcome is None:
            self.conclude(Exited(reason="cancelled", detail="cancelled before it was started"))
        self.changes.notify()

    def conclude(self, outcome: Exited) -> None:
        """Set the result."""
        self.outcome = outcome
        self.changes.notify()


class Runs:
    """All commands of this node."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self._directory = directory
        self._limits = limits or Limits()
        self._runs: dict[str, Run] = {}
        self._slots = asyncio.Semaphore(self._limits.at_once)
        self._waiting = 0
        self._tasks = asyncio.TaskGroup()
        self._supervisors: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(self._limits.at_once + 2, thread_name_prefix="runs")
        self._trimming = asyncio.Lock()

    async def __aenter__(self) -> Runs:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._starts = await self._in_thread(lambda: Starts(self._directory / "starts"))
        self._growth = Growth()
        await self._tasks.__aenter__()
        for entry in sorted(self._directory.iterdir(), key=lambda path: path.stat().st_mtime):
            if entry.is_dir():
                self._recover(RunFiles(entry))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop supervising; the commands themselves run on."""
        for supervisor in self._supervisors:
            supervisor.cancel()
        try:
            await self._tasks.__aexit__(kind, error, trace)
        finally:
            self._growth.close()
            self._threads.shutdown(wait=True)
            self._starts.close()

    def find(self, name: str) -> Run | None:
        """Return the run of that name if the node knows anything about it.

        One that was started but whose result is gone gives an ended run with reason `interrupted`.
        """
        if (run := self._runs.get(name)) is not None:
            return run
        if name in self._starts:
            lost = Run(Exec(run=name, argv=[]), RunFiles(self._directory / name))
            lost.conclude(
                Exited(
                    reason="interrupted",
                    detail="the node started this run before and has no result of it any more",
                )
            )
            return lost
        return None

    def submit(self, opening: Exec, account: Account, stdin: bytes | None) -> Run:
        """Take a run that `find` doesn't know; it starts as soon as there is room.

        Raises:
            Overloaded: Too many wait already.
        """
        if self._waiting >= self._limits.waiting:
            raise Overloaded(f"{self._waiting} commands wait on this node already")
        run = self._runs[opening.run] = Run(opening, RunFiles(self._directory / opening.run))
        self._waiting += 1
        self._spawn(self._carry_out(run, lambda: self._start(run, account, stdin)))
        return run

    async def acknowledge(self, run: Run) -> None:
        """Forget an ended run; the node still knows that it was started."""
        if run.outcome is None:
            return
        run.acknowledged.set()
        if self._runs.get(run.opening.run) is run:
            del self._runs[run.opening.run]
        await self._in_thread(run.files.remove)

    def unacknowledged(self) -> list[str]:
        """Return the runs whose results the hub hasn't acknowledged, running ones too."""
        return list(self._runs)[: self._limits.kept_runs]

    # --- recovering ---

    def _recover(self, files: RunFiles) -> None:
        """Take over what an earlier agent left of one run."""
        name = files.directory.name
        status, request = files.read_status(), files.read_request()
        if name not in self._starts:
            files.remove()  # it was about to be started and never was
            return
        opening = request.opening if request else Exec(run=name, argv=[])
        same_boot = request is not None and request.boot_id == boot_id()
        run = self._runs[name] = Run(opening, files)
        run.started_at = request.requested_at if request else run.started_at
        run.process = status.process if same_boot else None
        process = run.process
        if process is not None and status.exit_code is None and process.is_alive():
            _log.info("run %s goes on under pid %d", name, process.pid)
            self._waiting += 1
            self._spawn(self._carry_out(run, lambda: process))
        else:
            run.conclude(files.conclude())

    # --- running ---

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._supervisors.add(task)
        task.add_done_callback(self._supervisors.discard)

    async def _carry_out(self, run: Run, start_it: Callable[[], Process]) -> None:
        """Bring a run to its end and keep the result; no failure of it reaches the others."""
        try:
            async with self._slots:
                self._waiting -= 1
                if run.outcome is None:
                    run.process = await self._in_thread(start_it)
                    run.changes.notify()
                    await self._supervise(run, run.process)
        except NotStarted as error:
            run.conclude(_not_started(error.exit_code, str(error)))
        except Exception as error:
            _log.exception("run %s failed on the node's side", run.opening.run)
            if run.process is None:
                run.conclude(_not_started(126, f"the node can't start it: {error}"))
            else:
                run.conclude(
                    Exited(reason="interrupted", detail=f"the node lost it: {error}"[:4096])
                )
        await self._keep(run)

    def _start(self, run: Run, account: Account, stdin: bytes | None) -> Process:
        command = check(run.opening, account)
        run.files.create(Request(run.opening, boot_id(), time.time()), stdin, account)
        try:
            self._starts.add(run.opening.run)
            return start(command, run.files)
        except BaseException:
            run.files.remove()
            raise

    async def _supervise(self, run: Run, process: Process) -> None:
        """Wait for the end of a running command, and bring it about when it is due."""
        watch = self._growth.watch(run.files.directory, run.changes.notify)
        try:
            async with asyncio.TaskGroup() as tasks:
                ender = tasks.create_task(self._end_when_due(run, process))
                await wait_end(process)
                if not run.is_ending:
                    ender.cancel()
        finally:
            self._growth.forget(watch)
        with contextlib.suppress(ChildProcessError):  # an earlier agent's child
            os.waitpid(process.pid, os.WNOHANG)  # noqa: ASYNC222 - doesn't block
        run.conclude(run.files.conclude())

    async def _end_when_due(self, run: Run, process: Process) -> None:
        reason = await self._reason_to_end(run, process)
        _log.info("run %s is ended: %s", run.opening.run, reason)
        run.is_ending = True
        run.files.write_ending(reason)
        grace_s = _GRACE_S[reason]
        first = signal.SIGTERM if grace_s else signal.SIGKILL
        await end_session(process, first=first, grace_s=grace_s, spare_leader=True)
        try:
            async with asyncio.timeout(_WRAPPER_S):
                await wait_end(process)
        except TimeoutError:
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)

    async def _reason_to_end(self, run: Run, process: Process) -> str:
        told = (0, 0)
        while True:
            change = run.changes.next()
            sizes = run.files.output_sizes()
            remaining_s = run.opening.timeout_s - process.age_s()
            if run.cancel_wanted:
                return "cancelled"
            if remaining_s <= 0:
                return "timeout"
            if max(sizes) > self._limits.output_bytes:
                return "output_limit"
            try:
                async with asyncio.timeout(min(remaining_s, self._growth.poll_s)):
                    await change.wait()
            except TimeoutError:
                if sizes != told:  # nobody else tells the streams
                    run.changes.notify()
            told = sizes

    # --- keeping ---

    async def _keep(self, run: Run) -> None:
        """Make the result of an ended run last until it is acknowledged, within the bounds."""
        try:
            async with asyncio.timeout(_SYNC_AFTER_S):
                await run.acknowledged.wait()
                return
        except TimeoutError:
            await self._in_thread(run.files.sync)
        async with self._trimming:  # one at a time, or two drop the same
            for surplus in self._surplus():
                with suppress(FileNotFoundError):  # acknowledged and removed meanwhile
                    await self._in_thread(surplus)

    def _surplus(self) -> list[Callable[[], None]]:
        """Return what to delete to come back within the bounds, oldest first."""
        ended = [run for run in self._runs.values() if run.outcome is not None]
        acts: list[Callable[[], None]] = []
        for run in ended[: max(0, len(ended) - self._limits.kept_runs)]:
            _log.warning("run %s is forgotten: too many unacknowledged ones", run.opening.run)
            del self._runs[run.opening.run]
            acts.append(run.files.remove)
        kept = [run for run in ended if run.opening.run in self._runs]
        total = sum(_output_bytes(run) for run in kept)
        for run in kept:
            if total <= self._limits.kept_bytes:
                break
            total -= _output_bytes(run)
            acts.append(self._dropping(run))
        return acts

    def _dropping(self, run: Run) -> Callable[[], None]:
        outcome = run.outcome
        assert outcome is not None, "only an ended run's output is dropped"
        _log.warning("the output of run %s is dropped: too much is unacknowledged", run.opening.run)
        return lambda: run.files.drop_output(outcome)

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, act)


def _output_bytes(run: Run) -> int:
    return sum(run.files.output_sizes())


def _not_started(exit_code: int, detail: str) -> Exited:
    return Exited(exit_code=exit_code, reason="not_started", detail=detail[:4096])
