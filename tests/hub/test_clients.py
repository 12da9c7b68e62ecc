"""What a client's tunnel opens, through the hub, on a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from hub.authz import Subject
from hub.client_forwards import PER_TUNNEL, Services
from hub.clients import Clients
from hub.forwards import Forwards
from hub.shells import Shells
from hub.store.engine import Store
from protocol.aio import Channel, Handler, ResetCode, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import ClientForward, ClientOpen, ClientShell, Forward, HubOpenAtClient, Open
from protocol.record_types import Exited, Input, PtyFromHub, PtyFromNode, Resize, Screen
from tests.hub.test_shells import Terminals, shells_of
from tests.hub.world import OPERATOR, VIEWER, World, make_world, until

FORWARD = ClientForward(node="web-1", host="127.0.0.1", port=22)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


@asynccontextmanager
async def client(
    world: World, subject: Subject = OPERATOR, arrive: Handler | None = None
) -> AsyncIterator[tuple[Tunnel, Forwards, Shells]]:
    """A client's tunnel, whose `arrive` serves what comes in on its listeners."""
    forwards, shells = Forwards(world.audit, world.nodes.name_of), shells_of(world)
    services = Services(world.registry, world.nodes, forwards, world.listeners)
    clients = Clients(services, shells)

    async def handle(message: Open, stream: Stream) -> None:
        await handler(message, stream)

    async with (
        memory_pair(
            arrive, handle, dialled_accepts=HubOpenAtClient, accepted_accepts=ClientOpen
        ) as (tunnel, hub_end),
        clients.serving(subject, hub_end) as handler,
    ):
        yield tunnel, forwards, shells


async def reset_of(stream: Stream) -> StreamReset:
    with pytest.raises(StreamReset) as caught:
        async with asyncio.timeout(5):
            await stream.read()
    return caught.value


async def test_a_forward_reaches_the_node_and_is_listed(world: World) -> None:
    asked: list[Forward] = []

    async def echo(message: Open, stream: Stream) -> None:
        assert isinstance(message, Forward)
        asked.append(message)
        while data := await stream.read():
            await stream.write(data)

    async with world.connected("web-1", echo), client(world) as (tunnel, forwards, _):
        stream = await tunnel.open(FORWARD)
        await stream.write(b"ping")
        async with asyncio.timeout(5):
            assert await stream.read() == b"ping"
            (view,) = forwards.list()
            assert (view.sent_bytes, view.received_bytes) == (4, 4)
            stream.finish()
            assert await stream.read() == b""
            await until(lambda: forwards.list()[0].connections == 0)
            assert forwards.list()[0].connections_total == 1
    assert asked == [Forward(host="127.0.0.1", port=22, subject="olga")]
    assert forwards.list() == []
    assert [entry.act for entry in (await world.audit.entries(5)).entries] == [
        "forward.close",
        "forward.open",
    ]


async def test_the_nodes_refusal_reaches_the_client(world: World) -> None:
    async def refuse(_message: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "policy: only this host")

    async with world.connected("web-1", refuse), client(world) as (tunnel, _, _):
        reset = await reset_of(await tunnel.open(FORWARD))
    assert (reset.code, reset.reason) == (ResetCode.REFUSED, "policy: only this host")
    entries = (await world.audit.entries(5)).entries
    denied = [entry for entry in entries if entry.outcome == "denied"]
    assert [entry.detail["reason"] for entry in denied] == ["policy: only this host"]


