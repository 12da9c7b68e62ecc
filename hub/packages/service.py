"""`Packages`: takes uploads into the repository, lists, reads and removes them.

The rule it guards: a name and version, once taken, means the same bytes for ever; an upload that is
refused for whatever reason leaves no row and no file. A package in use is not removed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from hub.artifacts import CHUNK_BYTES, Artifacts, Upload
from hub.audit import Audit
from hub.authz import Subject
from hub.errors import BadRequest, Conflict, NotFound, Unavailable
from hub.events import EventLog
from hub.ids import sortable_id
from hub.nodeview import NodeView
from hub.packages.inspect import read_manifest
from hub.packages.manifest import identify, parse_manifest
from hub.store import packages as queries
from hub.store.engine import Store
from hub.store.packages import ArtifactRow, PackageRow
from protocol.archive_rules import ArchiveRefused
from protocol.archives import format_of

logger = logging.getLogger(__name__)

UPLOADS = 8
"""Uploads at once; each holds a few MiB and a file descriptor."""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a package as the API shows it."""

    name: str
    version: str
    format: str
    description: str
    manifest: dict[str, Any]
    """`service.json` of the archive, empty when it has none."""
    digest: str
    size_bytes: int
    created_by: str
    created_at: float
    nodes: list[str]
    """The nodes that have this version installed."""


@dataclass(frozen=True, slots=True)
class UploadSpec:
    """What the caller says of an upload."""

    filename: str = ""
    name: str | None = None
    version: str | None = None
    description: str | None = None
    declared_bytes: int | None = None
    checksum: str | None = None
    """SHA-256 in hex, compared with what arrived."""


