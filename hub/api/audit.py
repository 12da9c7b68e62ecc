"""The audit: `/audit`, for administrators."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import Parameter, QueryParameter

from hub.api.guards import requires
from hub.audit import AuditEntry
from hub.authz import Verb
from hub.core import Hub
from hub.errors import BadRequest


class AuditEntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the entries, newest first."""

    items: list[AuditEntry]
    next_cursor: str | None
    total: int


class AuditController(Controller):
    """The audit."""

    path = "/audit"
    tags = ("audit",)

    @get(guards=[requires(Verb.ADMIN)])
    async def list_entries(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: str | None = None,
        subject_name: Annotated[str | None, QueryParameter(name="subject")] = None,
        act: str | None = None,
    ) -> AuditEntryPage:
        """List entries, of one subject or of one act when asked."""
        page = await hub.audit.entries(
            limit, before=before_of(cursor), subject=subject_name, act=act
        )
        is_last = len(page.entries) < limit
        return AuditEntryPage(
            items=page.entries,
            next_cursor=None if is_last else str(page.entries[-1].id),
            total=page.total,
        )


def before_of(cursor: str | None) -> int | None:
    """Return the id that a cursor of a list from new to old holds.

    Raises:
        BadRequest: no list of ours made this cursor.
    """
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadRequest("the cursor is not one that this list gave")
    return int(cursor)
