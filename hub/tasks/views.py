"""`Task` and `Run` as the API shows them, from the store or, while the task goes on, from memory.

The rule it guards: an answer is bounded. Up to 64 runs show all the output that is kept; more share
16 MiB of first bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hub.store.tasks import OutputRow, RunRow, TaskRow
from hub.tasks.output import as_text
from hub.tasks.state import LiveTask

FULL_OUTPUT_RUNS = 64
SHARED_BYTES = 16 * 1024 * 1024


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One node's part of a task."""

    id: str
    node: str
    state: str
    exit_code: int | None
    signal: int | None
    reason: str
    stdout: str
    """Kept head and tail, with one line for what is left out between; UTF-8 with replacement."""
    stderr: str
    stdout_bytes: int
    """All bytes, kept or not."""
    stderr_bytes: int
    truncated: bool
    started_at: float | None
    finished_at: float | None


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A command on many nodes."""

    id: str
    subject: str
    target: str
    argv: list[str]
    user: str | None
    cwd: str | None
    timeout_s: float
    parallel: int
    max_errors: int | None
    state: str
    created_at: float
    finished_at: float | None
    counts: dict[str, int]
    """Runs by state."""
    runs: list[Run] | msgspec.UnsetType = msgspec.UNSET
    """Only in the answer for a single task."""


def shared_limit(runs: int) -> int | None:
    """Return the bytes of each stream to show for so many runs; None for all that is kept."""
    return None if runs <= FULL_OUTPUT_RUNS else SHARED_BYTES // (2 * runs)


def run_view(row: RunRow, output: OutputRow) -> Run:
    """Show one run with the part of its output that was fetched."""
    left_out = row.stdout_bytes - len(output.stdout_head) - len(output.stdout_tail)
    errors_left_out = row.stderr_bytes - len(output.stderr_head) - len(output.stderr_tail)
    return Run(
        id=row.id,
        node=row.node_name,
        state=row.state,
        exit_code=row.exit_code,
        signal=row.signal,
        reason=row.reason,
        stdout=as_text(output.stdout_head, output.stdout_tail, left_out),
        stderr=as_text(output.stderr_head, output.stderr_tail, errors_left_out),
        stdout_bytes=row.stdout_bytes,
        stderr_bytes=row.stderr_bytes,
        truncated=left_out > 0 or errors_left_out > 0,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def stored_view(row: TaskRow, counts: dict[str, int], runs: list[Run] | None = None) -> Task:
    """Show a task as it is stored."""
    spec: dict[str, Any] = dict(row.spec)
    return Task(
        id=row.id,
        subject=row.subject,
        target=row.target,
        argv=spec["argv"],
        user=spec.get("user"),
        cwd=spec.get("cwd"),
        timeout_s=spec["timeout_s"],
        parallel=spec["parallel"],
        max_errors=spec.get("max_errors"),
        state=row.state,
        created_at=row.created_at,
        finished_at=row.finished_at,
        counts=counts,
        runs=msgspec.UNSET if runs is None else runs,
    )


def live_view(task: LiveTask, runs: list[Run] | None = None) -> Task:
    """Show a task that goes on."""
    return Task(
        id=task.id,
        subject=task.subject,
        target=task.spec.target,
        argv=task.spec.argv,
        user=task.spec.user,
        cwd=task.spec.cwd,
        timeout_s=task.spec.timeout_s,
        parallel=task.spec.parallel,
        max_errors=task.spec.max_errors,
        state=task.state if task.finished_at is not None or task.cancelled else "running",
        created_at=task.created_at,
        finished_at=task.finished_at,
        counts=task.counts(),
        runs=msgspec.UNSET if runs is None else runs,
    )
