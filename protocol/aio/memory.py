"""Two tunnels joined without a socket, for tests and for programs that are both ends."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protocol.aio.serving import Handler
from protocol.aio.tunnel import Tunnel
from protocol.frames import Hello
from protocol.guard import DEFAULT_LIMITS, LIMITS_OF_HUB, Limits
from protocol.messages import AgentOpen, HubOpen
from protocol.session import Side


class MemoryTransport:
    """Hands each message to the other tunnel in the next round of the loop."""

    def __init__(self, own: Tunnel, peer: Tunnel) -> None:
        """Use `join`, which makes both ends."""
        self._own = own
        self._peer = peer
        self._far: MemoryTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._in_flight = 0

    def send(self, message: bytes | bytearray) -> None:
        """Schedule the delivery."""
        self._in_flight += len(message)
        self._loop.call_soon(self._deliver, message)

    def _deliver(self, message: bytes | bytearray) -> None:
        self._in_flight -= len(message)
        if self._far is not None and self._peer.carried_by(self._far):
            self._peer.received(memoryview(message))
            self._own.writable()

    def buffered(self) -> int:
        """Bytes on their way."""
        return self._in_flight

    def close(self) -> None:
        """Deliver what is on its way, then end both sides."""
        self._loop.call_soon(self.abort)

    def abort(self) -> None:
        """End both sides; what is on its way is lost."""
        far, self._far = self._far, None
        if far is not None:
            far._far = None
            self._own.lost(self)
            self._peer.lost(far)


def join(one: Tunnel, other: Tunnel) -> MemoryTransport:
    """Attach two tunnels to each other; returns what ends the connection when it is aborted."""
    near, far = MemoryTransport(one, other), MemoryTransport(other, one)
    near._far, far._far = far, near
    one.attach(near)
    other.attach(far)
    return near


@asynccontextmanager
async def memory_pair(
    dialled_handler: Handler | None = None,
    accepted_handler: Handler | None = None,
    *,
    dialled_accepts: object = None,
    accepted_accepts: object = None,
    limits: Limits | None = None,
    resume: bool = False,
) -> AsyncIterator[tuple[Tunnel, Tunnel]]:
    """Two running tunnels that are each other's peer: (the dialling end, the accepting end).

    Args:
        dialled_handler: serves what the accepting end opens, as an agent does.
        accepted_handler: serves what the dialling end opens, as a hub does.
        dialled_accepts: what the accepting end may open; by default everything of the hub's.
        accepted_accepts: what the dialling end may open; by default everything of an agent's.
        limits: of both ends; by default those of an agent and of a hub.
        resume: whether the tunnels outlive their connection; `join` makes another one.
    """
    dialled = Tunnel(
        Side.DIALLED,
        Hello(software="memory"),
        dialled_handler,
        accepts=(dialled_accepts or HubOpen) if dialled_handler else None,
        limits=limits or LIMITS_OF_HUB,
        name="accepted",
        resume=b"" if resume else None,
    )
    accepted = Tunnel(
        Side.ACCEPTED,
        Hello(software="memory"),
        accepted_handler,
        accepts=(accepted_accepts or AgentOpen) if accepted_handler else None,
        limits=limits or DEFAULT_LIMITS,
        name="dialled",
        resume=secrets.token_bytes(32) if resume else None,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dialled.run())
        tasks.create_task(accepted.run())
        join(dialled, accepted)
        await dialled.ready()
        await accepted.ready()
        try:
            yield dialled, accepted
        finally:
            await dialled.close()
            await accepted.close()
