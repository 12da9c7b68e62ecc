"""Queries on tasks and their runs; functions take the connection first.

The rule it guards: a task and all its runs appear in one transaction, and a run's result and the
end of its task are written together. `hub.tasks` is the only caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import LargeBinary, bindparam, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import runs, tasks

UNFINISHED = ("queued", "sent", "running")


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task as stored; `spec` is the JSON document of `hub.tasks.spec.TaskSpec`."""

    id: str
    subject: str
    target: str
    spec: Mapping[str, Any]
    state: str
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run without its output."""

    id: str
    node_id: str
    node_name: str
    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    started_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """What is kept of one run's two streams: the first bytes and the last bytes of the rest."""

    stdout_head: bytes = b""
    stdout_tail: bytes = b""
    stderr_head: bytes = b""
    stderr_tail: bytes = b""


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run and its output, and its task when this was the last run."""

    run: RunRow
    output: OutputRow
    task: TaskEnd | None = None


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How and when a task ended."""

    id: str
    state: str
    finished_at: float


_TASK = (
    tasks.c.id, tasks.c.subject, tasks.c.target, tasks.c.spec, tasks.c.state, tasks.c.created_at,
    tasks.c.finished_at,
)  # fmt: skip
_RUN = (
    runs.c.id, runs.c.node_id, runs.c.node_name, runs.c.state, runs.c.reason, runs.c.exit_code,
    runs.c.signal, runs.c.stdout_bytes, runs.c.stderr_bytes, runs.c.started_at, runs.c.finished_at,
)  # fmt: skip
_OUTPUT = (runs.c.stdout_head, runs.c.stdout_tail, runs.c.stderr_head, runs.c.stderr_tail)

_INSERT_TASK = insert(tasks)
_INSERT_RUNS = insert(runs)
_FINISH = (
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values({column: bindparam(f"new_{column.name}") for column in (*_RUN[3:], *_OUTPUT)})
)
_END = (
    update(tasks)
    .where(tasks.c.id == bindparam("task"))
    .values(state=bindparam("new_state"), finished_at=bindparam("new_finished_at"))
)
_NOTE = (
    update(runs)
    .where(runs.c.id == bindparam("run"), runs.c.finished_at.is_(None))
    .values(state=bindparam("new_state"), started_at=bindparam("new_started_at"))
)


async def insert_task(
    connection: AsyncConnection, task: TaskRow, stdin: bytes | None, new: Iterable[RunRow]
) -> None:
    """Store a task with one queued run per node."""
    await connection.execute(
        _INSERT_TASK,
        {
            "id": task.id,
            "subject": task.subject,
            "target": task.target,
            "spec": dict(task.spec),
            "stdin": stdin,
            "state": task.state,
            "created_at": task.created_at,
        },
    )
    await connection.execute(
        _INSERT_RUNS,
        [
            {
                "id": run.id,
                "task_id": task.id,
                "node_id": run.node_id,
                "node_name": run.node_name,
                "state": run.state,
            }
            for run in new
        ],
    )


async def finish_runs(connection: AsyncConnection, results: Sequence[RunResult]) -> None:
    """Store results, and the ends of the tasks that they complete."""
    await connection.execute(_FINISH, [_result_values(result) for result in results])
    for result in results:
        if result.task is not None:
            await end_task(connection, result.task)


async def end_task(connection: AsyncConnection, end: TaskEnd) -> None:
    """Store how a task ended."""
    await connection.execute(
        _END, {"task": end.id, "new_state": end.state, "new_finished_at": end.finished_at}
    )


def _result_values(result: RunResult) -> dict[str, object]:
    run, output = result.run, result.output
    return {
        "run": run.id,
        "new_state": run.state,
        "new_reason": run.reason,
        "new_exit_code": run.exit_code,
        "new_signal": run.signal,
        "new_stdout_bytes": run.stdout_bytes,
        "new_stderr_bytes": run.stderr_bytes,
        "new_started_at": run.started_at,
        "new_finished_at": run.finished_at,
        "new_stdout_head": output.stdout_head,
        "new_stdout_tail": output.stdout_tail,
        "new_stderr_head": output.stderr_head,
        "new_stderr_tail": output.stderr_tail,
    }


async def record_runs(
    connection: AsyncConnection, results: Sequence[RunResult], notes: Sequence[RunRow]
) -> None:
    """Store results and progress in one go."""
    if results:
        await finish_runs(connection, results)
    if notes:
        await note_runs(connection, notes)


