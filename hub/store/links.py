"""Queries on links between nodes, for `hub.links` alone; functions take the connection first."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import Conflict, NotFound
from hub.store.schema import links


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """A link as stored; nodes by id."""

    name: str
    from_node: str
    bind: str
    port: int
    to_node: str
    host: str
    to_port: int
    enabled: bool
    created_by: str
    user_id: str
    created_at: float


async def all_links(connection: AsyncConnection) -> list[LinkRow]:
    """Return every link by name."""
    rows = await connection.execute(select(links).order_by(links.c.name))
    return [LinkRow(**row._mapping) for row in rows]


async def insert_link(connection: AsyncConnection, row: LinkRow) -> LinkRow:
    """Store a new link.

    Raises:
        Conflict: its name, or its port on the node, is another link's.
    """
    same_place = (
        (links.c.from_node == row.from_node)
        & (links.c.bind == row.bind)
        & (links.c.port == row.port)
    )
    query = select(links.c.name).where(or_(links.c.name == row.name, same_place))
    taken = (await connection.execute(query)).scalars().all()
    if row.name in taken:
        raise Conflict(f"there is a link {row.name!r} already")
    if taken:
        raise Conflict(f"the link {taken[0]!r} listens on {row.bind}:{row.port} there already")
    await connection.execute(insert(links).values(asdict(row)))
    return row


async def set_enabled(connection: AsyncConnection, name: str, enabled: bool) -> LinkRow:
    """Enable or disable a link; return it as it is now.

    Raises:
        NotFound: there is none of that name.
    """
    await connection.execute(update(links).where(links.c.name == name).values(enabled=enabled))
    row = (await connection.execute(select(links).where(links.c.name == name))).first()
    if row is None:
        raise NotFound("link", name)
    return LinkRow(**row._mapping)


async def delete_link(connection: AsyncConnection, name: str) -> None:
    """Delete a link.

    Raises:
        NotFound: there is none of that name.
    """
    result = await connection.execute(delete(links).where(links.c.name == name))
    if not result.rowcount:
        raise NotFound("link", name)
