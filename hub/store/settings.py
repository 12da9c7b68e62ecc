"""Queries on the settings: a JSON value by key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import settings


async def get_setting(connection: AsyncConnection, key: str) -> Any | None:
    """Return the value, None when it is not set."""
    return await connection.scalar(select(settings.c.value).where(settings.c.key == key))


async def put_setting(connection: AsyncConnection, key: str, value: Any) -> None:
    """Set or replace the value."""
    row = insert(settings).values(key=key, value=value)
    await connection.execute(
        row.on_conflict_do_update(index_elements=["key"], set_={"value": row.excluded.value})
    )
