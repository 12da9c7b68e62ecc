import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

import edge_agent.forward
from edge_agent.forward import handle_forward
from edge_agent.policy import Policy, PolicyFile
from protocol.aio import ResetCode, Stream, StreamReset, Tunnel
from protocol.messages import CONFIRMED, Forward
from tests.edge_agent.conftest import hub_end, write_policy

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Production runs on uvloop, whose transports and readers differ in details."""
    return ("asyncio", {"use_uvloop": request.param})


@pytest.fixture
async def hub(policy: PolicyFile) -> AsyncIterator[Tunnel]:
    async with hub_end(partial(handle_forward, policy=policy)) as hub:
        yield hub


@asynccontextmanager
async def target(serve: Serve) -> AsyncIterator[int]:
    """A TCP server on loopback; gives its port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def read_all(stream: Stream) -> bytes:
    content = b""
    while data := await stream.read():
        content += data
    return content


async def refusal(hub: Tunnel, host: str, port: int) -> StreamReset:
    stream = await hub.open(Forward(host=host, port=port))
    with pytest.raises(StreamReset) as refused:
        await stream.read()
    return refused.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_bytes_go_both_ways(hub: Tunnel, host: str) -> None:
    async with target(echo) as port:
        stream = await hub.open(Forward(host=host, port=port))
        await stream.write(b"ping")
        assert await stream.read() == b"ping"
        stream.finish()
        assert await read_all(stream) == b""


async def test_a_connection_is_confirmed_before_a_byte_of_the_target_where_that_is_wanted(
    hub: Tunnel,
) -> None:
    async with target(echo) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port, confirm=True))
        assert await stream.read() == CONFIRMED
        await stream.write(b"hello")
        stream.finish()
        assert await read_all(stream) == b"hello"


async def test_a_half_closed_connection_still_answers(hub: Tunnel) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read()
        writer.write(b"%d" % len(request))
        writer.close()

    async with target(count) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))
        await stream.write(b"x" * 1000)
        stream.finish()
        assert await read_all(stream) == b"1000"


async def test_the_target_may_finish_first(hub: Tunnel) -> None:
    received = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        received.set_result(await reader.read())
        writer.close()

    async with target(greet) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))
        assert await read_all(stream) == b"hello"
        await stream.write(b"late")
        stream.finish()
        assert await received == b"late"


async def test_much_goes_through_unchanged_both_ways_at_once(hub: Tunnel) -> None:
    block = bytes(range(256)) * 256
    sent, received = sha256(), sha256()
    async with target(echo) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))

        async def send() -> None:
            for number in range(200):
                piece = block[number:] + block[:number]
                sent.update(piece)
                await stream.write(piece)
            stream.finish()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            while data := await stream.read():
                received.update(data)
    assert received.digest() == sent.digest()


async def test_a_reader_that_stalls_stalls_the_target(hub: Tunnel) -> None:
    written = 0
    ended = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        try:
            while written < 1024**3:
                writer.write(b"x" * 65536)
                await writer.drain()
                written += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()
            ended.set()

    async with target(flood) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))
        await stream.read()
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)  # until nothing moves any more
        assert written < 64 * 1024**2
        stream.reset(ResetCode.CANCELLED)
        await ended.wait()


async def test_a_reset_stream_closes_the_connection(hub: Tunnel) -> None:
    gone = asyncio.Event()

    async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"up")
        try:
            await reader.read()
        except ConnectionError:
            pass
        writer.close()
        gone.set()

    async with target(wait_for_the_end) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))
        assert await stream.read() == b"up"
        stream.reset(ResetCode.CANCELLED)
        await gone.wait()


async def test_a_connection_that_breaks_resets_the_stream(hub: Tunnel) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        linger = struct.pack("ii", 1, 0)  # close with a RST
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    async with target(break_off) as port:
        stream = await hub.open(Forward(host="127.0.0.1", port=port))
        await stream.write(b"xy" * 1000)
        with pytest.raises(StreamReset) as broken:
            assert await stream.read() != b""
    assert broken.value.code is ResetCode.UNREACHABLE


async def test_a_closed_port_is_unreachable_and_says_why(hub: Tunnel) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await refusal(hub, "127.0.0.1", unused.getsockname()[1])
    assert refused.code is ResetCode.UNREACHABLE
    assert "refused" in refused.reason


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a\0b", "." * 10, "x" * 200])
async def test_a_name_that_is_none_is_unreachable(hub: Tunnel, host: str) -> None:
    assert (await refusal(hub, host, 80)).code is ResetCode.UNREACHABLE


@pytest.mark.parametrize("host", ["192.0.2.99", "169.254.169.254", "::ffff:169.254.169.254"])
async def test_elsewhere_is_refused_by_the_policy(hub: Tunnel, host: str) -> None:
    refused = await refusal(hub, host, 80)
    assert refused.code is ResetCode.REFUSED
    assert "policy.json" in refused.reason


async def test_a_silent_target_times_out(
    policy: PolicyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_policy(tmp_path / "policy.json", Policy(verbs=["forward"], users=[], forward=["node"]))
    monkeypatch.setattr(edge_agent.forward, "CONNECT_S", 0.2)
    with socket.socket() as full:  # a backlog of one that nobody accepts from
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            async with hub_end(partial(handle_forward, policy=policy)) as hub:
                refused = await refusal(hub, "127.0.0.1", full.getsockname()[1])
    assert refused.code is ResetCode.TIMEOUT
