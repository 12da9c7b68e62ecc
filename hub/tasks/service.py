"""`Tasks`: makes tasks, sends them out, cancels and shows them, takes them up after a crash.

The rule it guards: a task and its runs are stored before the first send, and a node may forget a
run only after its result is stored. `run()` lives as long as the hub; one worker per parallel run
of a task takes run after run from the task's queue.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.errors import BadRequest, Conflict, Forbidden, NotFound, NothingMatches, Unavailable
from hub.events import Event, EventLog
from hub.ids import sortable_id
from hub.nodes import Nodes
from hub.nodeview import NodeView, Status
from hub.registry import Registry
from hub.store import tasks as queries
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.events import Draft
from hub.store.tasks import RunResult, TaskEnd, TaskRow
from hub.tasks import show, views
from hub.tasks.drive import LOST_AFTER_S, Driver
from hub.tasks.follow import follow
from hub.tasks.recorder import Recorder
from hub.tasks.resume import live_task
from hub.tasks.spec import ROOT_USERS, TaskSpec, checked, spec_document
from hub.tasks.state import Ending, LiveRun, LiveTask, RunState

logger = logging.getLogger(__name__)

MAX_NODES = 10_000
MAX_LIVE_RUNS = 50_000
"""Runs of all unfinished tasks: a few hundred bytes each while they are quiet."""


class Tasks:
    """All tasks of the hub."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        nodes: Nodes,
        events: EventLog,
        audit: Audit,
        *,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._events = events
        self._audit = audit
        self._recorder = Recorder(store, events)
        self._driver = Driver(registry, self._recorder, lost_after_s)
        self._live: dict[str, LiveTask] = {}
        self._unforgotten: dict[str, list[str]] = {}
        """The newest report's runs of each node whose stored ones are being acknowledged."""
        self._group: asyncio.TaskGroup | None = None
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Take up what the last hub left behind, then drive tasks until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            self._group = group
            try:
                await self._resume()
                self._ready.set()
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def ready(self) -> None:
        """Wait until `run` has taken up the unfinished tasks."""
        await self._ready.wait()

    # --- what the API asks ---

    async def create(self, subject: Subject, spec: TaskSpec) -> views.Task:
        """Store a task with one run per node, and start to send it.

        Raises:
            BadRequest, TooLarge, InvalidTarget: the specification cannot be taken.
            NothingMatches: no node is meant.
            Forbidden: on one of the nodes.
            Unavailable: the hub has too much to do, or is starting or stopping.
        """
        stdin = checked(spec)
        selected = self._nodes.select(spec.target)
        if not selected:
            raise NothingMatches(spec.target)
        if len(selected) > MAX_NODES:
            raise BadRequest(f"{len(selected)} nodes match; a task takes {MAX_NODES} at most")
        await self._authorize(subject, spec, selected)
        self._check_room(len(selected))
        runs = [
            LiveRun(secrets.token_hex(16), node.id, node.name, offline_reason=_offline(node))
            for node in selected
        ]
        task = LiveTask(
            id=sortable_id(),
            subject=subject.name,
            spec=msgspec.structs.replace(spec, stdin_base64=None),
            stdin=stdin,
            created_at=time.time(),
            runs={run.id: run for run in runs},
        )
        task.queue.extend(runs)
        await self._store_new(subject, task)
        return views.live_view(task)

    async def cancel(self, subject: Subject, task_id: str) -> views.Task:
        """Cancel what is queued, and ask the nodes to end what runs.

        Raises:
            NotFound: there is no such task.
            Conflict: it has ended.
            Forbidden: on one of its nodes.
        """
        task = self._live.get(task_id)
        if task is None:
            await self.get(task_id)
            raise Conflict("the task has ended; there is nothing to cancel")
        for run in task.runs.values():
            authorize(subject, Verb.EXEC, run.node_name)
        if task.end is not None:
            raise Conflict("the task has ended; there is nothing to cancel")
        if task.cancelled:
            return views.live_view(task)
        task.cancelled = True
        queued = _drain(task)
        await self._store.write(lambda connection: queries.mark_cancelled(connection, task_id))
        ending = Ending(RunState.CANCELLED, f"cancelled by {subject.name}")
        await self._conclude(task, [(run, ending) for run in queued])
        for run in list(task.runs.values()):
            await self._driver.cancel(run)
        await self._audit.record(subject.name, "task.cancel", task_id, address=subject.address)
        return views.live_view(task)

    async def get(self, task_id: str) -> views.Task:
        """Show one task with its runs.

        Raises:
            NotFound: there is no such task.
        """
        task = self._live.get(task_id)
        if task is not None:
            return views.live_view(task, await show.live_runs(self._store, task))
        return await show.stored_task(self._store, task_id)

    async def page(
        self, limit: int, cursor: str | None
    ) -> tuple[list[views.Task], str | None, int]:
        """Show the newest tasks without their runs: the page, the next cursor, how many in all."""
        return await show.page(self._store, self._live, limit, cursor)

    async def follow(self, task_id: str) -> AsyncGenerator[bytes, None]:
        """Return an iterator over a task's NDJSON, in chunks, from the beginning to its end.

        Raises:
            NotFound: there is no such task.
            Unavailable: too many readers follow it.
        """
        task = self._live.get(task_id) or await self._load(task_id)
        task.feed.check_room()
        return follow(self._store, task)

    # --- what the tunnel's code tells ---

    def node_came_online(self, node_id: str, runs: Sequence[str] = ()) -> None:
        """Attach again to a node's unfinished runs; let it forget those of `runs` that are stored.

        Args:
            node_id: who came online; called once per tunnel, and again when its report came in.
            runs: what the node says it holds unacknowledged.
        """
        self._driver.arrivals.arrived(node_id)
        if runs:
            is_first = node_id not in self._unforgotten
            self._unforgotten[node_id] = list(runs)
            if is_first:
                self._spawn(self._acknowledge_stored(node_id))

    # --- inside ---

    async def _authorize(self, subject: Subject, spec: TaskSpec, nodes: Sequence[NodeView]) -> None:
        verbs = [Verb.EXEC, *([Verb.EXEC_ROOT] if spec.user in ROOT_USERS else [])]
        try:
            for node in nodes:
                for verb in verbs:
                    authorize(subject, verb, node.name)
        except Forbidden:
            await self._audit.record(
                subject.name,
                "task.create",
                spec.target,
                outcome="denied",
                address=subject.address,
                detail={"argv": spec.argv[:16], "user": spec.user},
            )
            raise

    async def _store_new(self, subject: Subject, task: LiveTask) -> None:
        """Store a task, its entry in the audit and its event in one unit, then start it.

        It starts even when the client is gone meanwhile, and before anybody hears of it.
        """
        row, runs = _task_row(task), [run.row() for run in task.runs.values()]
        detail = {
            "target": task.spec.target,
            "argv": task.spec.argv[:16],
            "user": task.spec.user,
            "nodes": len(runs),
        }
        append_entry = self._audit.unit(
            subject.name, "task.create", task.id, address=subject.address, detail=detail
        )
        told = {"task": task.id, "target": task.spec.target, "subject": task.subject}
        draft = self._events.draft("task.created", data=told)

        async def unit(connection: Connection) -> list[Event]:
            await queries.insert_task(connection, row, task.stdin, runs)
            await append_entry(connection)
            return await self._events.insert(connection, [draft])

        def stored(events: list[Event]) -> None:
            self._start(task)
            self._events.tell(events)

        await self._store.write(unit, then=stored)

    def _check_room(self, more: int) -> None:
        if self._group is None:
            raise Unavailable("the hub is starting or stopping; try again in a moment")
        if sum(len(task.runs) for task in self._live.values()) + more > MAX_LIVE_RUNS:
            raise Unavailable(f"more than {MAX_LIVE_RUNS} runs are under way; try again later")

    def _start(self, task: LiveTask) -> None:
        self._live[task.id] = task
        for _ in range(min(task.spec.parallel, len(task.queue))):
            self._spawn(self._work(task))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else; when the hub stops, the next one takes the task up."""
        if self._group is None:
            work.close()
        else:
            self._group.create_task(_alone(work))

    async def _work(self, task: LiveTask) -> None:
        while task.queue:
            run = task.queue.popleft()
            try:
                ending = await self._driver.drive(task, run)
            except Exception:
                logger.exception("run %s on %s failed in the hub", run.id, run.node_name)
                ending = Ending(RunState.LOST, "the hub failed; its log says why")
            try:
                await self._conclude(task, [(run, ending)])
            except Unavailable:
                logger.exception("the result of run %s is not stored; its node keeps it", run.id)
                return
            await self._driver.acknowledge(run)

    async def _conclude(self, task: LiveTask, ended: list[tuple[LiveRun, Ending]]) -> None:
        """Store endings, then show and tell; past `max_errors` what is queued ends with them."""
        now = time.time()
        results = [task.settle(run, ending, now) for run, ending in ended]
        if task.too_many_errors:
            skip = Ending(RunState.SKIPPED, "not sent: the task had too many errors")
            skipped = [(run, skip) for run in _drain(task)]
            results += [task.settle(run, ending, now) for run, ending in skipped]
            ended = ended + skipped
        if not results:
            return
        drafts = self._drafts(task, results)
        await self._recorder.record(results, drafts, lambda: self._show(task, ended, results))

    def _show(
        self, task: LiveTask, ended: list[tuple[LiveRun, Ending]], results: list[RunResult]
    ) -> None:
        """Let everybody see endings that are stored; the last one ends the task."""
        for (run, ending), result in zip(ended, results, strict=True):
            run.ending = replace(
                ending,
                stdout_bytes=result.run.stdout_bytes,
                stderr_bytes=result.run.stderr_bytes,
            )
            run.move(ending.state)
            run.forget_output()
            task.feed.touch(run.id)
        end = results[-1].task
        if end is not None:
            task.finished_at = end.finished_at
            task.feed.close()
            del self._live[task.id]

    def _drafts(self, task: LiveTask, results: list[RunResult]) -> list[Draft]:
        """Describe endings, and the task's own behind the last: results are stored in order."""
        drafts = [
            self._events.draft(
                "run.finished",
                node_id=result.run.node_id,
                node=result.run.node_name,
                data={"task": task.id, "run": result.run.id, "state": result.run.state},
            )
            for result in results
        ]
        end = results[-1].task
        if end is not None:
            counts = {state.value: number for state, number in task.settled.items()}
            data = {"task": task.id, "state": end.state, "counts": counts}
            drafts.append(self._events.draft("task.finished", data=data))
        return drafts

    async def _load(self, task_id: str) -> LiveTask:
        """Make an ended task followable."""
        async with self._store.read() as connection:
            row = await queries.get_task(connection, task_id)
            if row is None:
                raise NotFound("task", task_id)
            return live_task(row, await queries.list_runs(connection, task_id), None)

    async def _resume(self) -> None:
        async with self._store.read() as connection:
            for row in await queries.unfinished_tasks(connection):
                runs = await queries.list_runs(connection, row.id)
                task = live_task(row, runs, await queries.get_stdin(connection, row.id))
                if task.queue:
                    self._start(task)
                else:  # its last runs went with their removed nodes
                    await self._end(task)
        logger.info("%d unfinished tasks are taken up again", len(self._live))

    async def _end(self, task: LiveTask) -> None:
        end = TaskEnd(task.id, task.state, time.time())
        await self._store.write(lambda connection: queries.end_task(connection, end))

    async def _acknowledge_stored(self, node_id: str) -> None:
        try:
            while runs := self._unforgotten[node_id]:
                self._unforgotten[node_id] = []
                async with self._store.read() as connection:
                    stored = await queries.finished_among(connection, node_id, runs)
                for run_id in stored:
                    await self._driver.acknowledge_stored(node_id, run_id)
        finally:
            del self._unforgotten[node_id]


async def _alone(work: Coroutine[Any, Any, None]) -> None:
    """Keep a fault from ending all other tasks."""
    try:
        await work
    except Exception:
        logger.exception("a fault of the hub ended a part of a task")


def _drain(task: LiveTask) -> list[LiveRun]:
    """Take what surely was never sent: after a restart every run is asked for at its node."""
    if task.resumed:
        return []
    queued = list(task.queue)
    task.queue.clear()
    return queued


def _offline(node: NodeView) -> str:
    if node.status is Status.ONLINE:
        return ""
    if node.status is Status.OFFLINE:
        since = datetime.fromtimestamp(node.status_since, UTC)
        return f"offline since {since:%Y-%m-%d %H:%M:%S} UTC"
    return f"{node.status}: {node.state_reason}" if node.state_reason else str(node.status)


def _task_row(task: LiveTask) -> TaskRow:
    return TaskRow(
        id=task.id,
        subject=task.subject,
        target=task.spec.target,
        spec=spec_document(task.spec),
        state="running",
        created_at=task.created_at,
        finished_at=None,
    )
