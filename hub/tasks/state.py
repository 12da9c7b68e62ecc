"""Tasks and runs that are not finished yet, in memory; and the table by which a run's state moves.

The rule it guards: only `LiveRun.move` changes a run's state, along `_NEXT`; a finished run never
changes. Everything that ends is counted here once, so `LiveTask` knows when it is over without
scanning its runs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hub.store.tasks import OutputRow, RunResult, RunRow, TaskEnd
from hub.tasks.feed import Feed
from hub.tasks.output import Kept
from hub.tasks.spec import TaskSpec
from protocol.aio import Channel
from protocol.record_types import ExecFromHub, ExecFromNode


class RunState(StrEnum):
    """Where one run is; those after `RUNNING` are final."""

    QUEUED = "queued"
    SENT = "sent"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    LOST = "lost"


SMALL_BYTES = 4096
"""An output up to this stays in memory until its task ends, so that followers need not load it."""

FINAL = frozenset(RunState) - {RunState.QUEUED, RunState.SENT, RunState.RUNNING}
ERRORS = frozenset({RunState.FAILED, RunState.TIMED_OUT, RunState.REJECTED, RunState.LOST})
"""What counts against `max_errors`."""

_NEXT: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: FINAL | {RunState.SENT},
    RunState.SENT: FINAL | {RunState.RUNNING},
    RunState.RUNNING: FINAL,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    state: RunState
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    """As the node counted them; 0 when it said nothing."""


@dataclass(slots=True)
class LiveRun:
    """One run of a task that goes on."""

    id: str
    node_id: str
    node_name: str
    state: RunState = RunState.QUEUED
    ending: Ending | None = None
    stdout: Kept | None = field(default_factory=Kept)
    """None once the result is stored and the output is too long to stay in memory; so `stderr`."""
    stderr: Kept | None = field(default_factory=Kept)
    started_at: float | None = None
    finished_at: float | None = None
    offline_reason: str = ""
    """`offline since …`, as it was when the task was made."""
    channel: Channel[ExecFromHub, ExecFromNode] | None = None
    """Open while the run is attached to its node."""

    def move(self, state: RunState) -> None:
        """Enter a state that may follow the present one."""
        assert state in _NEXT[self.state], f"{self.state} -> {state}"
        self.state = state

    @property
    def is_final(self) -> bool:
        """Whether the run's result is stored."""
        return self.state in FINAL

    def row(self, state: RunState | None = None, ending: Ending | None = None) -> RunRow:
        """Describe the run for the store; `state` and `ending` go before its own."""
        end = ending or self.ending or Ending(self.state)
        return RunRow(
            id=self.id,
            node_id=self.node_id,
            node_name=self.node_name,
            state=(state or self.state).value,
            reason=end.reason,
            exit_code=end.exit_code,
            signal=end.signal,
            stdout_bytes=max(end.stdout_bytes, self.stdout.total if self.stdout else 0),
            stderr_bytes=max(end.stderr_bytes, self.stderr.total if self.stderr else 0),
            started_at=self.started_at,
            finished_at=self.finished_at,
        )

    def output(self) -> OutputRow:
        """Return what is kept of both streams."""
        stdout, stderr = self.stdout or Kept(), self.stderr or Kept()
        return OutputRow(
            bytes(stdout.head), bytes(stdout.tail), bytes(stderr.head), bytes(stderr.tail)
        )

    def forget_output(self) -> None:
        """Drop a stored output that is too long to stay in memory for those who follow the task."""
        if self.stdout and self.stderr and self.stdout.total + self.stderr.total > SMALL_BYTES:
            self.stdout = self.stderr = None


@dataclass(slots=True)
class LiveTask:
    """A task some of whose runs go on."""

    id: str
    subject: str
    spec: TaskSpec
    stdin: bytes | None
    created_at: float
    runs: dict[str, LiveRun]
    resumed: bool = False
    """It was found at the hub's start: what is queued may have been sent by the hub before."""
    cancelled: bool = False
    finished_at: float | None = None
    end: TaskEnd | None = None
    """Set when the last result goes to the store."""
    feed: Feed = field(default_factory=Feed)
    queue: deque[LiveRun] = field(default_factory=deque)
    """Runs that no worker took yet."""
    settled: Counter[RunState] = field(default_factory=Counter)
    """Endings that were handed to the store."""

    @property
    def state(self) -> str:
        """One of `schema.TASK_STATES`, from the endings so far."""
        if self.end is not None:
            return self.end.state
        if self.cancelled:
            return "cancelled"
        if self.settled.total() < len(self.runs):
            return "running"
        return "succeeded" if self.settled[RunState.SUCCEEDED] == len(self.runs) else "failed"

    @property
    def too_many_errors(self) -> bool:
        """Whether `max_errors` is passed."""
        limit = self.spec.max_errors
        return limit is not None and sum(self.settled[state] for state in ERRORS) > limit

    @property
    def is_stopped(self) -> bool:
        """Whether nothing may be started any more."""
        return self.cancelled or self.too_many_errors

    def counts(self) -> dict[str, int]:
        """Count the runs by their state."""
        return dict(Counter(run.state.value for run in self.runs.values()))

    def settle(self, run: LiveRun, ending: Ending, now: float) -> RunResult:
        """Count an ending that is about to be stored; the last one carries the task's end."""
        run.finished_at = now
        self.settled[ending.state] += 1
        if self.settled.total() == len(self.runs):
            self.end = TaskEnd(self.id, self.state, now)
        return RunResult(run.row(ending.state, ending), run.output(), self.end)
