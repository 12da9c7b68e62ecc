"""Queries on published services, for `hub.published` alone; functions take the connection first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import Conflict
from hub.store.schema import published_services


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """A service as stored."""

    name: str
    node_id: str
    host: str
    """As the node reaches it."""
    port: int
    scheme: str
    verify: bool
    """Whether the certificate of a service that speaks https must be valid."""
    host_name: str | None
    """Where browsers find it; None: below the hub's own address."""
    keep_host: bool
    """Whether the service sees the host name that the browser asked for."""
    created_by: str
    created_at: float


_TABLE = published_services.c
_COLUMNS = (
    _TABLE.name, _TABLE.node_id, _TABLE.host, _TABLE.port, _TABLE.scheme, _TABLE.verify,
    _TABLE.host_name, _TABLE.keep_host, _TABLE.created_by, _TABLE.created_at,
)  # fmt: skip


async def all_services(connection: AsyncConnection) -> list[ServiceRow]:
    """Return every service, by name."""
    query = select(*_COLUMNS).order_by(_TABLE.name)
    rows: Sequence[Any] = (await connection.execute(query)).all()
    return [ServiceRow(*row) for row in rows]


async def host_names(connection: AsyncConnection) -> list[str]:
    """Return the host names of services that have one, sorted."""
    query = select(_TABLE.host_name).where(_TABLE.host_name.is_not(None)).order_by(_TABLE.host_name)
    return list((await connection.execute(query)).scalars())


async def insert_service(connection: AsyncConnection, row: ServiceRow) -> None:
    """Store a new service.

    Raises:
        Conflict: its name or its host name is taken.
    """
    await _check_free(connection, _TABLE.name, row.name)
    if row.host_name is not None:
        await _check_free(connection, _TABLE.host_name, row.host_name)
    await connection.execute(
        insert(published_services).values(
            name=row.name,
            node_id=row.node_id,
            host=row.host,
            port=row.port,
            scheme=row.scheme,
            verify=row.verify,
            host_name=row.host_name,
            keep_host=row.keep_host,
            created_by=row.created_by,
            created_at=row.created_at,
        )
    )


async def delete_service(connection: AsyncConnection, name: str) -> None:
    """Delete a service."""
    await connection.execute(delete(published_services).where(_TABLE.name == name))


async def _check_free(connection: AsyncConnection, column: Column[str], value: str) -> None:
    found = await connection.execute(select(_TABLE.name).where(column == value))
    if (taken := found.scalar()) is not None:
        raise Conflict(f"{value!r} is taken by the published service {taken!r}")
