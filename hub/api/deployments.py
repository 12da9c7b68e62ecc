"""Deployments: `/deployments`; packages on their way to nodes, with progress per node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import Parameter
from litestar.response import Stream

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.deployments import Deployment, DeploymentSpec

NDJSON = "application/x-ndjson"


class DeploymentPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the deployments, newest first."""

    items: list[Deployment]
    next_cursor: str | None
    total: int


class DeploymentsController(Controller):
    """Deployments."""

    path = "/deployments"
    tags = ("deployments",)

    @post(guards=[requires(Verb.DEPLOY)], status_code=202)
    async def create_deployment(
        self, hub: Hub, subject: Subject, data: DeploymentSpec
    ) -> Deployment:
        """Install, update or uninstall a package on a target; answers once it is stored."""
        return await hub.deployments.create(subject, data)

    @get(guards=[requires(Verb.VIEW)])
    async def list_deployments(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> DeploymentPage:
        """List deployments, newest first, without their nodes."""
        items, next_cursor, total = await hub.deployments.page(limit, cursor)
        return DeploymentPage(items=items, next_cursor=next_cursor, total=total)

    @get("/{deployment_id:str}", guards=[requires(Verb.VIEW)])
    async def get_deployment(self, hub: Hub, deployment_id: str) -> Deployment:
        """Show a deployment with its nodes."""
        return await hub.deployments.get(deployment_id)

    @post("/{deployment_id:str}/cancel", guards=[requires(Verb.DEPLOY)], status_code=200)
    async def cancel_deployment(self, hub: Hub, subject: Subject, deployment_id: str) -> Deployment:
        """End what has not begun to install; what installs is let end."""
        return await hub.deployments.cancel(subject, deployment_id)

    @get("/{deployment_id:str}/stream", guards=[requires(Verb.VIEW)], media_type=NDJSON)
    async def follow_deployment(self, hub: Hub, deployment_id: str) -> Stream:
        """Stream a deployment as NDJSON: each node as it is, then changes, until it has ended."""
        lines = await hub.deployments.follow(deployment_id)
        return Stream(lines, media_type=NDJSON, headers={"Cache-Control": "no-store"})
