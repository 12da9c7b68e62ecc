"""Reads chunks of artifacts, each once for all nodes that are sent it at about the same time.

The rule it guards: memory is flat however many nodes and deployments there are: at most
`CACHED_CHUNKS` chunks are kept, the least recently used goes first.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from weakref import WeakValueDictionary

from hub.artifacts import Artifacts
from hub.store.packages import ArtifactRow

CACHED_CHUNKS = 32
"""Of 1 MiB each."""


class ChunkReader:
    """Shared by all deployments."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts
        self._cached: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._reading: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()

    async def read(self, artifact: ArtifactRow, index: int) -> bytes:
        """Return one chunk.

        Raises:
            HubError: The artifact cannot be read.
        """
        key = (artifact.digest, index)
        lock = self._reading.setdefault(key, asyncio.Lock())
        async with lock:
            data = self._cached.get(key)
            if data is None:
                start = index * artifact.chunk_bytes
                length = min(artifact.chunk_bytes, artifact.size_bytes - start)
                data = self._cached[key] = await self._artifacts.read(
                    artifact.digest, start, length
                )
                if len(self._cached) > CACHED_CHUNKS:
                    self._cached.popitem(last=False)
            else:
                self._cached.move_to_end(key)
            return data

    def forget(self, artifact: ArtifactRow, index: int) -> None:
        """Read a chunk anew next time: a node found it damaged."""
        self._cached.pop((artifact.digest, index), None)
