"""Reverse forwards: a client's port on a real node's loopback, and every refusal on the way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from edge_agent.policy import Policy, PolicyFile, default_policy
from hub.forwards import Forwards
from hub.listeners import Listeners
from hub.store.engine import Store
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel
from protocol.messages import Arrival, ClientArrival, ClientListen, Listen, Message, Open
from protocol.record_types import Listening
from tests.hub.test_clients import client, echo, reset_of
from tests.hub.test_forwards import ADMIN
from tests.hub.world import VIEWER, World, make_world, until

LISTEN = ClientListen(listener="mine", node="web-1")
BROKEN = (ConnectionResetError, asyncio.IncompleteReadError)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


def policy_file(path: Path, policy: Policy) -> PolicyFile:
    path.write_bytes(msgspec.json.encode(policy))
    path.chmod(0o600)
    return PolicyFile(path)


@pytest.fixture
def policy(tmp_path: Path) -> PolicyFile:
    return policy_file(tmp_path / "policy.json", default_policy())


async def port_of(stream: Stream) -> int:
    channel: Channel[Message, Listening] = Channel(stream, Listening)
    async with asyncio.timeout(5):
        answer = await channel.receive()
    assert answer is not None
    return answer.port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port of this host, within 5 s for all the block does."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with closing(writer):
            yield reader, writer


async def echoes(port: int) -> None:
    async with connected(port) as (reader, writer):
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"ping"


async def is_shut(port: int) -> None:
    """Wait until nobody listens on the port."""
    async with asyncio.timeout(5):
        while True:
            try:
                async with connected(port):
                    await asyncio.sleep(0)
            except ConnectionError:
                return


async def test_a_connection_to_the_node_comes_out_at_the_client(
    world: World, policy: PolicyFile
) -> None:
    asked: list[Open] = []

    async def arrive(message: Open, stream: Stream) -> None:
        asked.append(message)
        await echo(message, stream)

    async with world.agent("web-1", policy), client(world, arrive=arrive) as (tunnel, forwards, _):
        port = await port_of(await tunnel.open(LISTEN))
        async with connected(port) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            (view,) = forwards.list()
            peer = f"127.0.0.1:{writer.get_extra_info('sockname')[1]}"
            assert [c.peer for c in forwards.get(view.id).open_connections] == [peer]
            writer.write_eof()
            assert await reader.read() == b""
        assert (view.kind, view.node, view.host, view.port) == ("reverse", "web-1", "", None)
        assert (view.bind, view.listen_port, view.connections) == ("127.0.0.1", port, 1)
        assert (view.sent_bytes, view.received_bytes) == (4, 4)
    assert asked == [ClientArrival(listener="mine", peer=peer)]
    assert forwards.list() == []


async def test_the_port_lives_as_long_as_the_clients_stream(
    world: World, policy: PolicyFile
) -> None:
    async with world.agent("web-1", policy), client(world, arrive=echo) as (tunnel, forwards, _):
        stream = await tunnel.open(LISTEN)
        port = await port_of(stream)
        async with connected(port) as (reader, writer):
            writer.write(b"a")
            assert await reader.readexactly(1) == b"a"
            stream.finish()
            await is_shut(port)
            writer.write(b"b")
            assert await reader.readexactly(1) == b"b"
            assert len(forwards.list()) == 1
        await until(lambda: forwards.list() == [])


async def test_the_port_ends_with_the_clients_tunnel(world: World, policy: PolicyFile) -> None:
    async with world.agent("web-1", policy):
        async with client(world, arrive=echo) as (tunnel, _, _):
            port = await port_of(await tunnel.open(LISTEN))
            await echoes(port)
        await is_shut(port)


async def test_a_node_that_goes_away_makes_its_listeners_unreachable(
    world: World, policy: PolicyFile
) -> None:
    async with client(world, arrive=echo) as (tunnel, forwards, _):
        async with world.agent("web-1", policy):
            stream = await tunnel.open(LISTEN)
            await port_of(stream)
        assert (await reset_of(stream)).code is ResetCode.UNREACHABLE
        assert (await reset_of(await tunnel.open(LISTEN))).code is ResetCode.UNREACHABLE
        await until(lambda: forwards.list() == [])
        async with world.agent("web-1", policy):
            await echoes(await port_of(await tunnel.open(LISTEN)))


async def test_a_closed_reverse_forward_shuts_the_port_and_stays_closed(
    world: World, policy: PolicyFile
) -> None:
    async with world.agent("web-1", policy), client(world, arrive=echo) as (tunnel, forwards, _):
        stream = await tunnel.open(LISTEN)
        port = await port_of(stream)
        async with connected(port) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            (view,) = forwards.list()
            await forwards.close(ADMIN, view.id)
            with pytest.raises(BROKEN):
                await reader.readexactly(1)
        for refused in (stream, await tunnel.open(LISTEN)):
            reset = await reset_of(refused)
            assert (reset.code, reset.reason) == (
                ResetCode.REFUSED,
                "the forward was closed by anna",
            )
        await is_shut(port)


async def test_the_nodes_policy_and_the_users_role_are_asked(
    world: World, policy: PolicyFile
) -> None:
    async with world.agent("web-1", policy):
        async with client(world, arrive=echo) as (tunnel, forwards, _):
            reset = await reset_of(
                await tunnel.open(msgspec.structs.replace(LISTEN, bind="0.0.0.0", port=8080))
            )
            assert reset.code is ResetCode.REFUSED
            assert "policy.json" in reset.reason
            await until(lambda: forwards.list() == [])
        async with client(world, VIEWER, echo) as (tunnel, _, _):
            assert (await reset_of(await tunnel.open(LISTEN))).code is ResetCode.REFUSED
    entries = (await world.audit.entries(9)).entries
    assert [e.subject for e in entries if e.outcome == "denied"] == ["vera", "olga"]


async def test_a_taken_port_and_a_bad_address_are_told_in_words(
    world: World, policy: PolicyFile
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with world.agent("web-1", policy), client(world, arrive=echo) as (tunnel, _, _):
            reset = await reset_of(await tunnel.open(msgspec.structs.replace(LISTEN, port=port)))
            assert reset.code is ResetCode.UNREACHABLE
            assert "Address already in use" in reset.reason
            bad = msgspec.structs.replace(LISTEN, bind="web\n1")
            assert (await reset_of(await tunnel.open(bad))).code is ResetCode.REFUSED


async def test_a_client_that_takes_no_arrival_resets_who_connected(
    world: World, policy: PolicyFile
) -> None:
    async with world.agent("web-1", policy), client(world) as (tunnel, _, _):
        port = await port_of(await tunnel.open(LISTEN))
        async with connected(port) as (reader, _):
            with pytest.raises(BROKEN):
                await reader.readexactly(1)


class Lying:
    """A node that takes listeners, opens no port, and arrives with whatever name it likes."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def __call__(self, opening: Open, stream: Stream) -> None:
        assert isinstance(opening, Listen)
        self.names.append(opening.listener)
        answer: Channel[Listening, Message] = Channel(stream, Message)
        await answer.send(Listening(port=1))
        await stream.read()


