"""Deployments that are not finished yet, in memory; and the table by which a node's state moves.

The rule it guards: only `LiveStep.move` changes a step's state, along `_NEXT`; a finished step
never changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hub.store.deployments import DeploymentRow, StepRow
from hub.tasks.feed import Feed


class StepState(StrEnum):
    """Where a deployment is on one node; those after `INSTALLING` are final."""

    QUEUED = "queued"
    TRANSFERRING = "transferring"
    INSTALLING = "installing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    LOST = "lost"


FINAL = frozenset(StepState) - {
    StepState.QUEUED, StepState.TRANSFERRING, StepState.INSTALLING,
}  # fmt: skip

_NEXT: Mapping[StepState, frozenset[StepState]] = {
    StepState.QUEUED: FINAL | {StepState.TRANSFERRING, StepState.INSTALLING},
    StepState.TRANSFERRING: FINAL | {StepState.INSTALLING},
    StepState.INSTALLING: FINAL,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a deployment ended on one node."""

    state: StepState
    error: str = ""
    changed: bool = False


@dataclass(slots=True)
class LiveStep:
    """A deployment on one node."""

    node_id: str
    node_name: str
    state: StepState = StepState.QUEUED
    stage: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    changed: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    attached: bool = False
    """A stream to the node is open for it."""
    told_at: float = 0.0
    """When followers last heard of its progress, on the loop's clock; and when an event did."""
    published_at: float = 0.0
    work: asyncio.Task[None] | None = None

    def move(self, state: StepState) -> None:
        """Enter a state that may follow the present one."""
        assert state in _NEXT[self.state], f"{self.state} -> {state}"
        self.state = state

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    def row(self) -> StepRow:
        """Describe it for the store."""
        return StepRow(
            node_id=self.node_id,
            node_name=self.node_name,
            state=self.state.value,
            stage=self.stage,
            done_bytes=self.done_bytes,
            total_bytes=self.total_bytes,
            changed=self.changed,
            error=self.error,
            started_at=self.started_at,
            finished_at=self.finished_at,
        )


@dataclass(slots=True)
class LiveDeployment:
    """A deployment some of whose nodes go on."""

    row: DeploymentRow
    steps: dict[str, LiveStep]
    slots: asyncio.Semaphore
    """How many nodes are worked on at once."""
    format: str = "tar.gz"
    resumed: bool = False
    """It was found at the hub's start: nodes that are not connected yet are waited for."""
    cancelled: bool = False
    settled: int = 0
    """Nodes whose end is stored."""
    feed: Feed = field(default_factory=Feed)

    def counts(self) -> dict[str, int]:
        """Count the nodes by their state."""
        return dict(Counter(step.state.value for step in self.steps.values()))

    @property
    def state(self) -> str:
        """One of `schema.DEPLOYMENT_STATES`; an ended one keeps what was stored."""
        if self.row.finished_at is not None:
            return self.row.state
        if self.cancelled:
            return "cancelled"
        if self.settled < len(self.steps):
            return "running"
        all_well = all(step.state is StepState.SUCCEEDED for step in self.steps.values())
        return "succeeded" if all_well else "failed"


def live_step(row: StepRow) -> LiveStep:
    """Make a stored step live again."""
    return LiveStep(
        node_id=row.node_id,
        node_name=row.node_name,
        state=StepState(row.state),
        stage=row.stage,
        done_bytes=row.done_bytes,
        total_bytes=row.total_bytes,
        changed=row.changed,
        error=row.error,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
