"""The splice of two streams: bytes and ends pass, credit runs end to end, faults reach both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from hub.splice import Traffic, splice
from protocol.aio import ResetCode, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import ClientForward, ClientOpen, Forward, Open

Target = Callable[[Stream], Awaitable[None]]


@asynccontextmanager
async def spliced(
    target: Target, node_end: asyncio.Queue[Tunnel] | None = None
) -> AsyncIterator[tuple[Stream, asyncio.Future[str], Traffic]]:
    """A client's stream that a hub in between splices to a node's `target`."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    traffic = Traffic()

    async def node(_message: Open, stream: Stream) -> None:
        await target(stream)

    async with memory_pair(node) as (from_node, to_node):
        if node_end is not None:
            node_end.put_nowait(from_node)

        async def hub(_message: Open, stream: Stream) -> None:
            opened = await to_node.open(Forward(host="127.0.0.1", port=1))
            cause = await splice(stream, opened, traffic)
            ended.set_result("" if cause is None else f"{cause.code.name}: {cause}")

        async with memory_pair(None, hub, accepted_accepts=ClientOpen) as (client, _):
            yield await client.open(ClientForward(node="n", host="h", port=1)), ended, traffic


async def read_all(stream: Stream) -> bytes:
    whole = bytearray()
    while data := await stream.read():
        whole += data
    return bytes(whole)


async def test_bytes_pass_both_ways_and_each_way_ends_by_itself() -> None:
    async def answer_after_the_end(stream: Stream) -> None:
        question = await read_all(stream)
        await stream.write(question.upper())

    async with spliced(answer_after_the_end) as (stream, ended, traffic), asyncio.timeout(5):
        await stream.write(b"hello")
        stream.finish()
        assert await read_all(stream) == b"HELLO"
        assert await ended == ""
    assert (traffic.sent.size_bytes, traffic.received.size_bytes) == (5, 5)


async def test_bulk_passes_unchanged() -> None:
    data = bytes(range(256)) * 16_384

    async def echo(stream: Stream) -> None:
        while piece := await stream.read():
            await stream.write(piece)

    async with spliced(echo) as (stream, _, _), asyncio.timeout(20), asyncio.TaskGroup() as group:
        reading = group.create_task(read_all(stream))
        await stream.write(data)
        stream.finish()
        assert await reading == data


async def test_a_reader_that_stops_stops_the_sender() -> None:
    sent = 0
    stalled = asyncio.Event()

    async def flood(stream: Stream) -> None:
        nonlocal sent
        while True:
            try:
                async with asyncio.timeout(0.3):
                    await stream.write(bytes(65_536))
            except TimeoutError:
                stalled.set()
                return
            sent += 65_536

    async with spliced(flood) as (stream, _, traffic), asyncio.timeout(20):
        await stalled.wait()
        assert sent < 16 * 1024 * 1024
        assert traffic.received.size_bytes <= min(
            sent, 2 * 1024 * 1024
        )  # no credit without a reader
        stream.reset(ResetCode.CANCELLED)


@pytest.mark.parametrize("code", [ResetCode.UNREACHABLE, ResetCode.REFUSED])
async def test_a_reset_passes_with_code_and_reason(code: ResetCode) -> None:
    async def refuse(stream: Stream) -> None:
        stream.reset(code, "nobody listens there")

    async with spliced(refuse) as (stream, ended, _), asyncio.timeout(5):
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert (caught.value.code, caught.value.reason) == (code, "nobody listens there")
        assert await ended == f"{code.name}: nobody listens there"


async def test_a_client_that_resets_reaches_the_target() -> None:
    told: asyncio.Future[ResetCode] = asyncio.get_running_loop().create_future()

    async def wait(stream: Stream) -> None:
        try:
            await stream.read()
        except StreamReset as reset:
            told.set_result(reset.code)

    async with spliced(wait) as (stream, _, _), asyncio.timeout(5):
        stream.reset(ResetCode.CANCELLED, "enough")
        assert await told is ResetCode.CANCELLED


async def test_a_lost_node_is_unreachable_for_the_client() -> None:
    async def cut_the_tunnel(stream: Stream) -> None:
        await stream.read()
        await node_end.get_nowait().close()

    node_end: asyncio.Queue[Tunnel] = asyncio.Queue()
    async with spliced(cut_the_tunnel, node_end) as (stream, ended, _), asyncio.timeout(5):
        await stream.write(b"go")
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code is ResetCode.UNREACHABLE
        assert (await ended).startswith("UNREACHABLE")


@asynccontextmanager
async def unspliced() -> AsyncIterator[tuple[Stream, Stream, Stream, Stream]]:
    """The client's end, the hub's two streams and the node's end, not joined yet."""
    accepted: asyncio.Queue[Stream] = asyncio.Queue()
    over = asyncio.Event()

    async def hold(_message: Open, stream: Stream) -> None:
        accepted.put_nowait(stream)
        await over.wait()

    async with (
        asyncio.timeout(5),
        memory_pair(hold) as (_, to_node),
        memory_pair(None, hold, accepted_accepts=ClientOpen) as (client, _),
    ):
        asking = await client.open(ClientForward(node="n", host="h", port=1))
        near = await accepted.get()
        far = await to_node.open(Forward(host="127.0.0.1", port=1))
        yield asking, near, far, await accepted.get()
        over.set()


async def test_cancelling_a_splice_resets_both_sides() -> None:
    async with unspliced() as (asking, near, far, answering):
        async with asyncio.TaskGroup() as tasks:
            splicing = tasks.create_task(splice(near, far, Traffic()))
            await asking.write(b"x")
            assert await answering.read() == b"x"
            splicing.cancel()
        for end in (asking, answering):
            with pytest.raises(StreamReset) as caught:
                await end.read()
            assert caught.value.code is ResetCode.CANCELLED


async def test_what_waits_before_the_splice_passes_and_ends_it() -> None:
    async with unspliced() as (asking, near, far, answering):
        for end, text in ((asking, b"question"), (answering, b"answer")):
            await end.write(text)
            end.finish()
        while not (near._eof and far._eof):
            await asyncio.sleep(0)
        traffic = Traffic()
        assert await splice(near, far, traffic) is None
        assert (await read_all(answering), await read_all(asking)) == (b"question", b"answer")
        assert (traffic.sent.size_bytes, traffic.received.size_bytes) == (8, 6)