class Packages:
    """The repository."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        events: EventLog,
        audit: Audit,
        nodes: Callable[[], Iterable[NodeView]],
    ) -> None:
        """`nodes` gives all nodes with what is installed on them."""
        self._store = store
        self._artifacts = artifacts
        self._events = events
        self._audit = audit
        self._nodes = nodes
        self._uploads = 0
        self._files = asyncio.Lock()
        """Held from a change of rows to the change of files that belongs to it."""

    async def sweep(self) -> None:
        """Remove artifacts without a package, which a crash may leave; call it at start."""
        async with self._files:
            async with self._store.read() as connection:
                known = await queries.known_digests(connection)
            for digest in await self._artifacts.digests() - known:
                logger.info("removing the artifact %s, which no package uses", digest)
                await self._artifacts.delete(digest)

    async def add(self, subject: Subject, spec: UploadSpec, body: AsyncIterable[bytes]) -> Package:
        """Take an upload into the repository.

        Raises:
            Conflict: This name and version exist.
            BadRequest: The archive is refused, damaged, cut short, or has no valid name.
            TooLarge: It has more than 4 GiB.
            Unavailable: Too many uploads are under way, or the disk is full.
        """
        if self._uploads >= UPLOADS:
            raise Unavailable(f"{UPLOADS} uploads are under way; try again when one has ended")
        if spec.name is not None and spec.version is not None:
            await self._require_new(spec.name, spec.version)
        self._uploads += 1
        try:
            upload = await self._artifacts.receive(
                body, declared_bytes=spec.declared_bytes, checksum=spec.checksum
            )
            try:
                row = await self._describe(subject, spec, upload)
                await self._keep(row, upload)
            finally:
                await self._artifacts.discard(upload)
        finally:
            self._uploads -= 1
        await self._tell("package.added", "package.create", subject, row)
        return self._view(row)

    async def page(
        self, name: str | None, limit: int, cursor: str | None
    ) -> tuple[list[Package], str | None, int]:
        """Show packages by name, newest version first: the page, the next cursor, how many in all.

        Raises:
            BadRequest: The cursor is not one of ours.
            NotFound: There is no package of this name.
        """
        after = _parse_cursor(cursor)
        async with self._store.read() as connection:
            rows, total = await queries.list_packages(connection, name, limit + 1, after)
        if name is not None and total == 0:
            raise NotFound("package", name)
        more = f"{rows[limit - 1].name}/{rows[limit - 1].id}" if len(rows) > limit else None
        return [self._view(row) for row in rows[:limit]], more, total

    async def get(self, name: str, version: str) -> Package:
        """Show one version.

        Raises:
            NotFound: There is none.
        """
        return self._view(await self._find(name, version))

    async def content(self, name: str, version: str) -> tuple[Package, AsyncIterator[bytes]]:
        """Return a version and its bytes in parts of 1 MiB.

        Raises:
            NotFound: There is none.
        """
        row = await self._find(name, version)
        return self._view(row), self._artifacts.stream(row.digest, row.size_bytes)

    async def remove(self, subject: Subject, name: str, version: str) -> None:
        """Remove one version.

        Raises:
            NotFound: There is none.
            Conflict: A node has it, or a deployment of it goes on.
        """
        row = await self._find(name, version)
        if nodes := self._nodes_with(row):
            shown = ", ".join(nodes[:5]) + (" …" if len(nodes) > 5 else "")
            raise Conflict(f"{name} {version} is installed on {shown}: uninstall it there first")
        async with self._files:
            if await self._store.write(lambda connection: _delete(connection, row)):
                await self._artifacts.delete(row.digest)
        await self._tell("package.removed", "package.delete", subject, row)

    async def _describe(self, subject: Subject, spec: UploadSpec, upload: Upload) -> PackageRow:
        try:
            archive_format = format_of(upload.head)
            data = await asyncio.to_thread(
                read_manifest, self._artifacts.open(upload), archive_format, upload.size_bytes
            )
        except ArchiveRefused as error:
            raise BadRequest(str(error)) from error
        manifest = parse_manifest(data) if data is not None else {}
        identity = identify(
            manifest,
            name=spec.name,
            version=spec.version,
            description=spec.description,
            filename=spec.filename,
        )
        return PackageRow(
            id=sortable_id(),
            name=identity.name,
            version=identity.version,
            format=archive_format,
            description=identity.description,
            manifest=manifest,
            digest=upload.digest,
            created_by=subject.name,
            created_at=time.time(),
            size_bytes=upload.size_bytes,
        )

    async def _keep(self, row: PackageRow, upload: Upload) -> None:
        artifact = ArtifactRow(
            row.digest, row.size_bytes, CHUNK_BYTES, upload.chunk_digests, row.created_at
        )
        async with self._files:
            await self._require_new(row.name, row.version)
            await self._artifacts.keep(upload)
            await self._store.write(
                lambda connection: queries.insert_package(connection, row, artifact)
            )

    async def _require_new(self, name: str, version: str) -> None:
        async with self._store.read() as connection:
            existing = await queries.find_package(connection, name, version)
        if existing is not None:
            raise Conflict(
                f"{name} {version} exists already and versions do not change: give a new version"
            )

    async def _find(self, name: str, version: str) -> PackageRow:
        async with self._store.read() as connection:
            row = await queries.find_package(connection, name, version)
        if row is None:
            raise NotFound("package", f"{name} {version}")
        return row

    async def _tell(self, kind: str, act: str, subject: Subject, row: PackageRow) -> None:
        data = {"name": row.name, "version": row.version}
        await self._events.publish(kind, data=data)
        await self._audit.record(
            subject.name,
            act,
            f"{row.name} {row.version}",
            address=subject.address,
            detail={"digest": row.digest, "size_bytes": row.size_bytes},
        )

    def _nodes_with(self, row: PackageRow) -> list[str]:
        wanted = (row.name, row.version)
        return sorted(
            node.name
            for node in self._nodes()
            if any((package.name, package.version) == wanted for package in node.packages)
        )

    def _view(self, row: PackageRow) -> Package:
        return Package(
            name=row.name,
            version=row.version,
            format=row.format,
            description=row.description,
            manifest=row.manifest,
            digest=row.digest,
            size_bytes=row.size_bytes,
            created_by=row.created_by,
            created_at=row.created_at,
            nodes=self._nodes_with(row),
        )


async def _delete(connection: Any, row: PackageRow) -> bool:
    running = await queries.deployments_of(connection, row.name, row.version)
    if running:
        raise Conflict(
            f"{row.name} {row.version} is being deployed ({running[0]}): wait for it or cancel it"
        )
    return await queries.delete_package(connection, row)


def _parse_cursor(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    name, slash, row_id = cursor.partition("/")
    if not slash:
        raise BadRequest("the cursor is not one that this list gave")
    return name, row_id
