"""Queries on the audit: one to append, one to read; there is none to change or delete."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import audit

_APPEND = insert(audit).returning(audit.c.id)


async def append_entry(
    connection: AsyncConnection,
    at: float,
    subject: str,
    address: str,
    act: str,
    object_: str,
    outcome: str,
    detail: Any,
) -> int:
    """Append one entry; return its id."""
    row = {
        "at": at, "subject": subject, "address": address, "act": act, "object": object_,
        "outcome": outcome, "detail": detail,
    }  # fmt: skip
    result = await connection.execute(_APPEND, row)
    new_id: int = result.scalar_one()
    return new_id


async def entries(
    connection: AsyncConnection,
    before: int | None,
    limit: int,
    subject: str | None,
    act: str | None,
) -> tuple[list[Any], int]:
    """Return rows newest first with an id below `before`, and how many match at all."""
    wanted: list[ColumnElement[bool]] = []
    if subject is not None:
        wanted.append(audit.c.subject == subject)
    if act is not None:
        wanted.append(audit.c.act == act)
    total = await connection.scalar(select(func.count()).select_from(audit).where(*wanted))
    if before is not None:
        wanted.append(audit.c.id < before)
    query = select(audit).where(*wanted).order_by(audit.c.id.desc()).limit(limit)
    return list((await connection.execute(query)).all()), total or 0
