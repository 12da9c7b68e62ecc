"""What the recorder writes, and when."""

from __future__ import annotations

import asyncio

from sqlalchemy import insert

from hub.store import schema
from hub.store import tasks as queries
from hub.store.engine import Store
from hub.store.tasks import OutputRow, RunResult, RunRow, TaskRow
from hub.tasks.recorder import Recorder
from hub.tasks.state import LiveRun, RunState

NAMES = ("a", "b", "c")


async def store_runs(store: Store) -> None:
    nodes = [{"id": f"id-{name}", "name": name, "created_at": 0.0} for name in NAMES]
    await store.write(lambda connection: connection.execute(insert(schema.nodes), nodes))
    task = TaskRow("t", "olga", "all", {}, "running", 0.0, None)
    runs = [RunRow(name, f"id-{name}", name, "queued") for name in NAMES]
    await store.write(lambda connection: queries.insert_task(connection, task, None, runs))


async def test_progress_is_written_late_and_never_over_a_result(store: Store) -> None:
    await store_runs(store)
    recorder = Recorder(store, note_delay_s=0.0)
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
        await recorder.record([RunResult(done, OutputRow(b"out"))])
        live["c"].move(RunState.SUCCEEDED)
        recorder.note(live["a"])
        async with asyncio.timeout(5):
            while (states := await states_of(store))["b"] == "queued":
                await recorder.record([])
        running.cancel()
    assert states == {"a": "sent", "b": "running", "c": "succeeded"}


async def states_of(store: Store) -> dict[str, str]:
    async with store.read() as connection:
        return {run.id: run.state for run in await queries.list_runs(connection, "t")}


async def test_results_that_wait_are_committed_together(store: Store) -> None:
    await store_runs(store)
    recorder = Recorder(store)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(recorder.run())
        async with asyncio.TaskGroup() as waiting:
            for name in NAMES:
                row = RunRow(name, f"id-{name}", name, "failed", exit_code=1, finished_at=6.0)
                waiting.create_task(recorder.record([RunResult(row, OutputRow())]))
        running.cancel()
    assert await states_of(store) == dict.fromkeys(NAMES, "failed")
