"""Shell sessions: `/sessions`; who has, and had, a terminal on which node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get
from litestar.params import Parameter

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.shells import ShellSession


class ShellSessionPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the sessions, newest first."""

    items: list[ShellSession]
    next_cursor: str | None
    total: int


class ShellsController(Controller):
    """Shell sessions."""

    path = "/sessions"
    tags = ("sessions",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_sessions(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> ShellSessionPage:
        """List sessions, newest first; those that are open have no `ended_at`."""
        items, next_cursor, total = await hub.shells.page(limit, cursor)
        return ShellSessionPage(items=items, next_cursor=next_cursor, total=total)

    @delete("/{session_id:str}", guards=[requires(Verb.SHELL)])
    async def end_session(self, hub: Hub, subject: Subject, session_id: str) -> None:
        """End an open session; the node ends its processes."""
        await hub.shells.kill(subject, session_id)
