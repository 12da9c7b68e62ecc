"""The hub's side of `transfer` and `install` streams.

The rule it guards: a chunk counts as there when the node says so, at most `WINDOW` chunks are
unconfirmed, and a node that says nothing for long, or nonsense, ends the stream with an error.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import chain
from typing import TypeVar, assert_never

from hub.deployments.chunks import ChunkReader
from hub.store.packages import ArtifactRow
from protocol.aio import Channel, RemoteProtocolError, ResetCode, StreamReset
from protocol.messages import Install, Message
from protocol.record_types import (
    ChunkDigests,
    ChunkPart,
    ChunkRefused,
    ChunkStored,
    Installed,
    InstallFromNode,
    Missing,
    Progress,
    Stored,
    TransferFromHub,
    TransferFromNode,
)

SendT = TypeVar("SendT", bound=Message)
ReceiveT = TypeVar("ReceiveT")
WINDOW = 8
"""Chunks sent and not confirmed."""
MAX_SENDS = 3
"""How often one chunk is sent."""
PART_BYTES = 64 * 1024
TURN_TIMEOUT_S = 3600.0
"""How long a node may take for its first answer (others are before us), and for one stage."""
STAGES_LIMIT = 100
"""Each stage is stored and told; an installation has a handful."""
CHUNK_TIMEOUT_S = 600.0
"""How long it may take to confirm one of the chunks on their way: 8 MiB at 14 KiB/s."""

TransferChannel = Channel[TransferFromHub, TransferFromNode]
InstallChannel = Channel[Install, InstallFromNode]


class Delivery:
    """One artifact on its way to one node."""

    def __init__(
        self,
        channel: TransferChannel,
        artifact: ArtifactRow,
        chunks: ChunkReader,
        progress: Callable[[int], Awaitable[None]],
    ) -> None:
        """`progress` is told how many bytes the node holds."""
        self._channel = channel
        self._artifact = artifact
        self._chunks = chunks
        self._progress = progress
        self._left = 0
        """Bytes of missing chunks that are not confirmed."""
        self._sends: Counter[int] = Counter()
        self._unconfirmed: set[int] = set()

    async def run(self) -> None:
        """Send what the node does not hold; return when it has verified the whole.

        Raises:
            StreamReset: The node refused or gave up.
            RemoteProtocolError: It answered out of order.
            TunnelClosed: The tunnel went away.
            HubError: The artifact cannot be read.
        """
        async with _closing(self._channel):
            await self._send_digests()
            wanted = self._wanted(await self._receive(TURN_TIMEOUT_S))
            self._left = sum(map(self._length, chain.from_iterable(wanted)))
            await self._tell()
            for index in chain.from_iterable(wanted):
                await self._send_chunk(index)
                while len(self._unconfirmed) >= WINDOW:
                    await self._take_answer()
            while self._unconfirmed:
                await self._take_answer()
            if not isinstance(await self._receive(TURN_TIMEOUT_S), Stored):
                raise RemoteProtocolError("the node did not confirm the whole artifact")

    async def _send_digests(self) -> None:
        digests = self._artifact.chunk_digests
        for start in range(0, len(digests), PART_BYTES):
            await self._send(ChunkDigests(digests=digests[start : start + PART_BYTES]))

    def _wanted(self, answer: TransferFromNode) -> list[range]:
        """Check which chunks the node asks for: ascending ranges within the artifact."""
        if not isinstance(answer, Missing):
            raise RemoteProtocolError("the node did not say which chunks it misses")
        count = -(-self._artifact.size_bytes // self._artifact.chunk_bytes)
        wanted, before = [], -1
        for first, last in answer.ranges:
            if not before < first <= last < count:
                raise RemoteProtocolError("the node asks for chunks that do not exist")
            wanted.append(range(first, last + 1))
            before = last
        return wanted

    async def _send_chunk(self, index: int) -> None:
        self._sends[index] += 1
        self._unconfirmed.add(index)
        data = await self._chunks.read(self._artifact, index)
        for start in range(0, len(data), PART_BYTES):
            part = data[start : start + PART_BYTES]
            await self._send(ChunkPart(index=index, offset=start, data=part))

    async def _take_answer(self) -> None:
        match await self._receive(CHUNK_TIMEOUT_S):
            case ChunkStored(index=index) if index in self._unconfirmed:
                self._unconfirmed.remove(index)
                self._left -= self._length(index)
                await self._tell()
            case ChunkRefused(index=index) if index in self._unconfirmed:
                if self._sends[index] >= MAX_SENDS:
                    raise RemoteProtocolError(f"chunk {index} arrived damaged {MAX_SENDS} times")
                self._chunks.forget(self._artifact, index)
                await self._send_chunk(index)
            case _:
                raise RemoteProtocolError("the node answered out of order")

    async def _send(self, message: TransferFromHub) -> None:
        try:
            async with asyncio.timeout(CHUNK_TIMEOUT_S):
                await self._channel.send(message)
        except TimeoutError:
            raise StreamReset(ResetCode.TIMEOUT, "the node reads nothing") from None

    async def _receive(self, timeout_s: float) -> TransferFromNode:
        return await _receive(self._channel, timeout_s)

    def _length(self, index: int) -> int:
        start = index * self._artifact.chunk_bytes
        return min(self._artifact.chunk_bytes, self._artifact.size_bytes - start)

    async def _tell(self) -> None:
        await self._progress(self._artifact.size_bytes - self._left)


async def follow_install(
    channel: InstallChannel, on_stage: Callable[[str], Awaitable[None]]
) -> Installed:
    """Take a node's answers to an `install` until it has ended.

    Raises:
        StreamReset, RemoteProtocolError, TunnelClosed: as `Delivery.run`.
    """
    async with _closing(channel):
        for _ in range(STAGES_LIMIT):
            match await _receive(channel, TURN_TIMEOUT_S):
                case Progress(stage=stage):
                    await on_stage(stage[:32])
                case Installed() as answer:
                    return answer
                case other:
                    assert_never(other)
        raise RemoteProtocolError("the installation has no end of stages")


async def _receive(channel: Channel[SendT, ReceiveT], timeout_s: float) -> ReceiveT:
    try:
        async with asyncio.timeout(timeout_s):
            answer = await channel.receive()
    except TimeoutError:
        raise StreamReset(ResetCode.TIMEOUT, "the node did not answer in time") from None
    if answer is None:
        raise RemoteProtocolError("the node ended the stream too early")
    return answer


@asynccontextmanager
async def _closing(channel: Channel[SendT, ReceiveT]) -> AsyncIterator[None]:
    """End the stream well, or with a reset when the work in it is cut short."""
    try:
        yield
    except RemoteProtocolError as error:
        channel.reset(ResetCode.PROTOCOL, error.reason)
        raise
    except BaseException:
        channel.reset(ResetCode.CANCELLED)
        raise
    channel.leave()
