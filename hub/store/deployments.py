"""Queries on deployments and their nodes; `hub.deployments` is their only user.

The rule it guards: a deployment and all its nodes appear in one transaction, together with the
check that the package it installs is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import artifacts, deployment_nodes, deployments


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """One deployment as stored."""

    id: str
    subject: str
    target: str
    action: str
    package: str
    version: str
    """Empty for an uninstallation."""
    digest: str | None
    parallel: int
    state: str
    created_at: float
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class StepRow:
    """One deployment on one node."""

    node_id: str
    node_name: str
    state: str
    stage: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    changed: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def node(self) -> str:
        """The node as the API calls it."""
        return self.node_name


_D = deployments.c
_N = deployment_nodes.c
_DEPLOYMENT: tuple[Column[Any], ...] = (
    _D.id, _D.subject, _D.target, _D.action, _D.package, _D.version, _D.digest, _D.parallel,
    _D.state, _D.created_at, _D.finished_at,
)  # fmt: skip
_STEP: tuple[Column[Any], ...] = (
    _N.node_id, _N.node_name, _N.state, _N.stage, _N.done_bytes, _N.total_bytes, _N.changed,
    _N.error, _N.started_at, _N.finished_at,
)  # fmt: skip


async def insert_deployment(
    connection: AsyncConnection, row: DeploymentRow, steps: Sequence[StepRow]
) -> bool:
    """Store a deployment with its nodes; False when its artifact was removed meanwhile."""
    if row.digest is not None:
        wanted = select(func.count()).select_from(artifacts).where(artifacts.c.digest == row.digest)
        if not await connection.scalar(wanted):
            return False
    await connection.execute(
        insert(deployments).values(
            {column.name: getattr(row, column.name) for column in _DEPLOYMENT}
        )
    )
    await connection.execute(
        insert(deployment_nodes), [{"deployment_id": row.id, **_values(step)} for step in steps]
    )
    return True


async def update_step(connection: AsyncConnection, deployment_id: str, step: StepRow) -> None:
    """Store how far one node is."""
    values = _values(step)
    del values["node_id"]
    await connection.execute(
        update(deployment_nodes)
        .where(_N.deployment_id == deployment_id, _N.node_id == step.node_id)
        .values(values)
    )


async def update_deployment(
    connection: AsyncConnection, deployment_id: str, state: str, finished_at: float | None
) -> None:
    """Store that a deployment was cancelled (it may go on for a while) or has ended."""
    await connection.execute(
        update(deployments)
        .where(_D.id == deployment_id)
        .values(state=state, finished_at=finished_at)
    )


async def get_deployment(connection: AsyncConnection, deployment_id: str) -> DeploymentRow | None:
    """Fetch one deployment."""
    row = (
        await connection.execute(select(*_DEPLOYMENT).where(_D.id == deployment_id))
    ).one_or_none()
    return None if row is None else DeploymentRow(*row)


async def list_steps(connection: AsyncConnection, deployment_id: str) -> list[StepRow]:
    """Fetch a deployment's nodes in the order of their names."""
    query = select(*_STEP).where(_N.deployment_id == deployment_id).order_by(_N.node_name)
    return [StepRow(*row) for row in (await connection.execute(query)).all()]


async def list_deployments(
    connection: AsyncConnection, limit: int, before: str | None
) -> tuple[list[DeploymentRow], int]:
    """Fetch the newest deployments, those with an id below `before`; and how many in all."""
    query = select(*_DEPLOYMENT).order_by(_D.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_D.id < before)
    rows = (await connection.execute(query)).all()
    total = await connection.scalar(select(func.count()).select_from(deployments))
    return [DeploymentRow(*row) for row in rows], total or 0


async def unfinished(connection: AsyncConnection) -> list[DeploymentRow]:
    """Fetch the deployments that a hub left behind when it stopped, oldest first."""
    query = select(*_DEPLOYMENT).where(_D.finished_at.is_(None)).order_by(_D.id)
    return [DeploymentRow(*row) for row in (await connection.execute(query)).all()]


async def count_states(
    connection: AsyncConnection, deployment_ids: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count the nodes of several deployments by state: {deployment: {state: n}}."""
    query = (
        select(_N.deployment_id, _N.state, func.count())
        .where(_N.deployment_id.in_(deployment_ids))
        .group_by(_N.deployment_id, _N.state)
    )
    counts: dict[str, dict[str, int]] = {one: {} for one in deployment_ids}
    for deployment_id, state, number in (await connection.execute(query)).all():
        counts[deployment_id][state] = number
    return counts


def _values(step: StepRow) -> dict[str, object]:
    return {column.name: getattr(step, column.name) for column in _STEP}
