"""The asyncio shell: one body of tests over memory and over real TLS WebSockets."""

from __future__ import annotations

import asyncio
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiofastnet
import pytest

from certs.authority import Authority
from certs.contexts import agent_context, hub_tunnel_context
from certs.keys import make_key_and_csr
from certs.servers import Role, keep_current
from protocol import messages, record_types
from protocol.aio import (
    Channel,
    GoAwayCode,
    Handler,
    LocalProtocolError,
    RemoteProtocolError,
    ResetCode,
    Stream,
    StreamReset,
    Tunnel,
    TunnelClosed,
    memory_pair,
)
from protocol.aio.stream import WRITE_HIGH
from protocol.aio.websocket import (
    ConnectRefused,
    Refusal,
    Request,
    accept_websocket,
    connect_websocket,
)
from protocol.frames import Hello
from protocol.guard import DEFAULT_LIMITS, Limits
from protocol.messages import ClientOpen, HubOpen
from protocol.session import Side

Joined = AbstractAsyncContextManager[tuple[Tunnel, Tunnel]]
Join = Callable[..., Joined]
TARGET = messages.Forward(host="localhost", port=80)


class Mesh:
    """A CA, a hub's certificate and a node's, on disk."""

    def __init__(self, directory: Path) -> None:
        now = time.time()
        self.authority = Authority.open(directory / "ca", now)
        files, _ = keep_current(directory / "hub", Role.HUB, self.authority, ["localhost"], now)
        key, request = make_key_and_csr()
        self.key, self.chain = directory / "key.pem", directory / "chain.pem"
        self.key.write_bytes(key)
        issued = self.authority.issue_node(request, str(uuid.uuid4()), now)
        self.chain.write_bytes(issued.chain_pem)
        self.server = hub_tunnel_context(files.chain, files.key, self.authority.trust_pem)
        self.client = agent_context(self.chain, self.key, self.authority.trust_pem)


@asynccontextmanager
async def listening(
    context: ssl.SSLContext, on_request: Callable[[Request], Tunnel | Refusal]
) -> AsyncIterator[str]:
    loop = asyncio.get_running_loop()
    server = await aiofastnet.create_server(
        loop, lambda: accept_websocket(on_request), "127.0.0.1", 0, ssl=context
    )
    async with server:
        yield f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}/tunnel"


@asynccontextmanager
async def tls_pair(
    mesh: Mesh,
    dialled_handler: Handler | None = None,
    accepted_handler: Handler | None = None,
    *,
    accepted_accepts: object = messages.AgentOpen,
    limits: Limits = DEFAULT_LIMITS,
) -> AsyncIterator[tuple[Tunnel, Tunnel]]:
    hello = Hello(software="test")
    dialled = Tunnel(Side.DIALLED, hello, dialled_handler, accepts=HubOpen, limits=limits)
    accepted = Tunnel(
        Side.ACCEPTED, hello, accepted_handler, accepts=accepted_accepts, limits=limits
    )
    async with listening(mesh.server, lambda _: accepted) as url, asyncio.TaskGroup() as tasks:
        tasks.create_task(dialled.run())
        tasks.create_task(accepted.run())
        await connect_websocket(dialled, url, mesh.client)
        await dialled.ready()
        await accepted.ready()
        try:
            yield dialled, accepted
        finally:
            await dialled.close()
            await accepted.close()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    return Mesh(tmp_path_factory.mktemp("mesh"))


@pytest.fixture(params=["memory", "tls"])
def join(request: pytest.FixtureRequest, mesh: Mesh) -> Join:
    if request.param == "memory":
        return memory_pair
    return lambda *handlers, **options: tls_pair(mesh, *handlers, **options)