async def echo(_message: Open, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def answered(tunnel: Tunnel, message: ClientForward) -> Stream:
    """Open a forward and see a byte come back."""
    stream = await tunnel.open(message)
    await stream.write(b"x")
    assert await stream.read() == b"x"
    return stream


async def test_connections_of_a_tunnel_to_one_place_are_one_forward(world: World) -> None:
    ssh = ClientForward(node="web-1", host="127.0.0.1", port=22, via="ssh-proxy")
    socks = [ClientForward(node="web-1", host="db", port=port, via="socks") for port in (1, 2)]
    async with world.connected("web-1", echo), client(world) as (tunnel, forwards, _):
        async with asyncio.timeout(5):
            for message in (FORWARD, FORWARD, ssh, *socks):
                await answered(tunnel, message)
        views = {view.kind: view for view in forwards.list()}
        assert {kind: view.connections for kind, view in views.items()} == {
            "local": 2,
            "ssh-proxy": 1,
            "socks": 2,
        }
        assert (views["socks"].host, views["socks"].port) == ("", None)
        detail = forwards.get(views["socks"].id)
        assert [(c.host, c.port) for c in detail.open_connections] == [("db", 1), ("db", 2)]
    assert forwards.list() == []


async def test_a_closed_forward_stays_closed_for_its_tunnel_and_no_other(world: World) -> None:
    async with world.connected("web-1", echo), client(world) as (tunnel, forwards, _):
        async with asyncio.timeout(5):
            stream = await answered(tunnel, FORWARD)
            (view,) = forwards.list()
            await forwards.close(OPERATOR, view.id)
            for refused in (stream, await tunnel.open(FORWARD)):
                reset = await reset_of(refused)
                assert reset.code is ResetCode.REFUSED
                assert reset.reason == "the forward was closed by olga"
            await answered(tunnel, msgspec.structs.replace(FORWARD, port=23))
            async with client(world) as (other, _, _):
                await answered(other, FORWARD)


async def test_a_tunnel_keeps_a_bounded_number_of_forwards(world: World) -> None:
    async with world.connected("web-1", echo), client(world) as (tunnel, forwards, _):
        async with asyncio.timeout(60):
            busy = await answered(tunnel, FORWARD)
            for port in range(1000, 1000 + PER_TUNNEL):
                message = msgspec.structs.replace(FORWARD, port=port)
                (await answered(tunnel, message)).reset(ResetCode.CANCELLED)
            views = forwards.list()
            assert len(views) == PER_TUNNEL
            assert (views[0].port, views[0].connections) == (FORWARD.port, 1)
            await busy.write(b"y")
            assert await busy.read() == b"y"


@pytest.mark.parametrize("host", ["", "a b", "web\n1", "\x1b[31m", "<script>", "a" * 254, "a\0"])
async def test_a_host_that_is_none_never_reaches_a_node(world: World, host: str) -> None:
    async def never(message: Open, _stream: Stream) -> None:
        raise AssertionError(message)

    async with world.connected("web-1", never), client(world) as (tunnel, forwards, _):
        message = msgspec.structs.replace(FORWARD, host=host)
        assert (await reset_of(await tunnel.open(message))).code is ResetCode.REFUSED
        assert forwards.list() == []


async def test_what_the_hub_refuses_is_a_reset_with_its_code(world: World) -> None:
    async with client(world) as (tunnel, _, _):
        assert (await reset_of(await tunnel.open(FORWARD))).code is ResetCode.NOT_FOUND
        await world.add_node("web-1")
        assert (await reset_of(await tunnel.open(FORWARD))).code is ResetCode.UNREACHABLE
        shell = await tunnel.open(ClientShell(node="web-1"))
        assert (await reset_of(shell)).code is ResetCode.UNREACHABLE
    async with client(world, VIEWER) as (tunnel, _, _):
        assert (await reset_of(await tunnel.open(FORWARD))).code is ResetCode.REFUSED
        shell = await tunnel.open(ClientShell(node="web-1"))
        assert (await reset_of(shell)).code is ResetCode.REFUSED


async def test_a_shell_passes_records_and_its_exit(world: World) -> None:
    async with world.connected("web-1", Terminals()), client(world) as (tunnel, _, shells):
        stream = await tunnel.open(ClientShell(node="web-1", term="vt100", rows=5, columns=9))
        channel: Channel[PtyFromHub, PtyFromNode] = Channel(stream, PtyFromNode)
        async with asyncio.timeout(5):
            await channel.send(Resize(rows=6, columns=10))
            await channel.send(Input(data=b"hi"))
            assert await channel.receive() == Screen(data=b"hi")
            await channel.send(Input(data=b"q"))
            assert await channel.receive() == Exited(exit_code=3)
            assert await channel.receive() is None
    (session,), _, _ = await shells.page(5, None)
    assert (session.origin, session.exit_code) == ("client", 3)


async def test_a_killed_shell_reaches_a_client_that_reads_nothing(world: World) -> None:
    async def flood(_message: Open, stream: Stream) -> None:
        channel: Channel[PtyFromNode, PtyFromHub] = Channel(stream, PtyFromHub)
        while True:
            await channel.send(Screen(data=bytes(32_768)))

    async with world.connected("web-1", flood), client(world) as (tunnel, _, shells):
        stream = await tunnel.open(ClientShell(node="web-1"))
        async with asyncio.timeout(10):
            await stream.read(1)
            (session,), _, _ = await shells.page(5, None)
            await shells.kill(OPERATOR, session.id)
            with pytest.raises(StreamReset, match="ended by olga"):
                while await stream.read():
                    pass


async def test_a_client_that_leaves_ends_its_shell(world: World) -> None:
    node = Terminals()
    async with world.connected("web-1", node):
        async with client(world) as (tunnel, _, shells):
            stream = await tunnel.open(ClientShell(node="web-1"))
            channel: Channel[PtyFromHub, PtyFromNode] = Channel(stream, PtyFromNode)
            async with asyncio.timeout(5):
                await channel.send(Input(data=b"hi"))
                await channel.receive()
        async with asyncio.timeout(5):
            assert (await node.resets.get()).code is ResetCode.CANCELLED
    (session,), _, _ = await shells.page(5, None)
    assert session.reason.startswith("the client left")
