"""The artifacts a node holds, and those it is receiving, chunk by chunk.

`artifacts/DIGEST` is a whole artifact that was verified. `artifacts/DIGEST.partial/` is one on its
way: `plan` (sizes and the chunks' digests), `data` (sparse) and `chunks`, a journal of 4-byte chunk
numbers, each written after its data. The rule it guards: nothing becomes `artifacts/DIGEST` that
does not have this SHA-256. After any crash, the chunks in the journal are hashed again and those
that don't match are fetched again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from edge_agent.packages.disk import (
    NodeRefused,
    require_room,
    sync_directory,
    unless_set,
    write_all,
    write_atomically,
)

KEPT_ARTIFACTS = 3
KEPT_FRESH_S = 3600.0
"""The newest artifacts are kept for the next install, and any younger than an hour."""
KEPT_PARTIAL_S = 7 * 24 * 3600.0
_NUMBER = struct.Struct("<I")
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What an artifact is cut into."""

    digest: str
    size_bytes: int
    chunk_bytes: int
    chunk_digests: bytes
    """32 bytes a chunk."""

    def __post_init__(self) -> None:
        if len(self.chunk_digests) != 32 * self.count:
            raise NodeRefused("the chunk digests don't fit the artifact's size")

    @property
    def count(self) -> int:
        """How many chunks there are."""
        return -(-self.size_bytes // self.chunk_bytes)

    def length(self, index: int) -> int:
        """Return the size of one chunk in bytes; all but the last are equal."""
        return min(self.chunk_bytes, self.size_bytes - index * self.chunk_bytes)

    def matches(self, index: int, data: bytes | bytearray) -> bool:
        """Tell whether `data` is chunk `index`."""
        expected = self.chunk_digests[32 * index : 32 * index + 32]
        return hashlib.sha256(data).digest() == expected

    def encode(self) -> bytes:
        """Return what `plan` holds on disk; equal plans are equal bytes."""
        head = f"{self.digest} {self.size_bytes} {self.chunk_bytes}\n".encode()
        return head + self.chunk_digests


class Cache:
    """The directory of artifacts; all methods block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, digest: str) -> Path | None:
        """Return the whole artifact's file, if it is here, and keep it for another while."""
        path = self.root / digest
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        return path

    def prune(self, now: float | None = None) -> None:
        """Remove all but the newest artifacts, and partial ones that nobody continued."""
        now = time.time() if now is None else now
        ages = {path: now - _changed_at(path, now) for path in self.root.iterdir()}
        partial = {path for path in ages if path.suffix == ".partial"}
        for path in sorted(ages.keys() - partial, key=ages.__getitem__)[KEPT_ARTIFACTS:]:
            if ages[path] > KEPT_FRESH_S:
                path.unlink(missing_ok=True)
        for path in partial:
            if ages[path] > KEPT_PARTIAL_S:
                shutil.rmtree(path, ignore_errors=True)


class Partial:
    """An artifact on its way; one at a time per digest. `begin` it, then `close` it in any case."""

    _data: FileIO
    _journal: FileIO

    def __init__(self, plan: Plan, cache: Cache) -> None:
        self.plan = plan
        self._cache = cache
        self._directory = cache.root / f"{plan.digest}.partial"
        self._files = ExitStack()
        self._held: set[int] = set()
        self._whole = hashlib.sha256()
        self._hashed = 0  # chunks that are in _whole, from the first on

    def begin(self, stop: threading.Event) -> None:
        """Make the files, or go on where an earlier attempt ended.

        Raises:
            NodeRefused: There is not enough room on the disk, or `stop` was set.
        """
        encoded = self.plan.encode()
        if not _holds(self._directory / "plan", encoded):
            shutil.rmtree(self._directory, ignore_errors=True)
            require_room(self._cache.root, self.plan.size_bytes)
            self._directory.mkdir(mode=0o700)
            write_atomically(self._directory / "plan", encoded)
        os.utime(self._directory)
        self._data = self._files.enter_context(_open(self._directory / "data"))
        self._journal = self._files.enter_context(_open(self._directory / "chunks"))
        self._recover(stop)
        require_room(self._cache.root, self.missing_bytes)

    def _recover(self, stop: threading.Event) -> None:
        """Trust of the journal what still has its digest, and write it anew."""
        for index in sorted(set(self._journalled())):
            unless_set(stop)
            data = self._read(index)
            if self.plan.matches(index, data):
                self._held.add(index)
                self._feed(index, data)
        self._journal.seek(0)
        self._journal.truncate()
        write_all(self._journal, b"".join(map(_NUMBER.pack, sorted(self._held))))
        self._data.truncate(self.plan.size_bytes)

    @property
    def missing_bytes(self) -> int:
        """How much is still to come."""
        return self.plan.size_bytes - sum(map(self.plan.length, self._held))

    def missing(self, limit: int) -> list[tuple[int, int]]:
        """Return what is missing as at most `limit` [first, last] pairs; the last may overlap."""
        ranges: list[tuple[int, int]] = []
        for index in self._absent():
            if ranges and (ranges[-1][1] == index - 1 or len(ranges) == limit):
                ranges[-1] = (ranges[-1][0], index)
            else:
                ranges.append((index, index))
        return ranges

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is here."""
        return len(self._held) == self.plan.count

    def store(self, index: int, data: bytes | bytearray) -> bool:
        """Verify and keep one chunk; False when it does not have its digest."""
        if not self.plan.matches(index, data):
            return False
        self._data.seek(index * self.plan.chunk_bytes)
        write_all(self._data, data)
        if index not in self._held:
            self._held.add(index)
            write_all(self._journal, _NUMBER.pack(index))
        self._feed(index, data)
        return True

    def finish(self, stop: threading.Event) -> Path:
        """Verify the whole and move it into the cache.

        Raises:
            NodeRefused: The chunks match their digests and the whole does not, or `stop` was set.
        """
        for index in range(self._hashed, self.plan.count):
            unless_set(stop)
            self._feed(index, self._read(index))
        if self._whole.hexdigest() != self.plan.digest:
            shutil.rmtree(self._directory)
            raise NodeRefused("the artifact does not have the SHA-256 that the hub announced")
        os.fsync(self._data.fileno())
        whole = self._cache.root / self.plan.digest
        (self._directory / "data").replace(whole)
        sync_directory(whole.parent)
        shutil.rmtree(self._directory)
        return whole

    def close(self) -> None:
        """Close the files; what is there stays for the next attempt."""
        self._files.close()

    def _absent(self) -> Iterator[int]:
        return (index for index in range(self.plan.count) if index not in self._held)

    def _feed(self, index: int, data: bytes | bytearray) -> None:
        if index == self._hashed:
            self._whole.update(data)
            self._hashed += 1

    def _read(self, index: int) -> bytes:
        self._data.seek(index * self.plan.chunk_bytes)
        return self._data.read(self.plan.length(index))

    def _journalled(self) -> Iterable[int]:
        self._journal.seek(0)
        journal = self._journal.read(_NUMBER.size * self.plan.count)
        whole = len(journal) - len(journal) % _NUMBER.size
        numbers = (number for (number,) in _NUMBER.iter_unpack(journal[:whole]))
        return (number for number in numbers if number < self.plan.count)


def _open(path: Path) -> FileIO:
    return FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


def _changed_at(path: Path, if_gone: float) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return if_gone


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False
