"""Shell sessions against scripted nodes over real tunnels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.errors import Conflict, Forbidden, NodeOffline, NotFound
from hub.shells import Limits, Shells, Terminal
from hub.store.engine import Store
from protocol.aio import Channel, ResetCode, Stream, StreamReset
from protocol.messages import Open, Pty
from protocol.record_types import Exited, Input, PtyFromHub, PtyFromNode, Screen
from tests.hub.world import OPERATOR, VIEWER, World, make_world


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


def shells_of(world: World, limits: Limits | None = None) -> Shells:
    return Shells(
        world.store,
        world.registry,
        world.nodes,
        world.events,
        world.audit,
        limits or Limits(),
    )


class Terminals:
    """A node's handler: echoes keystrokes, exits at `q`, and knows how its streams ended."""

    def __init__(self) -> None:
        self.opened: list[Pty] = []
        self.resets: asyncio.Queue[StreamReset] = asyncio.Queue()

    async def __call__(self, message: Open, stream: Stream) -> None:
        assert isinstance(message, Pty)
        self.opened.append(message)
        channel: Channel[PtyFromNode, PtyFromHub] = Channel(stream, PtyFromHub)
        try:
            while (record := await channel.receive()) is not None:
                if isinstance(record, Input) and record.data == b"q":
                    await channel.send(Exited(exit_code=3))
                    return
                if isinstance(record, Input):
                    await channel.send(Screen(data=record.data))
        except StreamReset as reset:
            self.resets.put_nowait(reset)


async def test_a_session_echoes_exits_and_is_stored(world: World) -> None:
    node, shells = Terminals(), shells_of(world)
    async with world.connected("web-1", node), asyncio.timeout(5):
        terminal = Terminal(argv=["top"], rows=10, columns=20)
        async with shells.open(OPERATOR, "web-1", terminal, "browser") as shell:
            (session,), _, _ = await shells.page(10, None)
            assert (session.id, session.ended_at) == (shell.id, None)
            await shell.send(Input(data=b"hi"))
            screen = await shell.receive()
            assert screen is not None
            assert screen.data == b"hi"
            await shell.send(Input(data=b"q"))
            assert await shell.receive() is None
    (session,), cursor, total = await shells.page(10, None)
    assert (session.node, session.subject, session.origin) == ("web-1", "olga", "browser")
    assert (session.exit_code, session.reason, session.argv) == (3, "", ["top"])
    assert session.ended_at is not None
    assert (cursor, total) == (None, 1)
    (opened,) = node.opened
    assert (opened.rows, opened.columns, opened.subject) == (10, 20, "olga")
    assert opened.env == {"TERM": "xterm-256color"}
    acts = [entry.act for entry in (await world.audit.entries(10)).entries]
    assert acts == ["shell.close", "shell.open"]


async def test_leaving_the_block_ends_the_terminal(world: World) -> None:
    node, shells = Terminals(), shells_of(world)
    async with world.connected("web-1", node), asyncio.timeout(5):
        async with shells.open(OPERATOR, "web-1", Terminal(), "browser"):
            pass
        assert (await node.resets.get()).code is ResetCode.CANCELLED
    (session,), _, _ = await shells.page(10, None)
    assert session.reason == "closed by its user"


async def test_a_killed_session_ends_with_who_did_it(world: World) -> None:
    node, shells = Terminals(), shells_of(world)
    async with world.connected("web-1", node), asyncio.timeout(5):
        async with shells.open(OPERATOR, "web-1", Terminal(), "browser") as shell:
            with pytest.raises(Forbidden):
                await shells.kill(VIEWER, shell.id)
            await shells.kill(OPERATOR, shell.id)
            assert await shell.receive() is None
            await shell.killed()
        assert (await node.resets.get()).reason == "ended by olga"
        with pytest.raises(NotFound):
            await shells.kill(OPERATOR, shell.id)
    (session,), _, _ = await shells.page(10, None)
    assert session.reason == "ended by olga"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(idle_s=0.05), "idle for"),
        (Limits(absolute_s=0.05), "open for"),
    ],
)
async def test_idle_and_old_sessions_are_ended(world: World, limits: Limits, reason: str) -> None:
    shells = shells_of(world, limits)
    async with (
        world.connected("web-1", Terminals()),
        asyncio.timeout(5),
        shells.open(OPERATOR, "web-1", Terminal(), "browser") as shell,
    ):
        assert await shell.receive() is None
        assert shell.reason.startswith(reason)


async def test_nobody_has_more_than_the_share(world: World) -> None:
    shells = shells_of(world, Limits(per_node=1))
    async with world.connected("web-1", Terminals()), asyncio.timeout(5):
        async with shells.open(OPERATOR, "web-1", Terminal(), "browser"):
            with pytest.raises(Conflict):
                async with shells.open(OPERATOR, "web-1", Terminal(), "browser"):
                    pass
        async with shells.open(OPERATOR, "web-1", Terminal(), "browser"):
            pass


async def test_offline_unknown_and_forbidden_nodes_are_refused(world: World) -> None:
    shells = shells_of(world)
    await world.add_node("web-1")
    with pytest.raises(NodeOffline):
        async with shells.open(OPERATOR, "web-1", Terminal(), "browser"):
            pass
    with pytest.raises(NotFound):
        async with shells.open(OPERATOR, "web-9", Terminal(), "browser"):
            pass
    with pytest.raises(Forbidden):
        async with shells.open(VIEWER, "web-1", Terminal(), "browser"):
            pass
    (session,), _, _ = await shells.page(10, None)
    assert (session.reason, session.ended_at is not None) == ("web-1 is not connected", True)
    denied = [e.act for e in (await world.audit.entries(10)).entries if e.outcome == "denied"]
    assert denied == ["shell.open"]


async def test_a_refusal_by_the_node_is_the_reason(world: World) -> None:
    async def refuse(_message: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "policy: no shells here")

    async with (
        world.connected("web-1", refuse),
        asyncio.timeout(5),
        shells_of(world).open(OPERATOR, "web-1", Terminal(), "browser") as shell,
    ):
        assert await shell.receive() is None
        assert shell.reason == "policy: no shells here"


async def test_a_start_ends_what_the_last_hub_left_open(world: World) -> None:
    shells = shells_of(world)
    async with (
        world.connected("web-1", Terminals()),
        shells.open(OPERATOR, "web-1", Terminal(), "browser"),
    ):
        await shells_of(world).resume()
        (session,), _, _ = await shells.page(10, None)
        assert session.reason == "the hub was restarted"
