"""`Listeners`: the ports that nodes hold open for the hub, and the connections that come in there.

The rule it guards: a node's `arrival` reaches what was declared for a listener that this very node
has open, and nothing else. A listener ends when the block is left, with its stream, or with the
node's tunnel.

    async with listeners.open(node.id, "127.0.0.1", 8080, subject.name, carry) as listener:
        ended = await listener.ended()
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from hub.errors import HubError, Unavailable
from hub.node_reports import clean_text
from hub.registry import Registry
from hub.resets import reset_of
from protocol.aio import Channel, ResetCode, Stream, StreamReset, TunnelClosed
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.messages import Arrival, Listen, Message
from protocol.record_types import Listening

ANSWER_S = 15.0
"""How long a node may take to open a port."""

Carry: TypeAlias = Callable[[str, Stream], Awaitable[None]]
"""Serves one connection: who connected, in printable text, and its stream."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that is open on a node."""

    port: int
    _channel: Channel[Message, Listening]

    @property
    def is_open(self) -> bool:
        """The node has not closed the port, as far as is known."""
        return not self._channel.stream.ended

    async def ended(self) -> StreamReset:
        """Wait until the node closes the port or is gone; returns why."""
        try:
            while await self._channel.receive() is not None:
                pass
        except StreamReset as reset:
            return reset
        except (TunnelClosed, RemoteProtocolError) as error:
            return StreamReset(ResetCode.UNREACHABLE, str(error))
        return StreamReset(ResetCode.UNREACHABLE, "the node closed the port")


@dataclass(slots=True)
class Listeners:
    """All ports that are open on nodes for this hub."""

    _registry: Registry
    _answer_s: float = ANSWER_S
    _carriers: dict[tuple[str, str], Carry] = field(default_factory=dict)
    """By the node's id and the listener's name in its tunnel."""

    @asynccontextmanager
    async def open(
        self, node_id: str, bind: str, port: int, subject: str, carry: Carry
    ) -> AsyncIterator[Listener]:
        """Hold a port of a node open while the block runs; `carry` serves what comes in.

        Connections that came through it outlive it. `port` 0 lets the node's system pick one.

        Raises:
            NodeOffline: the node has no tunnel, or lost it just now.
            Unavailable: too many streams are open there.
            StreamReset: the node said no (REFUSED: its policy), could not (UNREACHABLE: the port is
                taken), or did not answer in time (TIMEOUT).
        """
        name = secrets.token_hex(8)
        key = node_id, name
        self._carriers[key] = carry
        try:
            opened = Listen(listener=name, bind=bind, port=port, subject=subject)
            channel = await self._ask(node_id, opened)
            try:
                yield Listener(await self._answer(channel), channel)
            finally:
                channel.stream.close()
        finally:
            del self._carriers[key]

    async def arrive(self, node_id: str, arrival: Arrival, stream: Stream) -> None:
        """Serve a connection that came in on a node, until it ends."""
        carry = self._carriers.get((node_id, arrival.listener))
        if carry is None:
            stream.reset(ResetCode.NOT_FOUND, "this node has no such listener open")
            return
        try:
            await carry(clean_text(arrival.peer), stream)
        except HubError as error:
            refusal = reset_of(error)
            stream.reset(refusal.code, refusal.reason)

    async def _ask(self, node_id: str, opened: Listen) -> Channel[Message, Listening]:
        try:
            return Channel(await self._registry.open(node_id, opened), Listening)
        except LocalProtocolError as error:
            raise Unavailable(str(error)) from error

    async def _answer(self, channel: Channel[Message, Listening]) -> int:
        """Wait for the port."""
        try:
            async with asyncio.timeout(self._answer_s):
                answer = await channel.receive()
        except TimeoutError:
            reason = f"the node did not answer within {self._answer_s:.3g} s"
            raise StreamReset(ResetCode.TIMEOUT, reason) from None
        except StreamReset as reset:
            raise StreamReset(reset.code, clean_text(reset.reason)) from reset
        except RemoteProtocolError as error:
            raise StreamReset(ResetCode.PROTOCOL, str(error)) from error
        except TunnelClosed as closed:
            raise StreamReset(ResetCode.UNREACHABLE, str(closed)) from closed
        if answer is None:
            raise StreamReset(ResetCode.INTERNAL, "the node ended the stream without an answer")
        return answer.port
