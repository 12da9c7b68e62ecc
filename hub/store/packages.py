"""Queries on packages and their artifacts; `hub.packages` and `hub.deployments` are their users.

The rule it guards: a package and its artifact's row appear together, and an artifact's row goes
with the last package that uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Row, and_, delete, exists, func, insert, or_, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import artifacts, deployments, packages


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One version of a package, with its artifact's size."""

    id: str
    name: str
    version: str
    format: str
    description: str
    manifest: dict[str, Any]
    digest: str
    created_by: str
    created_at: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """A stored artifact and how it is cut for transfer."""

    digest: str
    size_bytes: int
    chunk_bytes: int
    chunk_digests: bytes
    created_at: float


_PACKAGE: tuple[Column[Any], ...] = (
    packages.c.id, packages.c.name, packages.c.version, packages.c.format, packages.c.description,
    packages.c.manifest, packages.c.digest, packages.c.created_by, packages.c.created_at,
    artifacts.c.size_bytes,
)  # fmt: skip
_SELECT = select(*_PACKAGE).join(artifacts, artifacts.c.digest == packages.c.digest)


async def insert_package(
    connection: AsyncConnection, package: PackageRow, artifact: ArtifactRow
) -> bool:
    """Store a package and, unless it is there, its artifact; False when name and version exist."""
    if await find_package(connection, package.name, package.version) is not None:
        return False
    await connection.execute(
        sqlite_insert(artifacts)
        .values(
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            chunk_bytes=artifact.chunk_bytes,
            chunk_digests=artifact.chunk_digests,
            created_at=artifact.created_at,
        )
        .on_conflict_do_nothing()
    )
    await connection.execute(
        insert(packages).values(
            id=package.id,
            name=package.name,
            version=package.version,
            format=package.format,
            description=package.description,
            manifest=package.manifest,
            digest=package.digest,
            created_by=package.created_by,
            created_at=package.created_at,
        )
    )
    return True


async def find_package(connection: AsyncConnection, name: str, version: str) -> PackageRow | None:
    """Fetch one version."""
    query = _SELECT.where(packages.c.name == name, packages.c.version == version)
    return _one(await connection.execute(query))


async def newest_package(connection: AsyncConnection, name: str) -> PackageRow | None:
    """Fetch the version that was uploaded last."""
    query = _SELECT.where(packages.c.name == name)
    newest = query.order_by(packages.c.created_at.desc(), packages.c.id.desc()).limit(1)
    return _one(await connection.execute(newest))


async def list_packages(
    connection: AsyncConnection, name: str | None, limit: int, after: tuple[str, str] | None
) -> tuple[list[PackageRow], int]:
    """Fetch packages by name, newest version first; and how many there are in all.

    Args:
        connection: To read with.
        name: Only this package's versions.
        limit: How many to fetch.
        after: Name and id of the last one of the page before.
    """
    chosen = packages.c.name == name if name is not None else packages.c.name.is_not(None)
    query = _SELECT.where(chosen).order_by(packages.c.name, packages.c.id.desc()).limit(limit)
    if after is not None:
        last_name, last_id = after
        same = and_(packages.c.name == last_name, packages.c.id < last_id)
        query = query.where(or_(packages.c.name > last_name, same))
    rows = (await connection.execute(query)).all()
    total = await connection.scalar(select(func.count()).select_from(packages).where(chosen))
    return [_package(row) for row in rows], total or 0


async def get_artifact(connection: AsyncConnection, digest: str) -> ArtifactRow | None:
    """Fetch an artifact's sizes and chunk digests."""
    query = select(
        artifacts.c.digest,
        artifacts.c.size_bytes,
        artifacts.c.chunk_bytes,
        artifacts.c.chunk_digests,
        artifacts.c.created_at,
    ).where(artifacts.c.digest == digest)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else ArtifactRow(*row)


async def known_digests(connection: AsyncConnection) -> set[str]:
    """Return the digests of all artifacts."""
    return set((await connection.execute(select(artifacts.c.digest))).scalars())


async def deployments_of(connection: AsyncConnection, name: str, version: str) -> Sequence[str]:
    """Return the ids of running deployments of a version."""
    query = select(deployments.c.id).where(
        deployments.c.package == name,
        deployments.c.version == version,
        deployments.c.finished_at.is_(None),
        deployments.c.digest.is_not(None),
    )
    return (await connection.execute(query)).scalars().all()


async def delete_package(connection: AsyncConnection, package: PackageRow) -> bool:
    """Delete a version; True when its artifact's row went with it, so that the file may go too."""
    await connection.execute(delete(packages).where(packages.c.id == package.id))
    used = select(exists().where(packages.c.digest == package.digest))
    if await connection.scalar(used):
        return False
    await connection.execute(delete(artifacts).where(artifacts.c.digest == package.digest))
    return True


def _one(result: Any) -> PackageRow | None:
    row = result.one_or_none()
    return None if row is None else _package(row)


def _package(row: Row[*tuple[Any, ...]]) -> PackageRow:
    return PackageRow(*row)
