"""Makes stored tasks live again: the unfinished ones at the hub's start, ended ones to be read.

The rule it guards: whatever the last hub may have sent counts as sent. Its runs come first, in the
order in which they went out, with nothing kept: the node replays its journal from the first byte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from hub.store.tasks import RunRow, TaskRow
from hub.tasks.spec import TaskSpec
from hub.tasks.state import FINAL, Ending, LiveRun, LiveTask, RunState

_ORDER = {RunState.RUNNING: 0, RunState.SENT: 1, RunState.QUEUED: 2}


def live_task(row: TaskRow, runs: Sequence[RunRow], stdin: bytes | None) -> LiveTask:
    """Rebuild a task; its queue holds the unfinished runs."""
    live = [_live_run(run) for run in runs]
    task = LiveTask(
        id=row.id,
        subject=row.subject,
        spec=msgspec.convert({**row.spec, "target": row.target}, TaskSpec),
        stdin=stdin,
        created_at=row.created_at,
        runs={run.id: run for run in live},
        resumed=True,
        cancelled=row.state == "cancelled",
        finished_at=row.finished_at,
        settled=Counter(run.state for run in live if run.is_final),
    )
    task.queue.extend(
        sorted((run for run in live if not run.is_final), key=lambda run: _ORDER[run.state])
    )
    return task


def _live_run(row: RunRow) -> LiveRun:
    run = LiveRun(
        row.id, row.node_id, row.node_name, RunState(row.state), started_at=row.started_at
    )
    if run.state in FINAL:
        run.finished_at = row.finished_at
        run.stdout = run.stderr = None
        run.ending = Ending(
            run.state, row.reason, row.exit_code, row.signal, row.stdout_bytes, row.stderr_bytes
        )
    return run
