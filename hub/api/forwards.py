"""Open forwards: `/forwards`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get
from litestar.params import Parameter

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.ways import ForwardDetail, ForwardView


class ForwardPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the open forwards, oldest first."""

    items: list[ForwardView]
    next_cursor: str | None
    total: int


class ForwardsController(Controller):
    """Open forwards."""

    path = "/forwards"
    tags = ("forwards",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_forwards(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> ForwardPage:
        """List the forwards that are open now, with the bytes so far."""
        everything = hub.forwards.list()
        following = [view for view in everything if cursor is None or view.id > cursor]
        shown = following[:limit]
        return ForwardPage(
            items=shown,
            next_cursor=shown[-1].id if len(following) > limit else None,
            total=len(everything),
        )

    @get("/{forward_id:str}", guards=[requires(Verb.VIEW)])
    async def show_forward(self, hub: Hub, forward_id: str) -> ForwardDetail:
        """Show a forward with its open connections."""
        return hub.forwards.get(forward_id)

    @delete("/{forward_id:str}", guards=[requires(Verb.FORWARD)])
    async def close_forward(self, hub: Hub, subject: Subject, forward_id: str) -> None:
        """Close a forward: its connections are reset, and its client may not open it again."""
        await hub.forwards.close(subject, forward_id)
