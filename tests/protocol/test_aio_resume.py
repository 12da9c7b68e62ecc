"""Tunnels that lose their connection: streams wait, go on where they were, or end in time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from protocol import liveness, messages
from protocol.aio import Stream, Tunnel, TunnelClosed
from protocol.aio import tunnel as tunnel_module
from protocol.aio.memory import MemoryTransport, join, memory_pair
from protocol.aio.websocket import Refusal, Request, connect_websocket
from protocol.errors import GoAwayCode
from protocol.frames import Hello
from protocol.messages import AgentOpen, HubOpen
from protocol.session import Side
from tests.e2e.mesh import wait_for
from tests.protocol.test_aio import Mesh, echo, listening, mesh
from tests.protocol.test_hostile_shell import until
from tests.relay import Relay

__all__ = ["mesh"]
FORWARD = messages.Forward(host="localhost", port=80)
pytestmark = pytest.mark.anyio


async def exchange(stream: Stream, data: bytes) -> bytes:
    """What an echoing peer answers."""
    await stream.write(data)
    answer = b""
    while len(answer) < len(data):
        answer += await stream.read()
    return answer


async def test_a_stream_goes_on_over_another_connection() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        async with await hub.open(FORWARD) as stream:
            assert await exchange(stream, b"before") == b"before"
            connection = join(agent, hub)
            for _ in range(5):
                connection.abort()
                assert not hub.is_connected and not hub.closed
                pending = asyncio.ensure_future(exchange(stream, bytes(300_000)))  # noqa: TID251
                connection = join(agent, hub)
                assert await pending == bytes(300_000)


async def test_frames_that_were_on_their_way_arrive_once() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        stream = await hub.open(FORWARD)
        sent = b"".join(bytes([number]) * 10_000 for number in range(50))
        reading = asyncio.ensure_future(read_exactly(stream, len(sent)))  # noqa: TID251
        connection = join(agent, hub)
        for number in range(50):
            await stream.write(sent[number * 10_000 : (number + 1) * 10_000])
            if number % 7 == 3:
                await asyncio.sleep(0)
                connection.abort()
                connection = join(agent, hub)
        assert await reading == sent


async def read_exactly(stream: Stream, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        parts += await stream.read()
    return parts


async def test_without_another_connection_it_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnel_module, "RESUME_WITHIN_S", 0.01)
    async with memory_pair(echo, resume=True) as (agent, hub):
        stream = await hub.open(FORWARD)
        join(agent, hub).abort()
        with pytest.raises(TunnelClosed):
            await stream.read()
        assert str(await agent.wait_closed())


async def test_one_that_never_had_a_connection_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnel_module, "RESUME_WITHIN_S", 0.01)
    never = Tunnel(Side.ACCEPTED, Hello(), resume=secrets.token_bytes(32))
    async with asyncio.timeout(5):
        assert "never" in str(await never.run())


async def test_a_tunnel_that_is_over_takes_no_connection() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        await hub.close()
        connection = join(agent, hub)
        assert not agent.carried_by(connection) and not hub.is_connected


async def test_a_goodbye_is_for_good() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        await hub.close(GoAwayCode.SHUTDOWN, "the hub is stopping")
        assert agent.resume_by == hub.resume_by == b""
        assert "stopping" in str(await agent.wait_closed())


async def test_whoever_dials_learns_that_the_connection_went_before_the_greeting() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        join(agent, hub).abort()
        connection = MemoryTransport(agent, hub)  # leads nowhere
        agent.attach(connection)
        waiting = asyncio.ensure_future(agent.greeted())  # noqa: TID251
        await asyncio.sleep(0)
        assert not waiting.done()
        agent.lost(connection)
        assert not await waiting and not agent.closed
        join(agent, hub)
        assert await agent.greeted() and await hub.greeted()


async def test_while_it_waits_it_can_be_closed() -> None:
    async with memory_pair(echo, resume=True) as (agent, hub):
        stream = await hub.open(FORWARD)
        join(agent, hub).abort()
        await hub.close(reason="no longer wanted")
        with pytest.raises(TunnelClosed):
            await stream.read()


@asynccontextmanager
async def real_pair(mesh: Mesh) -> AsyncIterator[tuple[Tunnel, Tunnel, str]]:
    """An agent's and a hub's tunnel over TLS, and the address that resumes the hub's."""
    agent = Tunnel(Side.DIALLED, Hello(), echo, accepts=HubOpen, resume=b"")
    hub = Tunnel(Side.ACCEPTED, Hello(), accepts=AgentOpen, resume=secrets.token_bytes(32))
    asked = []

    def route(request: Request) -> Tunnel | Refusal:
        asked.append(request.resume)
        if request.resume and request.resume != hub.resume_by:
            return Refusal(503, "a stranger")
        return hub

    async with listening(mesh.server, route) as url, asyncio.TaskGroup() as tasks:
        tasks.create_task(agent.run())
        tasks.create_task(hub.run())
        assert await connect_websocket(agent, url, mesh.client) is agent
        await hub.ready(), await agent.ready()
        try:
            yield agent, hub, url
        finally:
            await agent.close()
            await hub.close()


async def test_the_dialler_goes_on_with_the_session_that_it_names(mesh: Mesh) -> None:
    async with real_pair(mesh) as (agent, hub, url):
        stream = await hub.open(FORWARD)
        assert await exchange(stream, b"before") == b"before"
        fresh = Tunnel(Side.DIALLED, Hello(), echo, accepts=HubOpen, resume=b"")
        # The hub has not noticed anything: the new connection replaces the old one.
        attached = await connect_websocket(fresh, url, mesh.client, previous=agent)
        assert attached is agent
        assert await exchange(stream, bytes(500_000)) == bytes(500_000)
        assert agent.is_connected and hub.is_connected


async def test_the_dialler_notices_a_reset_that_came_behind_data(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are there when it looks, and it has nothing to send that would fail."""
    monkeypatch.setattr(liveness, "EARLY_PINGS", 1)
    ignored = bytes.fromhex("7f80000000000000")
    hub = Tunnel(Side.ACCEPTED, Hello(), accepts=AgentOpen)
    agent = Tunnel(Side.DIALLED, Hello(), accepts=HubOpen)
    async with listening(mesh.server, lambda _: hub) as url, asyncio.TaskGroup() as tasks:
        relay = Relay(urlsplit(url).port or 0)
        tasks.create_task(agent.run()), tasks.create_task(hub.run())
        await connect_websocket(agent, f"wss://127.0.0.1:{relay.port}/tunnel", mesh.client)
        await until(lambda: agent.rtt_s is not None and hub.rtt_s is not None)
        assert hub._transport is not None
        for _ in range(2):  # the first was passed on when the second came
            carried = relay.carried
            hub._transport.send(ignored)
            wait_for(lambda: relay.carried > carried)  # noqa: B023 - at once
        relay.cut()
        async with asyncio.timeout(5):
            await agent.disconnected()
        relay.close()