async def echo(_: messages.Open, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def read_all(stream: Stream) -> bytes:
    parts = []
    while data := await stream.read():
        parts.append(data)
    return b"".join(parts)


async def test_bytes_come_back_whole_and_nothing_is_left(join: Join) -> None:
    sent = bytes(range(256)) * 16 * 1024  # 4 MiB, far beyond any window
    async with join(echo) as (dialled, accepted):
        stream = await accepted.open(TARGET)

        async def push() -> None:
            for at in range(0, len(sent), 50_000):
                await stream.write(sent[at : at + 50_000])
            stream.finish()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(push())
            received = await read_all(stream)
        assert received == sent
        assert accepted.stream_count == 0
    assert dialled.stream_count == 0


async def test_a_writer_waits_for_a_reader(join: Join) -> None:
    reading = asyncio.Event()

    async def reluctant(_: messages.Open, stream: Stream) -> None:
        await reading.wait()
        await read_all(stream)

    async with join(reluctant) as (_, accepted):
        stream = await accepted.open(TARGET)
        written = 0

        async def push() -> None:
            nonlocal written
            while True:
                await stream.write(bytes(64 * 1024))
                written += 64 * 1024

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(push(), 0.3)
        # the windows of one stream, its send queue, and what the kernel's buffers took
        assert written <= 256 * 1024 + WRITE_HIGH + 64 * 1024
        reading.set()
        stream.finish()
        assert await read_all(stream) == b""


async def test_a_stalled_stream_does_not_delay_another(join: Join) -> None:
    release = asyncio.Event()

    async def handler(opened: messages.Open, stream: Stream) -> None:
        assert isinstance(opened, messages.Forward)
        if opened.port == 1:
            await release.wait()
        else:
            await echo(opened, stream)

    async with join(handler) as (_, accepted):
        stalled = await accepted.open(messages.Forward(host="h", port=1))
        for _ in range(4):
            await stalled.write(bytes(64 * 1024))
        lively = await accepted.open(TARGET)
        await lively.write(b"quick")
        async with asyncio.timeout(2):
            assert await lively.read() == b"quick"
        lively.close()
        release.set()
        stalled.reset(ResetCode.CANCELLED)


async def test_a_reset_reaches_reader_and_writer(join: Join) -> None:
    async def refuse(_: messages.Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "not here")

    async with join(refuse) as (_, accepted):
        stream = await accepted.open(TARGET)
        with pytest.raises(StreamReset, match="not here") as caught:
            await stream.read()
        assert caught.value.code is ResetCode.REFUSED
        with pytest.raises(StreamReset):
            await stream.write(b"x")


async def test_a_handler_that_fails_resets_its_stream_and_nothing_else(
    join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: messages.Open, stream: Stream) -> None:
        if await stream.read() == b"fail":
            raise ZeroDivisionError
        await stream.write(b"fine")

    async with join(broken) as (_, accepted):
        first, second = await accepted.open(TARGET), await accepted.open(TARGET)
        await first.write(b"fail")
        with pytest.raises(StreamReset) as caught:
            await first.read()
        assert caught.value.code is ResetCode.INTERNAL
        await second.write(b"go")
        assert await second.read() == b"fine"
        second.close()
    assert "ZeroDivisionError" in caplog.text


async def test_records_travel_both_ways(join: Join) -> None:
    async def shout(_: messages.Open, stream: Stream) -> None:
        channel: Channel[record_types.Screen, record_types.Input] = Channel(
            stream, record_types.Input
        )
        while (typed := await channel.receive()) is not None:
            await channel.send(record_types.Screen(data=typed.data.upper()))

    async with join(shout) as (_, accepted):
        stream = await accepted.open(messages.Pty(session="s"))
        channel: Channel[record_types.Input, record_types.Screen] = Channel(
            stream, record_types.Screen
        )
        for word in (b"one", b"two"):
            await channel.send(record_types.Input(data=word))
        assert [await channel.receive(), await channel.receive()] == [
            record_types.Screen(data=b"ONE"),
            record_types.Screen(data=b"TWO"),
        ]
        channel.finish()
        assert await channel.receive() is None


async def test_a_record_of_the_wrong_type_resets_the_stream(join: Join) -> None:
    async def expects_input(_: messages.Open, stream: Stream) -> None:
        await Channel[record_types.Screen, record_types.Input](stream, record_types.Input).receive()

    async with join(expects_input) as (_, accepted):
        channel: Channel[record_types.Cancel, record_types.Screen] = Channel(
            await accepted.open(messages.Pty(session="s")), record_types.Screen
        )
        await channel.send(record_types.Cancel())
        with pytest.raises(StreamReset) as caught:
            await channel.receive()
        assert caught.value.code is ResetCode.PROTOCOL


async def test_fin_inside_a_record_is_a_violation() -> None:
    async def cut_off(_: messages.Open, stream: Stream) -> None:
        await stream.write(b"\x00\x00\x00\x09half")

    async with memory_pair(cut_off) as (_, accepted):
        stream = await accepted.open(messages.Pty(session="s"))
        channel: Channel[record_types.Input, record_types.Screen] = Channel(
            stream, record_types.Screen
        )
        with pytest.raises(RemoteProtocolError, match="inside a record"):
            await channel.receive()


async def test_closing_ends_every_stream_with_the_reason(join: Join) -> None:
    async with join(echo) as (dialled, accepted):
        stream = await accepted.open(TARGET)
        await stream.write(b"x")
        await stream.read()
        await dialled.close(GoAwayCode.SHUTDOWN, "restart", retry_after_s=5.0)
        with pytest.raises(TunnelClosed, match="restart"):
            await stream.read()
        assert accepted.goaway is not None
        assert accepted.goaway.retry_after_s == 5.0
        with pytest.raises(TunnelClosed):
            await accepted.open(TARGET)


async def test_a_stream_that_one_side_abandons_frees_both(join: Join) -> None:
    async def endless(_: messages.Open, stream: Stream) -> None:
        while True:
            await stream.write(bytes(1000))

    async with join(endless) as (dialled, accepted):
        async with await accepted.open(TARGET) as stream:
            await stream.read()
        probe = await accepted.open(TARGET)
        await probe.read()
        assert (accepted.stream_count, dialled.stream_count) == (1, 1)
        probe.reset(ResetCode.CANCELLED)


async def test_ten_thousand_streams_leave_nothing_behind() -> None:
    async with memory_pair(echo, limits=Limits(opens_per_s=1e6)) as (dialled, accepted):
        tasks_before = len(asyncio.all_tasks())
        for _ in range(100):
            streams = [await accepted.open(TARGET) for _ in range(100)]
            for stream in streams:
                await stream.write(b"x")
                stream.finish()
            for stream in streams:
                assert await read_all(stream) == b"x"
        await asyncio.sleep(0)
        assert (dialled.stream_count, accepted.stream_count) == (0, 0)
        assert len(asyncio.all_tasks()) == tasks_before


async def test_more_streams_than_the_peer_takes_are_refused_here() -> None:
    async with memory_pair(echo, limits=Limits(max_streams=3)) as (_, accepted):
        streams = [await accepted.open(TARGET) for _ in range(3)]
        with pytest.raises(LocalProtocolError, match="3 streams"):
            await accepted.open(TARGET)
        streams[0].reset(ResetCode.CANCELLED)
        await accepted.open(TARGET)


async def test_garbage_on_a_websocket_ends_the_tunnel(mesh: Mesh) -> None:
    async with tls_pair(mesh) as (dialled, accepted):
        transport = dialled._transport
        assert transport is not None
        transport.send(b"\xff" * 40)
        assert "protocol violation" in str(await accepted._closed)


async def test_a_refused_upgrade_says_why(mesh: Mesh) -> None:
    tunnel = Tunnel(Side.DIALLED, Hello())
    async with listening(mesh.server, lambda _: Refusal(403, "revoked: ask the admin")) as url:
        with pytest.raises(ConnectRefused, match="revoked: ask the admin") as caught:
            await connect_websocket(tunnel, url, mesh.client)
        assert caught.value.status == 403


async def test_the_hubs_certificate_is_checked_before_a_frame_is_sent(mesh: Mesh) -> None:
    tunnel = Tunnel(Side.DIALLED, Hello())
    accepted = Tunnel(Side.ACCEPTED, Hello(), accepts=ClientOpen)

    def check(der: bytes) -> None:
        assert der
        raise PermissionError("not our hub")

    async with listening(mesh.server, lambda _: accepted) as url:
        with pytest.raises(PermissionError):
            await connect_websocket(tunnel, url, mesh.client, check=check)
    assert accepted.peer is None
    assert tunnel.traffic[0] == 0


async def test_a_handler_that_ignores_the_end_does_not_hold_the_tunnel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("protocol.aio.serving.GRACE_S", 0.05)
    serving = asyncio.Event()

    async def deaf(_: messages.Open, stream: Stream) -> None:
        serving.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(5), memory_pair(deaf) as (_, accepted):
        await accepted.open(TARGET)
        await serving.wait()
    assert "outlived its tunnel" in caplog.text


async def test_crumbs_are_joined_while_they_wait() -> None:
    reading = asyncio.Event()

    async def late(_: messages.Open, stream: Stream) -> None:
        await reading.wait()
        await stream.write(b"%d" % len(await stream.read()))

    async with memory_pair(late) as (_, accepted):
        stream = await accepted.open(TARGET)
        for _ in range(300):
            await stream.write(b"xy")
            await asyncio.sleep(0)
        reading.set()
        assert await stream.read() == b"600"
        stream.close()
