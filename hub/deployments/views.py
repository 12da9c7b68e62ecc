"""Deployments as the API takes and shows them, and the lines of their streams."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hub.deployments.state import LiveDeployment, StepState
from hub.store.deployments import DeploymentRow, StepRow

Action = Literal["install", "update", "uninstall"]


class DeploymentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do with a package, and where."""

    package: Annotated[str, Meta(min_length=1, max_length=128)]
    version: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    """The newest uploaded one when it is omitted; none for an uninstallation."""
    action: Action = "install"
    target: Annotated[str, Meta(min_length=1, max_length=4096)]
    parallel: Annotated[int, Meta(ge=1, le=1000)] = 10
    """Nodes at once."""


class DeploymentNode(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment on one node."""

    node: str
    state: str
    stage: str
    done_bytes: int
    """Bytes of the artifact that the node holds, of `total_bytes`."""
    total_bytes: int
    changed: bool
    error: str
    started_at: float | None
    finished_at: float | None


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """A package on its way to, or from, some nodes."""

    id: str
    subject: str
    package: str
    version: str
    action: str
    target: str
    parallel: int
    state: str
    created_at: float
    finished_at: float | None
    counts: dict[str, int]
    """Nodes by state."""
    nodes: list[DeploymentNode] | msgspec.UnsetType = msgspec.UNSET
    """Only in the answer for a single deployment."""


class NodeEvent(DeploymentNode, frozen=True, kw_only=True):
    """What a `deployment.node` event carries: a node's state and whose it is."""

    deployment: str
    package: str


class NodeLine(DeploymentNode, frozen=True, kw_only=True, tag_field="type", tag="node"):
    """A line of the stream: a node changed."""


class SummaryLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """The last line of the stream; `failed` counts every node that did not succeed."""

    deployment: str
    ok: int
    failed: int
    state: str
    counts: dict[str, int]


def node_view(row: StepRow) -> DeploymentNode:
    """Show one node."""
    return msgspec.convert(row, DeploymentNode, from_attributes=True)


def node_line(row: StepRow) -> NodeLine:
    """Show one node as a line."""
    return NodeLine(**msgspec.structs.asdict(node_view(row)))


def node_event(row: StepRow, deployment: DeploymentRow) -> NodeEvent:
    """Show one node as an event's data."""
    shown = msgspec.structs.asdict(node_view(row))
    return NodeEvent(deployment=deployment.id, package=deployment.package, **shown)


def summary_line(deployment: LiveDeployment) -> SummaryLine:
    """Sum an ended deployment up."""
    counts = deployment.counts()
    ok = counts.get(StepState.SUCCEEDED.value, 0)
    return SummaryLine(
        deployment=deployment.row.id,
        ok=ok,
        failed=len(deployment.steps) - ok,
        state=deployment.state,
        counts=counts,
    )


def deployment_view(
    row: DeploymentRow, counts: dict[str, int], steps: list[StepRow] | None = None
) -> Deployment:
    """Show a deployment, with its nodes if `steps` are given."""
    return Deployment(
        id=row.id,
        subject=row.subject,
        package=row.package,
        version=row.version,
        action=row.action,
        target=row.target,
        parallel=row.parallel,
        state=row.state,
        created_at=row.created_at,
        finished_at=row.finished_at,
        counts=counts,
        nodes=msgspec.UNSET if steps is None else [node_view(step) for step in steps],
    )