async def note_runs(connection: AsyncConnection, progress: Sequence[RunRow]) -> None:
    """Store that runs were sent or started; finished ones stay as they are."""
    await connection.execute(
        _NOTE,
        [
            {"run": run.id, "new_state": run.state, "new_started_at": run.started_at}
            for run in progress
        ],
    )


async def mark_cancelled(connection: AsyncConnection, task_id: str) -> None:
    """Store that a task was cancelled; `finished_at` stays NULL until its last run ends."""
    await connection.execute(
        update(tasks)
        .where(tasks.c.id == task_id, tasks.c.finished_at.is_(None))
        .values(state="cancelled")
    )


async def get_task(connection: AsyncConnection, task_id: str) -> TaskRow | None:
    """Fetch one task."""
    row = (await connection.execute(select(*_TASK).where(tasks.c.id == task_id))).one_or_none()
    return None if row is None else TaskRow(*row)


async def get_stdin(connection: AsyncConnection, task_id: str) -> bytes | None:
    """Fetch what a task's commands read."""
    return (
        await connection.execute(select(tasks.c.stdin).where(tasks.c.id == task_id))
    ).scalar_one_or_none()


async def list_tasks(
    connection: AsyncConnection, limit: int, before: str | None
) -> tuple[list[TaskRow], int]:
    """Fetch the newest tasks, those with an id below `before`, and how many there are in all.

    Ids begin with the time of creation, so their order is the order of time.
    """
    query = select(*_TASK).order_by(tasks.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(tasks.c.id < before)
    rows = (await connection.execute(query)).all()
    total = (await connection.execute(select(func.count()).select_from(tasks))).scalar_one()
    return [TaskRow(*row) for row in rows], total


async def unfinished_tasks(connection: AsyncConnection) -> list[TaskRow]:
    """Fetch the tasks that a hub left behind when it stopped, oldest first."""
    query = select(*_TASK).where(tasks.c.finished_at.is_(None)).order_by(tasks.c.id)
    return [TaskRow(*row) for row in (await connection.execute(query)).all()]


async def list_runs(connection: AsyncConnection, task_id: str) -> list[RunRow]:
    """Fetch a task's runs in the order of their nodes' names."""
    query = select(*_RUN).where(runs.c.task_id == task_id).order_by(runs.c.node_name)
    return [RunRow(*row) for row in (await connection.execute(query)).all()]


async def count_states(
    connection: AsyncConnection, task_ids: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count the runs of several tasks by state: {task: {state: n}}."""
    query = (
        select(runs.c.task_id, runs.c.state, func.count())
        .where(runs.c.task_id.in_(task_ids))
        .group_by(runs.c.task_id, runs.c.state)
    )
    counts: dict[str, dict[str, int]] = {task_id: {} for task_id in task_ids}
    for task_id, state, number in (await connection.execute(query)).all():
        counts[task_id][state] = number
    return counts


async def outputs(connection: AsyncConnection, run_ids: Sequence[str]) -> dict[str, OutputRow]:
    """Fetch the kept output of a few runs."""
    query = select(runs.c.id, *_OUTPUT).where(runs.c.id.in_(run_ids))
    return {row[0]: _output(row) for row in (await connection.execute(query)).all()}


async def output_starts(
    connection: AsyncConnection, task_id: str, limit_bytes: int
) -> dict[str, OutputRow]:
    """Fetch the first `limit_bytes` of each stream of all runs of a task."""
    empty = literal(b"", LargeBinary)
    query = select(
        runs.c.id,
        func.substr(runs.c.stdout_head, 1, limit_bytes, type_=LargeBinary),
        empty,
        func.substr(runs.c.stderr_head, 1, limit_bytes, type_=LargeBinary),
        empty,
    ).where(runs.c.task_id == task_id)
    return {row[0]: _output(row) for row in (await connection.execute(query)).all()}


def _output(row: Sequence[Any]) -> OutputRow:
    return OutputRow(*(bytes(part) for part in row[1:]))


async def finished_among(
    connection: AsyncConnection, node_id: str, run_ids: Sequence[str]
) -> list[str]:
    """Say which of the runs that a node still holds have a stored result."""
    query = select(runs.c.id).where(
        runs.c.id.in_(run_ids), runs.c.node_id == node_id, runs.c.state.not_in(UNFINISHED)
    )
    return list((await connection.execute(query)).scalars())
