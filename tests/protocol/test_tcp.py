"""A TCP connection joined to a stream: each way ends by itself, a slow side slows the other one."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from protocol.aio import ResetCode, Stream, StreamReset, TunnelClosed, memory_pair
from protocol.aio.tcp import TcpEnd, carry
from protocol.guard import Limits
from protocol.messages import Forward, Open

Far = Callable[[Stream], Awaitable[None]]
OPEN = Forward(host="h", port=1)
Joined = tuple[asyncio.StreamReader, asyncio.StreamWriter, "asyncio.Future[BaseException | None]"]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"], autouse=True)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Production runs on uvloop, whose transports differ in details."""
    return ("asyncio", {"use_uvloop": request.param})


@asynccontextmanager
async def carried(far: Far) -> AsyncIterator[Joined]:
    """A socket whose accepted end is carried by a stream that `far` serves, and how it ended."""
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def serve(_message: Open, stream: Stream) -> None:
        await far(stream)

    async with memory_pair(serve) as (_, tunnel), asyncio.TaskGroup() as tasks:

        async def run(end: TcpEnd) -> None:
            try:
                async with await tunnel.open(OPEN) as stream:
                    await carry(end, stream)
                outcome.set_result(None)
            except (StreamReset, TunnelClosed, OSError) as error:
                outcome.set_result(error)

        server = await asyncio.get_running_loop().create_server(
            lambda: TcpEnd(lambda end: tasks.create_task(run(end))), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(20):
                yield reader, writer, outcome
                writer.close()
                await outcome
        finally:
            writer.close()
            server.close()


async def read_all(stream: Stream) -> bytes:
    whole = bytearray()
    while data := await stream.read():
        whole += data
    return bytes(whole)


async def test_much_passes_both_ways_and_the_socket_may_finish_first() -> None:
    payload = bytes(range(256)) * 16 * 1024

    async def answer_after_the_end(stream: Stream) -> None:
        await stream.write(await read_all(stream))

    async with carried(answer_after_the_end) as (reader, writer, outcome):
        writer.write(payload)
        writer.write_eof()
        assert await reader.read() == payload
        assert await outcome is None


async def test_the_stream_may_finish_first() -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def greet_and_listen(stream: Stream) -> None:
        await stream.write(b"hello")
        stream.finish()
        heard.set_result(await read_all(stream))

    async with carried(greet_and_listen) as (reader, writer, outcome):
        assert await reader.read() == b"hello"
        writer.write(b"late")
        writer.write_eof()
        assert await heard == b"late"
        assert await outcome is None


async def test_a_socket_that_is_not_read_gives_no_credit() -> None:
    written = 0
    stalled = asyncio.Event()

    async def flood(stream: Stream) -> None:
        nonlocal written
        with suppress(StreamReset):
            while True:
                try:
                    async with asyncio.timeout(0.5):
                        await stream.write(bytes(65536))
                    written += 65536
                except TimeoutError:
                    stalled.set()
                    await stream.read()
                    return

    async with carried(flood) as (_, writer, outcome):
        await stalled.wait()
        assert written < 32 * 1024**2  # the window, our buffers and the kernel's
        writer.transport.abort()
        assert isinstance(await outcome, OSError)


async def test_a_stream_that_is_not_read_stops_the_socket() -> None:
    over = asyncio.Event()

    async def deaf(_message: Open, _stream: Stream) -> None:
        await over.wait()

    loop, sent = asyncio.get_running_loop(), 0
    near, far = socket.socketpair()
    near.setblocking(False)
    async with memory_pair(deaf) as (_, tunnel):
        end = TcpEnd()
        await loop.connect_accepted_socket(lambda: end, far)
        stream = await tunnel.open(OPEN)
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(carry(end, stream))
                with suppress(TimeoutError):
                    while True:
                        async with asyncio.timeout(0.5):
                            await loop.sock_sendall(near, bytes(65536))
                        sent += 65536
                stream.reset(ResetCode.CANCELLED)
        assert isinstance(caught.value.exceptions[0], StreamReset)
        over.set()
    near.close()
    assert 0 < sent < 16 * 1024**2


async def test_a_reset_in_the_middle_ends_the_connection_and_is_raised() -> None:
    async def refuse_midway(stream: Stream) -> None:
        await stream.write(b"some")
        await stream.read()
        stream.reset(ResetCode.REFUSED, "enough")

    async with carried(refuse_midway) as (reader, writer, outcome):
        assert await reader.read(4) == b"some"
        writer.write(b"x")
        with suppress(ConnectionError):
            assert await reader.read() == b""
        error = await outcome
    assert isinstance(error, StreamReset)
    assert (error.code, error.reason) == (ResetCode.REFUSED, "enough")


async def test_a_connection_that_breaks_is_raised_and_its_stream_can_be_ended() -> None:
    ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def wait(stream: Stream) -> None:
        await stream.write(b"up")
        try:
            await read_all(stream)
        except StreamReset as error:
            ended.set_result(error)

    async with carried(wait) as (reader, writer, outcome):
        assert await reader.read(2) == b"up"
        linger = struct.pack("ii", 1, 0)  # close with a RST
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        assert isinstance(await outcome, OSError)
        assert isinstance(await ended, StreamReset)


async def test_a_socket_that_dies_while_much_is_written_to_it_disturbs_nobody_else() -> None:
    strange: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strange.append(context))

    async def pour(stream: Stream) -> None:
        while True:
            await stream.write(bytes(64 * 1024))

    linger = struct.pack("ii", 1, 0)  # close with a RST
    for read_before in range(0, 2**20, 2**17):
        async with carried(pour) as (reader, writer, outcome):
            await reader.readexactly(read_before)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            assert isinstance(await outcome, OSError)
    assert strange == []


async def test_what_comes_before_an_end_is_carried_is_kept() -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(stream: Stream) -> None:
        got.set_result(await read_all(stream))

    accepted: asyncio.Future[TcpEnd] = asyncio.get_running_loop().create_future()
    server = await asyncio.get_running_loop().create_server(
        lambda: TcpEnd(accepted.set_result), "127.0.0.1", 0
    )
    async with server, memory_pair(lambda _, stream: listen(stream)) as (_, tunnel):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"early")
        writer.write_eof()
        end = await accepted
        stream = await tunnel.open(OPEN)
        await carry(end, stream)
        assert await got == b"early"
        writer.close()


async def test_ten_thousand_short_connections_leave_nothing_behind() -> None:
    async def echo(_message: Open, stream: Stream) -> None:
        await stream.write(await read_all(stream))

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    loop = asyncio.get_running_loop()
    async with (
        asyncio.timeout(120),
        memory_pair(echo, limits=Limits(opens_per_s=1e6)) as (dialled, tunnel),
    ):

        async def once() -> None:
            near, far = socket.socketpair()
            near.setblocking(False)
            end = TcpEnd()
            await loop.connect_accepted_socket(lambda: end, far)
            near.send(b"x")
            near.shutdown(socket.SHUT_WR)
            async with await tunnel.open(OPEN) as stream:
                await carry(end, stream)
            assert await loop.sock_recv(near, 2) == b"x"
            near.close()

        await once()
        before = descriptors()
        for _ in range(100):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(100):
                    tasks.create_task(once())
        while descriptors() > before:  # the transports close a round later
            await asyncio.sleep(0)
        assert (dialled.stream_count, tunnel.stream_count) == (0, 0)
