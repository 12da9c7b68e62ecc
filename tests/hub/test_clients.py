"""What a client's tunnel opens, through the hub, on a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hub.authz import Subject
from hub.clients import Clients
from hub.forwards import Forwards
from hub.shells import Shells
from hub.store.engine import Store
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import (
    ClientForward,
    ClientOpen,
    ClientShell,
    Exited,
    Forward,
    Input,
    Open,
    PtyFromHub,
    PtyFromNode,
    Resize,
    Screen,
)
from tests.hub.test_shells import Terminals, shells_of
from tests.hub.world import OPERATOR, VIEWER, World, make_world

FORWARD = ClientForward(node="web-1", host="127.0.0.1", port=22)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


@asynccontextmanager
async def client(
    world: World, subject: Subject = OPERATOR
) -> AsyncIterator[tuple[Tunnel, Forwards, Shells]]:
    forwards, shells = Forwards(world.audit), shells_of(world)
    clients = Clients(
        world.registry,
        world.nodes,
        forwards,
        shells,
    )
    handler = clients.handler_for(subject)
    async with memory_pair(None, handler, accepted_accepts=ClientOpen) as (tunnel, _):
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
