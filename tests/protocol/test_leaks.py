"""A hundred thousand streams over one TLS tunnel leave nothing behind, however they ended."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from pathlib import Path

import psutil

from protocol.aio import ResetCode, Stream, StreamReset, Tunnel
from protocol.guard import Limits
from protocol.messages import Forward, Open
from protocol.streams import StreamState
from tests.protocol.test_aio import Mesh, tls_pair

STREAMS = 100_000
BATCH = 250
GROWTH_BYTES = 16 * 1024 * 1024
UNLIMITED = Limits(max_streams=256, opens_per_s=1e9, opens_burst=2 * STREAMS)
WAYS = ("finished", "reset by the opener", "reset by the server", "refused", "dropped unread")
_PORT_OF = {way: number + 1 for number, way in enumerate(WAYS)}


async def serve(opened: Open, stream: Stream) -> None:
    """End each stream as its port says."""
    assert isinstance(opened, Forward)
    match WAYS[opened.port - 1]:
        case "finished" | "reset by the opener":
            while data := await stream.read():
                await stream.write(data)
        case "reset by the server":
            await stream.read()
            stream.reset(ResetCode.UNREACHABLE, "the target is gone")
        case "refused":
            stream.reset(ResetCode.REFUSED, "not here")
        case "dropped unread":
            await stream.write(b"nobody reads this")


async def use(tunnel: Tunnel, way: str) -> None:
    stream = await tunnel.open(Forward(host="h", port=_PORT_OF[way]))
    match way:
        case "finished":
            await stream.write(b"x")
            assert await stream.read() == b"x"
            stream.finish()
            assert await stream.read() == b""
        case "reset by the opener":
            await stream.write(b"x")
            stream.reset(ResetCode.CANCELLED)
        case "dropped unread":
            stream.finish()
        case _:
            try:
                await stream.write(b"x")
                assert await stream.read() == b""
            except StreamReset:
                return
            raise AssertionError(f"{way}: the stream was not reset")


def alive() -> Counter[str]:
    """Objects that a stream may leave behind, by type."""
    gc.collect()
    kept = (Stream, StreamState, asyncio.Task, asyncio.Future, asyncio.TimerHandle)
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kept))


async def settled(*tunnels: Tunnel) -> None:
    async with asyncio.timeout(10):
        while any(tunnel.stream_count or tunnel._serving.tasks for tunnel in tunnels):
            await asyncio.sleep(0)


async def test_a_hundred_thousand_streams_leave_nothing_behind(tmp_path: Path) -> None:
    me = psutil.Process()
    async with tls_pair(Mesh(tmp_path), serve, limits=UNLIMITED) as (dialled, accepted):

        async def batch() -> None:
            async with asyncio.TaskGroup() as tasks:
                for number in range(BATCH):
                    tasks.create_task(use(accepted, WAYS[number % len(WAYS)]))
            await settled(dialled, accepted)

        for _ in range(10):  # until buffers and pools have their size
            await batch()
        before, descriptors, rss = alive(), me.num_fds(), me.memory_info().rss
        for _ in range(STREAMS // BATCH):
            await batch()
        assert alive() == before
        assert me.num_fds() == descriptors
        assert me.memory_info().rss - rss < GROWTH_BYTES
        for tunnel in (dialled, accepted):
            session = tunnel._session
            assert session.stream_ids == []
            assert (session._streams.peer_count, session.holding.held, session._budget.used) == (
                0,
                0,
                0,
            )
            assert not session._control
            assert not session._scheduler
