"""What the recorder writes, and when."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert

from hub.errors import Unavailable
from hub.events import EventLog
from hub.store import schema
from hub.store import tasks as queries
from hub.store.engine import Store
from hub.store.tasks import OutputRow, RunResult, RunRow, TaskRow
from hub.tasks import recorder as module
from hub.tasks.recorder import Recorder
from hub.tasks.state import LiveRun, RunState

NAMES = ("a", "b", "c")


def nothing() -> None:
    """Nobody shows the run."""


async def store_runs(store: Store) -> None:
    nodes = [{"id": f"id-{name}", "name": name, "created_at": 0.0} for name in NAMES]
    await store.write(lambda connection: connection.execute(insert(schema.nodes), nodes))
    task = TaskRow("t", "olga", "all", {}, "running", 0.0, None)
    runs = [RunRow(name, f"id-{name}", name, "queued") for name in NAMES]
    await store.write(lambda connection: queries.insert_task(connection, task, None, runs))


async def test_progress_is_written_late_and_never_over_a_result(store: Store) -> None:
    await store_runs(store)
    recorder = Recorder(store, EventLog(store), note_delay_s=0.0)
    live = {name: LiveRun(name, f"id-{name}", name) for name in NAMES}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        for name, run in live.items():
            run.move(RunState.SENT)
            if name != "a":
                run.move(RunState.RUNNING)
                run.started_at = 5.0
            recorder.note(run)
        done = RunRow("c", "id-c", "c", "succeeded", exit_code=0, finished_at=6.0)
        await recorder.record([RunResult(done, OutputRow(b"out"))], [], nothing)
        live["c"].move(RunState.SUCCEEDED)
        recorder.note(live["a"])
        async with asyncio.timeout(5):
            while (states := await states_of(store))["b"] == "queued":
                await recorder.record([], [], nothing)
        running.cancel()
    assert states == {"a": "sent", "b": "running", "c": "succeeded"}


async def states_of(store: Store) -> dict[str, str]:
    async with store.read() as connection:
        return {run.id: run.state for run in await queries.list_runs(connection, "t")}


async def test_results_that_wait_are_committed_together(store: Store) -> None:
    await store_runs(store)
    recorder = Recorder(store, EventLog(store))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        async with asyncio.TaskGroup() as waiting:
            for name in NAMES:
                row = RunRow(name, f"id-{name}", name, "failed", exit_code=1, finished_at=6.0)
                result = RunResult(row, OutputRow())
                waiting.create_task(recorder.record([result], [], nothing))
        running.cancel()
    assert await states_of(store) == dict.fromkeys(NAMES, "failed")


async def test_events_are_stored_with_their_result_and_told_once_it_shows(store: Store) -> None:
    await store_runs(store)
    log = EventLog(store)
    recorder = Recorder(store, log)
    order: list[str] = []
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        with log.subscribe() as subscription:
            row = RunRow("a", "id-a", "a", "succeeded", exit_code=0, finished_at=6.0)
            drafts = [
                log.draft("run.finished", node_id="id-a", node="a", data={"run": "a"}),
                log.draft("task.finished", data={"task": "t"}),
            ]

            def settled() -> None:
                order.append(f"settled, {len(subscription._queue)} told")

            await recorder.record([RunResult(row, OutputRow())], drafts, settled)
            told = [await anext(subscription) for _ in drafts]
        running.cancel()
    assert order == ["settled, 0 told"]
    assert [event.kind for event in told] == ["run.finished", "task.finished"]
    assert await log.after(0, 10) == told
    assert (await states_of(store))["a"] == "succeeded"


async def test_a_result_that_is_not_stored_leaves_no_event(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    monkeypatch.setattr(module, "RETRY_DELAY_S", 0.0)
    await store_runs(store)
    log = EventLog(store)
    recorder = Recorder(store, log)
    shown: list[str] = []
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        row = RunRow("a", "id-a", "a", "no such state", finished_at=6.0)
        drafts = [log.draft("run.finished", data={"run": "a"})]
        with pytest.raises(Unavailable):
            await recorder.record([RunResult(row, OutputRow())], drafts, lambda: shown.append("a"))
        running.cancel()
    assert await log.after(0, 10) == []
    assert shown == []
