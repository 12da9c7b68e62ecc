"""A hub without HTTP and nodes without sockets: real services, real tunnels over memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy import insert

from edge_agent.forward import handle_forward
from edge_agent.listen import Listeners as NodeListeners
from edge_agent.listen import handle_listen
from edge_agent.policy import PolicyFile
from hub.audit import Audit
from hub.authz import Role, Subject
from hub.events import EventLog
from hub.listeners import Listeners
from hub.nodes import Nodes
from hub.registry import Registry
from hub.store import schema
from hub.store.engine import Store
from hub.tasks import Task, Tasks
from protocol.aio import Channel, Handler, Stream, Tunnel, memory_pair
from protocol.messages import Arrival, Exec, Forward, Listen, Open
from protocol.record_types import ExecFromHub, ExecFromNode, Exited, Output, Started

OPERATOR = Subject("olga", Role.OPERATOR, "u1", "token", "t1", "192.0.2.1")
VIEWER = Subject("vera", Role.VIEWER, "u2", "token", "t2")


@dataclass
class World:
    """Services around one store, and the nodes of the test."""

    store: Store
    group: asyncio.TaskGroup
    nodes: Nodes
    registry: Registry
    events: EventLog
    audit: Audit
    listeners: Listeners
    ends: dict[str, Tunnel] = field(default_factory=dict)
    """The nodes' ends of their tunnels, by name."""

    async def add_node(self, name: str) -> str:
        node_id = f"id-{name}"
        row = insert(schema.nodes).values(id=node_id, name=name, created_at=0.0)
        await self.store.write(lambda connection: connection.execute(row))
        await self.nodes.refresh(node_id)
        return node_id

    @asynccontextmanager
    async def connected(self, name: str, handler: Handler) -> AsyncIterator[str]:
        """A node with a tunnel, for as long as the block runs."""
        node_id = f"id-{name}"
        if self.nodes.find(node_id) is None:
            await self.add_node(name)

        async def take(message: Open, stream: Stream) -> None:
            assert isinstance(message, Arrival)
            await self.listeners.arrive(node_id, message, stream)

        async with memory_pair(handler, take) as (self.ends[name], hub_end):
            self.registry.attach(node_id, hub_end, time.monotonic())
            await self.nodes.came_online(node_id, "192.0.2.7", time.time())
            try:
                yield node_id
            finally:
                self.registry.detach(node_id, hub_end)
                await self.nodes.went_offline(node_id, 1_000_000.0, "the test is over")

    def agent(self, name: str, policy: PolicyFile) -> AbstractAsyncContextManager[str]:
        """A node that serves forwards and listeners as agents do, while the block runs."""
        listeners = NodeListeners(policy)

        async def serve(opening: Open, stream: Stream) -> None:
            match opening:
                case Forward():
                    await handle_forward(opening, stream, policy)
                case Listen():
                    await handle_listen(opening, stream, listeners, self.ends[name].open)

        return self.connected(name, serve)

    @asynccontextmanager
    async def tasks(self, *, lost_after_s: float = 3600.0) -> AsyncIterator[Tasks]:
        """The service for as long as the block runs; leaving it is a hub that stops."""
        tasks = Tasks(
            self.store,
            self.registry,
            self.nodes,
            self.events,
            self.audit,
            lost_after_s=lost_after_s,
        )
        running = self.group.create_task(tasks.run())
        await tasks.ready()
        try:
            yield tasks
        finally:
            running.cancel()
            await asyncio.wait([running])


@asynccontextmanager
async def make_world(store: Store) -> AsyncIterator[World]:
    async with asyncio.TaskGroup() as group:
        events, audit = EventLog(store), Audit(store)
        nodes = Nodes(store, events, audit)
        await nodes.load()
        registry = Registry(group, nodes.name_of)
        yield World(store, group, nodes, registry, events, audit, Listeners(registry))


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is true, 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


async def finished(tasks: Tasks, task: Task) -> Task:
    """Follow a task to its end and show it."""
    async with asyncio.timeout(10):
        async for _ in await tasks.follow(task.id):
            pass
    return await tasks.get(task.id)


NodeChannel = Channel[ExecFromNode, ExecFromHub]
Script = Callable[[Exec, NodeChannel], Awaitable[None]]


def agent(script: Script) -> Handler:
    """A node's handler that plays a script on each `exec` stream."""

    async def handle(message: Open, stream: Stream) -> None:
        assert isinstance(message, Exec)
        await script(message, Channel(stream, ExecFromHub))

    return handle


async def say(channel: NodeChannel, *, out: bytes = b"", err: bytes = b"", code: int = 0) -> None:
    """Start, write, exit, and wait for the acknowledgement."""
    await channel.send(Started(pid=1, started_at=0.0))
    if out:
        await channel.send(Output(stream=1, offset=0, data=out))
    if err:
        await channel.send(Output(stream=2, offset=0, data=err))
    await channel.send(Exited(exit_code=code, stdout_bytes=len(out), stderr_bytes=len(err)))
    await channel.receive()
