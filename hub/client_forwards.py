"""The forwards of one client's tunnel: what it opens through nodes, and what comes back from them.

The rule it guards: each stream is authorized by itself, a forward that an operator closed stays
closed for this tunnel, and when the tunnel ends its forwards end with it.

    async with ClientForwards(services, subject, tunnel) as mine:
        await mine.connect(message, stream)
        await mine.listen(message, stream)
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from hub.authz import Subject
from hub.connections import Connection
from hub.errors import Conflict, Unavailable
from hub.forwards import Forwards, OpenForward
from hub.hosts import check_bind, check_host
from hub.listeners import Listener, Listeners
from hub.nodes import Nodes
from hub.registry import Registry
from hub.shells import until_first
from hub.ways import Kind, Way
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel, TunnelClosed
from protocol.errors import LocalProtocolError
from protocol.messages import ClientArrival, ClientForward, ClientListen, Forward, Message
from protocol.record_types import Listening

PER_TUNNEL = 256
"""Forwards that a tunnel keeps; one without connections makes room."""
_KINDS: dict[str, Kind] = {"forward": "local", "socks": "socks", "ssh-proxy": "ssh-proxy"}


@dataclass(frozen=True, slots=True)
class Services:
    """What carrying a client's connections needs."""

    registry: Registry
    nodes: Nodes
    forwards: Forwards
    listeners: Listeners


class ClientForwards:
    """What one tunnel forwards; ends when the block is left."""

    def __init__(self, services: Services, subject: Subject, tunnel: Tunnel) -> None:
        self._services = services
        self._subject = subject
        self._tunnel = tunnel
        self._kept: dict[Way, OpenForward] = {}
        """Those that this tunnel dials, and all that somebody closed."""
        self._over = False
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> ClientForwards:
        return self

    async def __aexit__(self, *_: object) -> None:
        async with self._lock:
            self._over = True
            for forward in self._kept.values():
                await forward.release()

    async def connect(self, message: ClientForward, stream: Stream) -> None:
        """Carry a connection from the client to a target beyond a node.

        Raises:
            HubError: it is refused.
        """
        node = self._services.nodes.get(message.node)
        host, kind = check_host(message.host), _KINDS[message.via]
        way = Way(kind="socks", node=node.id)
        if kind != "socks":
            way = Way(kind=kind, node=node.id, host=host, port=message.port)
        forward = await self._forward(way)
        peer = self._subject.address
        async with forward.connection(peer, host, message.port) as connection:
            opened = Forward(
                host=host, port=message.port, subject=self._subject.name, confirm=message.confirm
            )
            try:
                target = await self._services.registry.open(node.id, opened)
            except LocalProtocolError as error:
                raise Unavailable(str(error)) from error
            await connection.carry(stream, target)

    async def listen(self, message: ClientListen, stream: Stream) -> None:
        """Hold a port of a node open for the client, until either lets go.

        Raises:
            HubError: it is refused.
        """
        node = self._services.nodes.get(message.node)
        bind = check_bind(message.bind)
        way = Way(kind="reverse", node=node.id, bind=bind, listen_port=message.port)
        if (closed := self._kept.get(way)) is not None:
            await closed.note_denied(closed.closed)
            raise Conflict(closed.closed)
        forward = await self._services.forwards.open(self._subject, way)
        try:
            await self._listen(message, bind, forward, stream)
        finally:
            if forward.closed:
                await self._make_room()
                self._kept[way] = forward
            else:
                await forward.release()

    async def _listen(
        self, message: ClientListen, bind: str, forward: OpenForward, stream: Stream
    ) -> None:
        async def carry(peer: str, incoming: Stream) -> None:
            async with forward.connection(peer) as connection:
                await self._come_out(message.listener, peer, incoming, connection)

        node, subject = forward.way.node, self._subject.name
        try:
            async with self._services.listeners.open(
                node, bind, message.port, subject, carry
            ) as listener:
                forward.listen_port = listener.port
                await _hold(listener, forward, stream)
        except StreamReset as refusal:
            stream.reset(refusal.code, refusal.reason)
            if refusal.code is ResetCode.REFUSED:
                await forward.note_denied(refusal.reason)

    async def _come_out(
        self, listener: str, peer: str, incoming: Stream, connection: Connection
    ) -> None:
        """Carry a connection that came in on a node to the client."""
        try:
            outgoing = await self._tunnel.open(ClientArrival(listener=listener, peer=peer))
        except TunnelClosed:
            raise Unavailable("the client of this forward is gone") from None
        except LocalProtocolError as error:
            raise Unavailable(str(error)) from error
        await connection.carry(incoming, outgoing)

    async def _forward(self, way: Way) -> OpenForward:
        """Find the forward of a way, or declare it; once, however many streams ask."""
        async with self._lock:
            if self._over:
                raise Unavailable("the tunnel has ended")
            forward = self._kept.get(way)
            if forward is None:
                await self._make_room()
                forward = await self._services.forwards.open(self._subject, way)
                self._kept[way] = forward
            return forward

    async def _make_room(self) -> None:
        """Let go of one that carries nothing when there are too many, closed ones last.

        Raises:
            Conflict: all carry something.
        """
        if len(self._kept) < PER_TUNNEL:
            return
        idle = [way for way, forward in self._kept.items() if not forward.connections]
        if not idle:
            raise Conflict(f"this tunnel has {PER_TUNNEL} forwards; close some first")
        leaves = min(idle, key=lambda way: bool(self._kept[way].closed))
        await self._kept.pop(leaves).release()


async def _hold(listener: Listener, forward: OpenForward, stream: Stream) -> None:
    """Tell the client the port, and wait until the client, the node or an operator ends it."""

    async def node_ends() -> None:
        cause = await listener.ended()
        stream.reset(cause.code, cause.reason)

    async def is_closed() -> None:
        stream.reset(ResetCode.REFUSED, await forward.wait_closed())

    async def client_ends() -> None:
        with suppress(StreamReset, TunnelClosed):
            while await stream.read():
                pass

    await Channel[Listening, Message](stream, Message).send(Listening(port=listener.port))
    await until_first(client_ends(), node_ends(), is_closed())
