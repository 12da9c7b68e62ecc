"""Who holds a node's tunnel: the newest fences the old, and an instance that returns is a copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hub.errors import NodeOffline
from hub.registry import CLONE_PERIOD_S, Registry
from protocol.aio import GoAwayCode, Tunnel, TunnelClosed
from protocol.aio.memory import join
from protocol.frames import Hello
from protocol.messages import Forward
from protocol.session import Side

NODE = "node-id"


@asynccontextmanager
async def registry() -> AsyncIterator[tuple[Registry, asyncio.TaskGroup]]:
    async with asyncio.TaskGroup() as tasks:
        yield Registry(tasks, lambda _: "web-1"), tasks


async def tunnel(tasks: asyncio.TaskGroup, epoch: int, boot_id: str = "boot") -> Tunnel:
    """The hub's end of a tunnel from the agent instance that is given."""
    agent = Tunnel(Side.DIALLED, Hello(boot_id=boot_id, epoch=epoch))
    hub = Tunnel(Side.ACCEPTED, Hello())
    tasks.create_task(agent.run())
    tasks.create_task(hub.run())
    join(agent, hub)
    await hub.ready()
    return hub


async def test_an_unknown_node_is_offline_by_name() -> None:
    async with registry() as (held, _):
        assert not held.is_online(NODE)
        with pytest.raises(NodeOffline, match="web-1"):
            await held.open(NODE, Forward(host="h", port=1))


async def test_the_newest_tunnel_fences_the_old() -> None:
    async with registry() as (held, tasks):
        old, new = await tunnel(tasks, 1), await tunnel(tasks, 2)
        assert held.attach(NODE, old, 0.0)
        assert held.attach(NODE, new, 1.0)
        assert "newer tunnel" in str(await old.wait_closed()) or old.closed
        assert held.holds(NODE, new)
        assert not held.detach(NODE, old)
        assert held.is_online(NODE)
        await new.close()
        assert held.detach(NODE, new)
        assert not held.is_online(NODE)


async def test_an_agent_that_restarts_is_no_copy() -> None:
    async with registry() as (held, tasks):
        for epoch in range(6):
            made = await tunnel(tasks, epoch)
            assert held.attach(NODE, made, float(epoch))
        await made.close()


async def test_one_instance_that_reconnects_is_no_copy() -> None:
    async with registry() as (held, tasks):
        for at in range(6):
            made = await tunnel(tasks, 1)
            assert held.attach(NODE, made, float(at))
        await made.close()


@pytest.mark.parametrize(
    ("step_s", "verdicts"),
    [
        (1.0, [True, True, True, False]),
        (CLONE_PERIOD_S + 1, [True, True, True, True]),
    ],
)
async def test_two_instances_that_alternate_are_copies_of_one_key(
    step_s: float, verdicts: list[bool]
) -> None:
    async with registry() as (held, tasks):
        found = []
        for number, boot_id in enumerate(["a", "b", "a", "b"]):
            made = await tunnel(tasks, 1, boot_id)
            found.append(held.attach(NODE, made, number * step_s))
        assert found == verdicts
        held.cut(NODE, GoAwayCode.REVOKED, "cloned")
        assert isinstance(await made.wait_closed(), TunnelClosed)


async def test_stopping_tells_every_node_when_to_come_back() -> None:
    async with registry() as (held, tasks):
        made = await tunnel(tasks, 1)
        held.attach(NODE, made, 0.0)
        await held.close_all(15.0)
        assert made.closed
