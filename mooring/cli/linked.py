"""Runs a command that serves connections for as long as its tunnel to the hub can be had.

The rule it guards: it ends with Ctrl-C or SIGTERM, or with the first error after which trying again
makes no sense, and everything that was started ends with it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TypeAlias

from mooring.cli.failures import FAILED, CommandError
from mooring.cli.output import note
from mooring.cli.places import Place
from mooring.cli.refusals import refusal
from mooring.sdk import calls
from mooring.sdk.async_client import AsyncClient
from mooring.sdk.errors import MooringError
from mooring.sdk.forwarding import Link
from protocol.aio import StreamReset

Listening: TypeAlias = AbstractAsyncContextManager[list[tuple[str, int]]]
"""What the `listen` methods of the SDK give."""
PORT_OR_NODE = "choose another port, 0 for any; mooring nodes shows whether the node is there"


class Linked:
    """What such a command works with while it lives; made by `serve_linked`."""

    def __init__(self, link: Link, node: str, tasks: asyncio.TaskGroup) -> None:
        self.link = link
        self.node = node
        self.listeners = AsyncExitStack()
        self.ended: asyncio.Future[MooringError | None] = asyncio.get_running_loop().create_future()
        """Settled with None when it was told to end, else with the error."""
        self._tasks = tasks
        self._kept: list[asyncio.Task[None]] = []

    async def listen(self, listening: Listening, place: Place) -> list[Place]:
        """Listen on `place`, as `listening` does, until the end; return the addresses.

        Raises:
            CommandError: the address can't be had.
        """
        try:
            bound = await self.listeners.enter_async_context(listening)
        except OSError as error:
            reason = error.strerror or str(error)
            advice = "choose another local port, or 0 to let the system pick one"
            raise CommandError(f"can't listen on {place}: {reason}", advice, FAILED) from error
        return [Place(host, port) for host, port in bound]

    def keep(self, running: Awaitable[object]) -> None:
        """Run something beside the rest; an error of it ends the command."""
        self._kept.append(self._tasks.create_task(self._run(running)))

    async def _run(self, running: Awaitable[object]) -> None:
        try:
            await running
        except StreamReset as error:
            self.end(refusal(self.node, error, unreachable=PORT_OR_NODE))
        except MooringError as error:
            self.end(error)

    def end(self, error: MooringError | None = None) -> None:
        """End the command."""
        if not self.ended.done():
            self.ended.set_result(error)

    def stop(self) -> None:
        """Cancel everything that is kept."""
        for task in self._kept:
            task.cancel()


async def serve_linked(node: str, start: Callable[[Linked], Awaitable[None]]) -> int:
    """Find the node, keep a link to the hub, and `start` once it is up.

    Raises:
        MooringError: what ended it, unless that was a signal.
    """
    loop = asyncio.get_running_loop()
    async with AsyncClient.connect() as hub:
        found = await hub.call(calls.node(node))
        async with asyncio.TaskGroup() as tasks:
            linked = Linked(Link(hub), found.name, tasks)
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, linked.end)
            linked.keep(linked.link.run())
            linked.keep(_start(linked, start))
            failure = await linked.ended
            linked.stop()
    if failure is not None:
        raise failure
    return 0


async def _start(linked: Linked, start: Callable[[Linked], Awaitable[None]]) -> None:
    await linked.link.up()
    async with linked.listeners:
        await start(linked)
        await asyncio.Event().wait()  # until it is cancelled


def failed(peer: str, error: Exception) -> None:
    """Say that a connection came to nothing."""
    note(f"a connection from {peer} could not be carried: {str(error) or 'timed out'}")
