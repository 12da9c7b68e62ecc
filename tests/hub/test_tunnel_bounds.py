"""Hostile peers over real TLS WebSockets against the hub: what they get, while others go on."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from hub import address_limits, client_tunnels
from hub.address_limits import AddressLimits, TooManyFromAddress
from hub.core import Hub
from protocol import frames, liveness
from protocol.aio import ResetCode, Stream, Tunnel, TunnelClosed
from protocol.aio import stream as stream_module
from protocol.aio import tunnel as tunnel_module
from protocol.aio import websocket as websocket_module
from protocol.counts import Death, Flood
from protocol.errors import GoAwayCode
from protocol.frames import Class
from protocol.messages import ClientForward, Facts, Forward, Metrics, Open, Report
from protocol.windows import INITIAL_WINDOW
from tests.hub.hostile import Port, open_port, undisturbed

REPORT = frames._ENCODER.encode(Report(facts=Facts(hostname="x")))
MIB = 1024 * 1024
METRICS = frames._ENCODER.encode(Metrics())


@pytest.fixture
async def port(hub: Hub, tmp_path: Path) -> AsyncIterator[Port]:
    async with asyncio.timeout(60), open_port(hub, tmp_path) as port:
        yield port


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tunnels look at their clocks ten times a second."""
    monkeypatch.setattr(liveness, "PING_INTERVAL_S", 0.1)


def tunnel_of(port: Port, node_id: str) -> Tunnel:
    return port.hub.registry._tunnels[node_id]


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.005)


def repeated(message: bytes | bytearray, count: int = 5000) -> Iterator[bytes | bytearray]:
    return iter([message] * count)


def opens() -> Iterator[bytes | bytearray]:
    for number in range(20_000):  # each one taken replaces another, which allows 16 strays more
        yield frames.open_stream(1 + 2 * number, Class.METRICS, METRICS)


def crumbs() -> Iterator[bytes | bytearray]:
    yield frames.open_stream(1, Class.METRICS, METRICS)
    yield from repeated(frames.window(1, 1))


def late_resets() -> Iterator[bytes | bytearray]:
    yield frames.open_stream(1, Class.METRICS, METRICS)
    yield from repeated(frames.reset(1, ResetCode.CANCELLED, "x" * 500))


def nothings() -> Iterator[bytes | bytearray]:
    yield frames.open_stream(1, Class.METRICS, METRICS)
    yield from repeated(frames.data(1, Class.METRICS, b""))


@pytest.mark.parametrize(
    ("hostile", "kind"),
    [
        (opens, Flood.STRAYS),
        (lambda: repeated(frames.ping(bytes(8))), Flood.PINGS),
        (lambda: repeated(frames.pong(bytes(8))), Flood.STRAYS),
        (crumbs, Flood.WINDOWS),
        (late_resets, Flood.STRAYS),
        (nothings, Flood.STRAYS),
    ],
    ids=["opens", "pings", "pongs", "windows", "resets", "empty-data"],
)
async def test_a_flood_ends_its_own_tunnel_only(
    port: Port, hostile: Callable[[], Iterator[bytes | bytearray]], kind: Flood
) -> None:
    async with undisturbed(port) as echo, port.hostile_agent() as (node_id, peer):
        for message in hostile():
            peer.send(message)
        assert await echo.answers()
        _, goaway = await peer.told()
        assert goaway is GoAwayCode.FLOOD
        await until(lambda: not port.hub.registry.is_online(node_id))
    counts = port.hub.tunnels.agents
    # Who opens and does not read may meet the bound on what waits for it first.
    assert counts.floods[kind] + (hostile is opens) * counts.floods[Flood.UNREAD] == 1
    assert counts.violations == {GoAwayCode.FLOOD: 1}


async def test_pings_of_the_carrier_are_a_flood_too(port: Port) -> None:
    async with undisturbed(port) as echo, port.hostile_agent() as (_, peer):
        for _ in range(5000):
            peer.ping_websocket()
        assert await echo.answers()
        assert (await peer.told())[1] is GoAwayCode.FLOOD


async def test_who_ignores_credit_loses_a_stream_and_then_the_tunnel(port: Port) -> None:
    async with undisturbed(port) as echo, port.hostile_agent() as (_, peer):
        peer.send(frames.open_stream(1, Class.CALL, REPORT))
        peer.send(frames.open_stream(3, Class.CALL, REPORT))
        for _ in range(2):
            for stream in (1, 3):
                peer.send(frames.data(stream, Class.CALL, bytes(frames.MAX_PAYLOAD)))
        assert await echo.answers()
        resets, goaway = await peer.told()
        assert resets == [ResetCode.FLOW_CONTROL]
        assert goaway is GoAwayCode.FLOW_CONTROL
    assert port.hub.tunnels.agents.overruns == 2


