"""Queries on groups and their members; functions take the connection first."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or_ignore
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import Conflict, NotFound
from hub.store.schema import groups, memberships


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as stored."""

    id: str
    name: str
    description: str
    created_at: float


async def all_groups(connection: AsyncConnection) -> list[GroupRow]:
    """Return every group."""
    columns = (groups.c.id, groups.c.name, groups.c.description, groups.c.created_at)
    return [GroupRow(*row) for row in await connection.execute(select(*columns))]


async def insert_group(connection: AsyncConnection, row: GroupRow) -> GroupRow:
    """Store a new group.

    Raises:
        Conflict: there is one of that name.
    """
    if await _id_of(connection, row.name) is not None:
        raise Conflict(f"there is a group {row.name!r} already")
    await connection.execute(
        insert(groups).values(
            id=row.id, name=row.name, description=row.description, created_at=row.created_at
        )
    )
    return row


async def delete_group(connection: AsyncConnection, name: str) -> None:
    """Delete a group; its members stay.

    Raises:
        NotFound: there is none of that name.
    """
    group_id = await _known_id(connection, name)
    await connection.execute(delete(memberships).where(memberships.c.group_id == group_id))
    await connection.execute(delete(groups).where(groups.c.id == group_id))


async def add_member(connection: AsyncConnection, name: str, node_id: str) -> None:
    """Make a node a member, or leave it one.

    Raises:
        NotFound: there is no such group.
    """
    group_id = await _known_id(connection, name)
    row = insert_or_ignore(memberships).values(group_id=group_id, node_id=node_id)
    await connection.execute(row.on_conflict_do_nothing())


async def remove_member(connection: AsyncConnection, name: str, node_id: str) -> None:
    """Make a node no member, or leave it none.

    Raises:
        NotFound: there is no such group.
    """
    group_id = await _known_id(connection, name)
    of_node = (memberships.c.group_id == group_id) & (memberships.c.node_id == node_id)
    await connection.execute(delete(memberships).where(of_node))


async def _id_of(connection: AsyncConnection, name: str) -> str | None:
    return await connection.scalar(select(groups.c.id).where(groups.c.name == name))


async def _known_id(connection: AsyncConnection, name: str) -> str:
    group_id = await _id_of(connection, name)
    if group_id is None:
        raise NotFound("group", name)
    return group_id
