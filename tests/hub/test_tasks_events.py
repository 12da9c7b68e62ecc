"""What a task's events say, and that storing a task starts it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.engine import Store
from hub.tasks import TaskSpec
from protocol.messages import Exec
from tests.hub.world import OPERATOR, NodeChannel, World, agent, make_world, say


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


async def script(_opened: Exec, channel: NodeChannel) -> None:
    await say(channel)


async def test_what_an_event_tells_is_what_the_task_shows(world: World) -> None:
    async with world.connected("a", agent(script)), world.tasks() as tasks:
        shown = {}
        with world.events.subscribe() as subscription:
            creating = world.group.create_task(
                tasks.create(OPERATOR, TaskSpec(target="a", argv=["true"]))
            )
            async with asyncio.timeout(5):
                while "task.finished" not in shown:
                    event = await anext(subscription)
                    if "task" in event.data:
                        shown[event.kind] = (await tasks.get(event.data["task"])).state
            await creating
    assert set(shown) == {"task.created", "run.finished", "task.finished"}
    assert shown["run.finished"] == shown["task.finished"] == "succeeded"


async def test_a_stored_task_starts_also_when_its_client_is_gone(world: World) -> None:
    async with world.connected("a", agent(script)), world.tasks() as tasks:
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow(_connection: AsyncConnection) -> None:
            entered.set()
            await release.wait()

        with world.events.subscribe() as subscription:
            blocking = world.group.create_task(world.store.write(slow))
            await entered.wait()
            before = (await tasks.page(10, None))[2]
            creating = world.group.create_task(
                tasks.create(OPERATOR, TaskSpec(target="a", argv=["true"]))
            )
            while not world.store.queue_depth:
                await asyncio.sleep(0)
            release.set()
            while world.store.queue_depth:
                await asyncio.sleep(0)
            creating.cancel()
            await blocking
            async with asyncio.timeout(5):
                while (await anext(subscription)).kind != "task.finished":
                    pass
        assert (await tasks.page(10, None))[2] == before + 1