async def arrival_refused(node_end: Tunnel, listener: str) -> ResetCode:
    stream = await node_end.open(Arrival(listener=listener, peer="x"))
    with pytest.raises(StreamReset) as caught:
        async with asyncio.timeout(5):
            await stream.read()
    return caught.value.code


async def test_a_node_arrives_on_its_own_open_listeners_only(world: World) -> None:
    honest, other = Lying(), Lying()
    async with (
        world.connected("web-1", honest),
        world.connected("web-2", other),
        client(world, arrive=echo) as (tunnel, _, _),
    ):
        listening = await tunnel.open(LISTEN)
        await port_of(listening)
        (name,) = honest.names
        assert await arrival_refused(world.ends["web-1"], "mine") is ResetCode.NOT_FOUND
        assert await arrival_refused(world.ends["web-2"], name) is ResetCode.NOT_FOUND
        own = await world.ends["web-1"].open(Arrival(listener=name, peer="\x1b[31mx"))
        await own.write(b"ping")
        async with asyncio.timeout(5):
            assert await own.read() == b"ping"
            listening.finish()
            assert await listening.read() == b""
        assert await arrival_refused(world.ends["web-1"], name) is ResetCode.NOT_FOUND


async def test_what_a_node_says_of_who_connected_is_made_printable(world: World) -> None:
    node = Lying()
    told: list[Open] = []

    async def arrive(message: Open, stream: Stream) -> None:
        told.append(message)
        await echo(message, stream)

    async with world.connected("web-1", node), client(world, arrive=arrive) as (tunnel, _, _):
        await port_of(await tunnel.open(LISTEN))
        stream = await world.ends["web-1"].open(
            Arrival(listener=node.names[0], peer="\x1b[3\u202ex")
        )
        async with asyncio.timeout(5):
            await stream.write(b"ping")
            assert await stream.read() == b"ping"
    assert told == [ClientArrival(listener="mine", peer="[3x")]


@pytest.mark.parametrize("how", ["silent", "end", "nonsense"])
async def test_a_node_that_does_not_answer_as_it_should_is_given_up(world: World, how: str) -> None:
    async def node(_opening: Open, stream: Stream) -> None:
        if how == "silent":
            await stream.read()
        elif how == "nonsense":
            await stream.write(b"\x00\x00\x00\x01\xc0")

    world.listeners = Listeners(world.registry, _answer_s=0.05)
    async with world.connected("web-1", node), client(world, arrive=echo) as (tunnel, forwards, _):
        reset = await reset_of(await tunnel.open(LISTEN))
        expected = {"silent": "TIMEOUT", "end": "INTERNAL", "nonsense": "PROTOCOL"}
        assert reset.code.name == expected[how]
        await until(lambda: forwards.list() == [])


async def test_rights_are_asked_again_for_each_connection(world: World, policy: PolicyFile) -> None:
    async with world.agent("web-1", policy), client(world, arrive=echo) as (tunnel, forwards, _):
        port = await port_of(await tunnel.open(LISTEN))
        await echoes(port)
        lose_rights(forwards)
        async with connected(port) as (reader, _):
            with pytest.raises(BROKEN):
                await reader.readexactly(1)


def lose_rights(forwards: Forwards) -> None:
    """Let the one open forward belong to a viewer from now on."""
    (forward,) = forwards._open.values()
    forward.subject = VIEWER
