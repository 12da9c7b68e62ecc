"""Serve a `transfer` stream: say which chunks are missing, take them, verify, keep.

The rule it guards: what the hub sends is checked chunk by chunk before it counts, at most four
chunks are held in memory, and a broken stream leaves what was verified for the next attempt.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

from edge_agent.packages.cache import Partial, Plan
from edge_agent.packages.disk import NodeRefused, in_thread
from edge_agent.packages.room import PackageRoom
from edge_agent.packages.watch import while_open
from edge_agent.policy import Refused
from protocol.aio import Channel, ResetCode, Stream
from protocol.messages import Transfer
from protocol.record_types import (
    ChunkDigests,
    ChunkPart,
    ChunkRefused,
    ChunkStored,
    Missing,
    Stored,
    TransferFromHub,
    TransferFromNode,
)

MAX_CHUNKS = 65_536
MAX_RANGES = 4096
AHEAD = 2
"""Whole chunks that may wait to be stored."""
STALLED_S = 600.0
"""How long the hub may take for one chunk."""
MAX_REFUSALS = 3
"""How often one chunk may arrive damaged."""

_log = logging.getLogger(__name__)
_Hub = Channel[TransferFromNode, TransferFromHub]
T = TypeVar("T")


async def handle_transfer(opening: Transfer, stream: Stream, room: PackageRoom) -> None:
    """Receive one artifact into the cache."""
    hub: _Hub = Channel(stream, TransferFromHub)
    try:
        room.policy.current().allow_deploy()
        plan = await _in_time(_receive_plan(opening, hub))
        async with AsyncExitStack() as stack:
            async with while_open(hub):
                await stack.enter_async_context(room.turn("transfer", plan.digest))
                held = await in_thread(lambda _: room.cache.find(plan.digest))
            if held is None:
                await _receive(plan, hub, room)
            else:
                await hub.send(Missing(ranges=[]))
    except (NodeRefused, Refused, OSError) as error:
        _log.warning("transfer of %s refused: %s", opening.digest, error)
        hub.reset(ResetCode.REFUSED, str(error))
        return
    await hub.send(Stored())
    hub.finish()


async def _in_time(receiving: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(STALLED_S):
            return await receiving
    except TimeoutError:
        raise NodeRefused("the hub sends nothing more") from None


async def _receive_plan(opening: Transfer, hub: _Hub) -> Plan:
    count = -(-opening.size_bytes // opening.chunk_bytes)
    if count > MAX_CHUNKS:
        raise NodeRefused(f"{count:,} chunks are too many, at most {MAX_CHUNKS:,} are allowed")
    digests = bytearray()
    while len(digests) < 32 * count:
        match await hub.receive():
            case ChunkDigests(digests=more) if more:
                digests += more
            case _:
                raise NodeRefused("the chunk digests are not complete")
    return Plan(opening.digest, opening.size_bytes, opening.chunk_bytes, bytes(digests))


async def _receive(plan: Plan, hub: _Hub, room: PackageRoom) -> None:
    await in_thread(lambda _: room.cache.prune())
    partial = Partial(plan, room.cache)
    try:
        async with while_open(hub):
            await in_thread(partial.begin)
        await hub.send(Missing(ranges=partial.missing(MAX_RANGES)))
        await _store_all(partial, hub)
        async with while_open(hub):
            await in_thread(partial.finish)
    finally:
        partial.close()


async def _store_all(partial: Partial, hub: _Hub) -> None:
    """Keep chunks until none is missing; the next ones come in while one is hashed and written."""
    refusals: Counter[int] = Counter()
    arrived: asyncio.Queue[tuple[int, bytearray]] = asyncio.Queue(AHEAD)

    async def collect() -> None:
        while True:
            await arrived.put(await _in_time(_receive_chunk(partial.plan, hub)))

    try:
        async with asyncio.TaskGroup() as tasks:
            collector = tasks.create_task(collect())
            while not partial.is_complete:
                index, data = await arrived.get()
                if await in_thread(functools.partial(_store, partial, index, data)):
                    await hub.send(ChunkStored(index=index))
                else:
                    await _refuse(index, refusals, hub)
            collector.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def _store(partial: Partial, index: int, data: bytearray, _: threading.Event) -> bool:
    return partial.store(index, data)


async def _refuse(index: int, refusals: Counter[int], hub: _Hub) -> None:
    refusals[index] += 1
    if refusals[index] >= MAX_REFUSALS:
        raise NodeRefused(f"chunk {index} arrived damaged {MAX_REFUSALS} times")
    await hub.send(ChunkRefused(index=index))


async def _receive_chunk(plan: Plan, hub: _Hub) -> tuple[int, bytearray]:
    """Collect the parts of the next chunk; they come one after the other."""
    index, data = -1, bytearray()
    while index < 0 or len(data) < plan.length(index):
        match await hub.receive():
            case ChunkPart() as part if (index < 0 or part.index == index) and part.data:
                index = part.index
                if index >= plan.count or part.offset != len(data):
                    raise NodeRefused(f"a part of chunk {part.index} is out of order")
                data += part.data
                if len(data) > plan.length(index):
                    raise NodeRefused(f"chunk {index} is too long")
            case None:
                raise NodeRefused("the hub ended the transfer before it was complete")
            case _:
                raise NodeRefused(f"chunk {index} is not complete")
    return index, data
