"""The content-addressed store of uploaded packages, over obstore (now a directory, later S3 …).

The rule it guards: an object named by a digest has that SHA-256 and is whole. An upload is written
under `incoming/`, hashed as it passes, and renamed when it is complete and wanted; what an aborted
upload leaves there is removed when the store is opened. Memory is constant: parts of 1 MiB. Calls
of obstore block and run in worker threads: its asynchronous ones can abort a process that ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
import shutil
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import obstore
from obstore.store import LocalStore, ObjectStore

from hub.errors import BadRequest, HubError, TooLarge, Unavailable

CHUNK_BYTES = 1024 * 1024
ARTIFACT_LIMIT_BYTES = 4 * 1024**3
RESERVE_BYTES = 256 * 1024**2
"""An upload is refused when it would leave less than this on the hub's disk."""
_INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class Upload:
    """A complete upload that is not kept yet: `Artifacts.keep` or `Artifacts.discard` it."""

    key: str
    digest: str
    """SHA-256 of the whole in lower-case hex."""
    size_bytes: int
    chunk_digests: bytes
    """The SHA-256 of each part of `CHUNK_BYTES`, 32 bytes each."""
    head: bytes
    """The first bytes, up to 16."""


class Artifacts:
    """Stores, reads and deletes artifacts."""

    def __init__(self, root: Path) -> None:
        """Open the store in the directory `root`, and clear what aborted uploads left."""
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(root / _INCOMING, ignore_errors=True)
        (root / _INCOMING).mkdir(mode=0o700)
        self._store: ObjectStore = LocalStore(root)

    async def receive(
        self,
        body: AsyncIterable[bytes],
        *,
        declared_bytes: int | None = None,
        checksum: str | None = None,
    ) -> Upload:
        """Take an upload piece by piece; on any error nothing of it stays.

        Args:
            body: The bytes, in pieces of any size.
            declared_bytes: How many the sender announced, when it did.
            checksum: The SHA-256 that it announced, in hex.

        Raises:
            TooLarge: More than 4 GiB, declared or sent.
            BadRequest: It is empty, shorter or longer than declared, or has another checksum.
            Unavailable: The disk is full.
        """
        if declared_bytes is not None and declared_bytes > ARTIFACT_LIMIT_BYTES:
            raise TooLarge("the package", ARTIFACT_LIMIT_BYTES)
        self._require_room(declared_bytes or 0)
        key = f"{_INCOMING}/{secrets.token_hex(16)}"
        intake = _Intake(self._store, key)
        try:
            async for part in _parts(body):
                await asyncio.to_thread(intake.take, part)
            await asyncio.to_thread(intake.close)
        except OSError as error:
            raise Unavailable(f"the package cannot be stored: {error}") from error
        upload = intake.upload()
        try:
            _check(upload, declared_bytes, checksum)
        except HubError:
            await self.discard(upload)
            raise
        return upload

    async def keep(self, upload: Upload) -> None:
        """Give a complete upload its name, durably."""
        await asyncio.to_thread(_sync, self._root / upload.key)
        await asyncio.to_thread(obstore.rename, self._store, upload.key, upload.digest)
        await asyncio.to_thread(_sync, self._root)

    async def discard(self, upload: Upload) -> None:
        """Remove an upload that is not wanted; one that was kept is not touched."""
        await self._delete(upload.key)

    async def delete(self, digest: str) -> None:
        """Remove an artifact; it may be gone already."""
        await self._delete(digest)

    async def digests(self) -> set[str]:
        """List what is stored."""
        found = await asyncio.to_thread(obstore.list_with_delimiter, self._store)
        return {entry["path"] for entry in found["objects"]}

    async def read(self, digest: str, start: int, length: int) -> bytes:
        """Read a range of an artifact.

        Raises:
            HubError: It is not there, or shorter.
        """
        try:
            data = await asyncio.to_thread(
                obstore.get_range, self._store, digest, start=start, length=length
            )
        except (OSError, obstore.exceptions.BaseError) as error:
            raise HubError(f"artifact {digest} cannot be read: {error}") from error
        return bytes(data)

    async def stream(self, digest: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield an artifact in parts of 1 MiB.

        Raises:
            HubError: as `read`.
        """
        for start in range(0, size_bytes, CHUNK_BYTES):
            yield await self.read(digest, start, min(CHUNK_BYTES, size_bytes - start))

    def open(self, upload: Upload) -> BinaryIO:
        """Open a complete upload for blocking reads and seeks, in a worker thread."""
        raw = _ObjectFile(self._store, upload.key, upload.size_bytes)
        return cast("BinaryIO", io.BufferedReader(raw, CHUNK_BYTES))

    async def _delete(self, key: str) -> None:
        try:
            await asyncio.to_thread(obstore.delete, self._store, key)
        except FileNotFoundError:
            pass

    def _require_room(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self._root).free
        if free < size_bytes + RESERVE_BYTES:
            raise Unavailable(
                f"the hub's disk is full: {size_bytes:,} bytes and {RESERVE_BYTES:,} in reserve "
                f"are needed, {free:,} are free; remove packages that are no longer used"
            )


class _Intake:
    """Writes and hashes an upload part by part; one that is dropped before `close` is aborted."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._key = key
        self._file = obstore.open_writer(store, key, buffer_size=CHUNK_BYTES, max_concurrency=1)
        self._whole = hashlib.sha256()
        self._chunks = bytearray()
        self._size = 0
        self._head = b""

    def take(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > ARTIFACT_LIMIT_BYTES:
            raise TooLarge("the package", ARTIFACT_LIMIT_BYTES)
        self._head = self._head or part[:16]
        self._whole.update(part)
        self._chunks += hashlib.sha256(part).digest()
        self._file.write(part)

    def close(self) -> None:
        self._file.close()

    def upload(self) -> Upload:
        digest = self._whole.hexdigest()
        return Upload(self._key, digest, self._size, bytes(self._chunks), self._head)


async def _parts(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut a body into parts of `CHUNK_BYTES`; the last may be shorter."""
    pending = bytearray()
    async for piece in body:
        pending += piece
        while len(pending) >= CHUNK_BYTES:
            yield bytes(memoryview(pending)[:CHUNK_BYTES])
            del pending[:CHUNK_BYTES]
    if pending:
        yield bytes(pending)


class _ObjectFile(io.RawIOBase):
    """An object as a file, read by ranges: what zipfile and gzip ask for."""

    def __init__(self, store: ObjectStore, key: str, size_bytes: int) -> None:
        self._store = store
        self._key = key
        self._size = size_bytes
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = obstore.get_range(self._store, self._key, start=self._position, length=length)
        buffer[:length] = bytes(data)
        self._position += length
        return length


def _check(upload: Upload, declared_bytes: int | None, checksum: str | None) -> None:
    if declared_bytes is not None and upload.size_bytes != declared_bytes:
        raise BadRequest(
            f"the upload has {upload.size_bytes} bytes and not the {declared_bytes} announced: "
            "send it again"
        )
    if upload.size_bytes == 0:
        raise BadRequest("the upload is empty: send the archive's bytes as the request's body")
    if checksum is not None and checksum.strip().lower() != upload.digest:
        raise BadRequest(
            f"the upload has the SHA-256 {upload.digest} and not the one announced: send it again"
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