async def test_garbage_after_hello_gets_goaway(port: Port) -> None:
    async with undisturbed(port), port.hostile_agent() as (_, peer):
        peer.send(b"\xff" * 4000)
        assert (await peer.told())[1] is GoAwayCode.PROTOCOL
    assert port.hub.tunnels.agents.violations == {GoAwayCode.PROTOCOL: 1}


async def test_a_message_longer_than_a_frame_ends_the_connection(port: Port) -> None:
    async with undisturbed(port), port.hostile_agent() as (node_id, peer):
        peer.send(bytes(8 * MIB))
        assert await peer.told() == ([], None)
        await until(lambda: not port.hub.registry.is_online(node_id))


async def test_hello_and_nothing_more_is_cut_as_silent(
    port: Port, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "DEAD_AFTER_S", 0.5)
    async with undisturbed(port), port.hostile_agent() as (_, peer):
        assert await peer.told() == ([], None)
    assert port.hub.tunnels.agents.deaths == {Death.SILENT: 1}


async def test_an_upgrade_and_no_hello_is_cut(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    async with undisturbed(port):
        monkeypatch.setattr(liveness, "HELLO_TIMEOUT_S", 0.2)
        async with port.hostile_agent(hello=False) as (_, peer):
            assert await peer.told() == ([], None)
    assert port.hub.tunnels.agents.deaths == {Death.NO_HELLO: 1}


async def test_who_never_reads_is_cut_though_it_sends(
    port: Port, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_module, "UNREAD_TIMEOUT_S", 0.5)
    async with undisturbed(port) as echo, port.hostile_agent() as (node_id, peer):
        tunnel = tunnel_of(port, node_id)
        stream = await tunnel.open(Forward(host="localhost", port=7))
        peer.send(frames.window(stream.id, 2**30))

        async def push() -> None:
            while True:
                await stream.write(bytes(64 * 1024))

        with pytest.raises(BaseExceptionGroup):  # the stream ends with its tunnel
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(push())
                while not tunnel.closed:
                    peer.send(frames.ping(bytes(8)))
                    assert (tunnel._session.pending(stream.id) or 0) <= 320 * 1024
                    assert await echo.answers()
                    await asyncio.sleep(0.06)
        await until(lambda: not port.hub.registry.is_online(node_id))
    assert port.hub.tunnels.agents.deaths == {Death.UNREAD: 1}


async def test_the_kernel_cuts_who_never_reads_too(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with undisturbed(port) as echo:
        monkeypatch.setattr(websocket_module, "USER_TIMEOUT_MS", 300)
        async with port.hostile_agent() as (node_id, peer):
            tunnel = tunnel_of(port, node_id)
            stream = await tunnel.open(Forward(host="localhost", port=7))
            peer.send(frames.window(stream.id, 2**30))
            async with asyncio.timeout(20):
                with pytest.raises(TunnelClosed):
                    while await echo.answers():
                        await stream.write(bytes(32 * 1024))
                        await asyncio.sleep(0.01)
            assert tunnel.closed
    assert not port.hub.tunnels.agents.deaths


async def test_half_closed_streams_do_not_stay(port: Port) -> None:
    async with undisturbed(port) as echo, port.hostile_agent() as (node_id, peer):
        for number in range(256):
            stream = 1 + 2 * number
            peer.send(frames.open_stream(stream, Class.METRICS, METRICS))
            peer.send(frames.data(stream, Class.METRICS, b"", fin=True))
        tunnel = tunnel_of(port, node_id)
        await until(lambda: tunnel._session._streams.highest_peer_id == 511)
        await until(lambda: tunnel.stream_count == 0 and not tunnel._serving.tasks)
        assert await echo.answers()


async def test_streams_that_the_hub_is_done_with_do_not_stay(
    port: Port, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "HALF_DONE_S", 0.3)
    async with undisturbed(port), port.hostile_agent() as (node_id, peer):
        for number in range(16):
            peer.send(frames.open_stream(1 + 2 * number, Class.CALL, REPORT))
            peer.send(frames.data(1 + 2 * number, Class.CALL, bytes(INITIAL_WINDOW)))
        counts, tunnel = port.hub.tunnels.agents, tunnel_of(port, node_id)
        await until(lambda: counts.resets_sent[ResetCode.TIMEOUT] == 16)
        assert tunnel.stream_count == 0
        assert tunnel.holding.held == 0


async def test_a_record_that_never_ends_is_reset(
    port: Port, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.aio.channel.HALF_DONE_S", 0.2)
    async with undisturbed(port), port.hostile_agent() as (_, peer):
        peer.send(frames.open_stream(1, Class.METRICS, METRICS))
        peer.send(frames.data(1, Class.METRICS, b"\x00\x03\xff\xff" + bytes(1000)))
        counts = port.hub.tunnels.agents
        await until(lambda: counts.resets_sent[ResetCode.TIMEOUT] == 1)


async def test_a_slow_upgrade_is_cut(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_module, "UPGRADE_TIMEOUT_S", 0.3)
    _, context = await port.join()
    async with undisturbed(port), port.connection(context) as peer:
        peer.writer.write(b"GET /tunnel HTTP/1.1\r\n")

        async def trickle() -> None:
            while True:
                peer.writer.write(b"X")
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as tasks:
            trickling = tasks.create_task(trickle())
            assert await peer.told() == ([], None)
            trickling.cancel()


async def test_an_endless_upgrade_is_cut(port: Port) -> None:
    _, context = await port.join()
    async with undisturbed(port), port.connection(context) as peer:
        peer.writer.write(b"GET /tunnel HTTP/1.1\r\nX: " + b"x" * MIB)
        assert await peer.told() == ([], None)


async def test_one_address_cannot_take_every_place(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_limits, "PER_ADDRESS", 3)
    async with undisturbed(port):
        async with AsyncExitStack() as stack:
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", port.number)
                stack.callback(writer.close)
            await until(lambda: port.hub.addresses._inside[None, "127.0.0.1"] == 3)
            reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
            stack.callback(writer.close)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
        assert port.hub.addresses.refused.value == 1
        await until(lambda: len(port.hub.addresses) == 0)


def test_agents_of_a_site_do_not_take_the_places_of_its_people() -> None:
    limits = AddressLimits(1)
    with limits.entering("192.0.2.7", "agents"), limits.entering("192.0.2.7", "people"):
        with pytest.raises(TooManyFromAddress), limits.entering("192.0.2.7", "agents"):
            pass
    assert len(limits) == 0


def test_a_site_is_one_address() -> None:
    limits = AddressLimits()
    with ExitStack() as inside:
        for address in ["2001:db8::1", "2001:db8::ffff:1"] * (address_limits.PER_ADDRESS // 2):
            inside.enter_context(limits.entering(address))
        for address in ("2001:db8:0:0:5::", "2001:db8::1%eth0"):
            with pytest.raises(TooManyFromAddress, match="from 2001:db8::/64"):
                inside.enter_context(limits.entering(address))
        for other in ("2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1", "", "not an address"):
            with limits.entering(other):
                pass
    assert len(limits) == 0


async def test_a_user_has_a_bounded_number_of_tunnels(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_tunnels, "TUNNELS_PER_USER", 2)
    async with AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(port.client()) for _ in range(3)]
        closed = await third.wait_closed()
        assert "2 tunnels open" in str(closed)
        assert not first.closed
        assert not second.closed
    async with port.client() as again:
        await asyncio.sleep(0)
        assert not again.closed


async def test_stalled_readers_cost_no_more_than_the_budget(port: Port) -> None:
    """The small form of B11: the budget is lowered to 2 MiB, all three ends are in this process."""
    budget, readers = port.hub.tunnels.budget, 48
    budget.limit = budget.holdings.limit = 2 * MIB
    stop = asyncio.Event()

    async def source(_: Open, stream: Stream) -> None:
        while not stop.is_set():
            await stream.write(bytes(16 * 1024))

    async with undisturbed(port) as echo, port.agent(source), port.client() as client:
        name = port.hub.nodes.name_of(port.nodes[-1])
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        streams = []
        for _ in range(readers):
            opened = ClientForward(node=name, host="localhost", port=7)
            streams.append(await client.open(opened))
        totals = port.hub.tunnels
        await until(lambda: totals.agents.sheds > 0)
        await until(lambda: totals.clients.streams_stalled == totals.clients.streams_open > 0)
        assert await echo.answers()
        assert budget.used <= budget.limit
        assert budget.holdings.held <= budget.limit
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        # the windows at the client, the queues of both senders, and what the hub holds
        assert grown < readers * (INITIAL_WINDOW + 2 * 320 * 1024) + budget.limit + 8 * MIB
        stop.set()
        for stream in streams:
            stream.reset(ResetCode.CANCELLED)
