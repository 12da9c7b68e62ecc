"""Reads tasks for the API: ended ones from the store, others from memory and the store."""

from __future__ import annotations

from collections.abc import Mapping

from hub.errors import NotFound
from hub.store import tasks as queries
from hub.store.engine import Store
from hub.store.tasks import OutputRow, RunRow
from hub.tasks import views
from hub.tasks.state import LiveTask


async def stored_task(store: Store, task_id: str) -> views.Task:
    """Show one task as it is stored, with its runs.

    Raises:
        NotFound: there is no such task.
    """
    async with store.read() as connection:
        row = await queries.get_task(connection, task_id)
        if row is None:
            raise NotFound("task", task_id)
        rows = await queries.list_runs(connection, task_id)
        limit = views.shared_limit(len(rows))
        if limit is None:
            outputs = await queries.outputs(connection, [run.id for run in rows])
        else:
            outputs = await queries.output_starts(connection, task_id, limit)
        counts = await queries.count_states(connection, [task_id])
    shown = [views.run_view(run, outputs.get(run.id, OutputRow())) for run in rows]
    return views.stored_view(row, counts[task_id], shown)


async def live_runs(store: Store, task: LiveTask) -> list[views.Run]:
    """Show the runs of a task that goes on; output that left memory is in the store."""
    limit = views.shared_limit(len(task.runs))
    rows: list[tuple[RunRow, OutputRow | None]] = [
        (run.row(), None if run.stdout is None else _cut(run.output(), limit))
        for run in task.runs.values()
    ]
    stored: dict[str, OutputRow] = {}
    if missing := [row.id for row, output in rows if output is None]:
        async with store.read() as connection:
            if limit is None:
                stored = await queries.outputs(connection, missing)
            else:
                stored = await queries.output_starts(connection, task.id, limit)
    return [views.run_view(row, output or stored.get(row.id, OutputRow())) for row, output in rows]


def _cut(output: OutputRow, limit: int | None) -> OutputRow:
    if limit is None:
        return output
    return OutputRow(output.stdout_head[:limit], b"", output.stderr_head[:limit], b"")


async def page(
    store: Store, live: Mapping[str, LiveTask], limit: int, cursor: str | None
) -> tuple[list[views.Task], str | None, int]:
    """Show the newest tasks below `cursor`: the tasks, the next cursor, how many in all."""
    async with store.read() as connection:
        rows, total = await queries.list_tasks(connection, limit + 1, cursor)
        shown = rows[:limit]
        counts = await queries.count_states(connection, [row.id for row in shown])
    tasks = [
        views.live_view(live[row.id]) if row.id in live else views.stored_view(row, counts[row.id])
        for row in shown
    ]
    return tasks, shown[-1].id if len(rows) > limit else None, total
