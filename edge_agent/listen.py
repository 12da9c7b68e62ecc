"""Serves `listen` streams: ports on this node whose connections come out where the hub leads them.

The rule it guards: a port is opened only where the policy's `listen` rules allow it, and asked
again for each connection; a listener lives as long as its stream. Listeners, connections and opens
per second are bounded; a connection beyond them waits in the kernel's queue until one has ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from edge_agent.forward import carry_or_reset
from edge_agent.forward_rules import parse_address
from edge_agent.policy import PolicyFile, Refused
from protocol.aio import Channel, ResetCode, Stream, StreamReset, TunnelClosed
from protocol.aio.tcp import TcpEnd
from protocol.errors import LocalProtocolError
from protocol.messages import Arrival, Listen, Message, Open
from protocol.record_types import Listening

_log = logging.getLogger(__name__)

LISTENERS = 64
CONNECTIONS = 200
"""Of one listener."""
ALL_CONNECTIONS = 224
"""Of all listeners: of the 256 streams that a hub takes, some are left for reports and renewal."""
BACKLOG = 128
OPENS_PER_S = 40.0
"""Below the 50 that a hub takes (SPEC §4.2)."""
OPENS_BURST = 128
ACCEPT_RETRY_S = 1.0

OpenAtHub: TypeAlias = Callable[[Open], Awaitable[Stream]]


class TooMany(Exception):
    """The node has as many listeners as it may."""


@dataclass(slots=True)
class Listeners:
    """What all listeners of the node share; lives as long as the agent, across tunnels."""

    policy: PolicyFile
    open: int = 0
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(ALL_CONNECTIONS))
    _level: float = OPENS_BURST
    _level_at: float = 0.0

    @contextmanager
    def bound(self, opening: Listen) -> Iterator[socket.socket]:
        """Hold a listening socket while the block runs.

        Raises:
            Refused: the policy does not allow it.
            TooMany: 64 are open.
            OSError: the port is taken, or the address is not this node's.
        """
        address, port = parse_address(opening.bind), opening.port
        policy = self.policy.current()
        if port:
            policy.allow_listen(address, port)
        if self.open >= LISTENERS:
            raise TooMany(f"this node has {LISTENERS} listeners open; close some first")
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_STREAM) as server:
            server.setblocking(False)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.version == 6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.bind((str(address), port))
            policy.allow_listen(address, server.getsockname()[1])
            server.listen(BACKLOG)
            self.open += 1
            try:
                yield server
            finally:
                self.open -= 1

    async def pace(self) -> None:
        """Wait until one more stream may be opened at the hub."""
        now = asyncio.get_running_loop().time()
        refill = (now - self._level_at) * OPENS_PER_S
        self._level = min(OPENS_BURST, self._level + refill) - 1
        self._level_at = now
        if self._level < 0:
            await asyncio.sleep(-self._level / OPENS_PER_S)


async def handle_listen(
    opening: Listen, stream: Stream, listeners: Listeners, open_at_hub: OpenAtHub
) -> None:
    """Serve one `listen` stream until it and the connections that came through it have ended."""
    where = f"{opening.bind}:{opening.port}"
    async with asyncio.TaskGroup() as connections:
        try:
            with listeners.bound(opening) as server:
                listener = _Listener(opening, stream, server, listeners, open_at_hub, connections)
                await listener.serve()
        except (Refused, ValueError) as refusal:
            stream.reset(ResetCode.REFUSED, str(refusal))
        except TooMany as error:
            stream.reset(ResetCode.OVERLOADED, str(error))
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            stream.reset(ResetCode.UNREACHABLE, f"can't listen on {where}: {reason}")
        stream.finish()


class _Listener:
    """One open port."""

    def __init__(
        self,
        opening: Listen,
        stream: Stream,
        server: socket.socket,
        listeners: Listeners,
        open_at_hub: OpenAtHub,
        connections: asyncio.TaskGroup,
    ) -> None:
        self._opening = opening
        self._stream = stream
        self._server = server
        self._port: int = server.getsockname()[1]
        self._listeners = listeners
        self._open_at_hub = open_at_hub
        self._connections = connections
        self._room = asyncio.Semaphore(CONNECTIONS)

    async def serve(self) -> None:
        """Say the port, and accept until the hub ends the stream or the policy changes."""
        _log.info("listening on %s:%d for the hub", self._opening.bind, self._port)
        accepting = self._connections.create_task(self._accept())
        try:
            with suppress(StreamReset, TunnelClosed):
                answer: Channel[Listening, Message] = Channel(self._stream, Message)
                await answer.send(Listening(port=self._port))
                while await self._stream.read():
                    pass
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])  # the socket is closed after it
        _log.info("stopped listening on %s:%d", self._opening.bind, self._port)

    async def _accept(self) -> None:
        """Take connections, as many as there is room for, until one is not allowed any more."""
        while True:
            try:
                client, peer = await _accept(self._server)
            except OSError as error:
                _log.warning("can't accept on port %d: %s", self._port, error)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            try:
                policy = self._listeners.policy.current()
                policy.allow_listen(parse_address(self._opening.bind), self._port)
                await self._admit()
            except Refused as refusal:
                client.close()
                self._stream.reset(ResetCode.REFUSED, str(refusal))
                return
            except BaseException:
                client.close()
                raise
            self._connections.create_task(self._carry(client, _text(peer)))

    async def _admit(self) -> None:
        """Wait for room, here and among all listeners, and for the hub's rate."""
        await self._room.acquire()
        try:
            await self._listeners.room.acquire()
            try:
                await self._listeners.pace()
            except BaseException:
                self._listeners.room.release()
                raise
        except BaseException:
            self._room.release()
            raise

    async def _carry(self, client: socket.socket, peer: str) -> None:
        """Carry one connection to the hub, which says where it goes."""
        try:
            end = await _end_of(client)
            try:
                stream = await self._open_at_hub(
                    Arrival(listener=self._opening.listener, peer=peer)
                )
            except BaseException:
                end.abort()
                raise
            await carry_or_reset(end, stream, "who connected")
        except (TunnelClosed, LocalProtocolError, OSError) as error:
            _log.info("a connection from %s could not be carried: %s", peer, error)
        finally:
            self._listeners.room.release()
            self._room.release()


async def _accept(server: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """Wait for a connection; unlike `sock_accept`, being cancelled never loses one."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            client, peer = server.accept()
        except BlockingIOError:
            readable = asyncio.Event()
            loop.add_reader(server, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(server)
        else:
            client.setblocking(False)
            return client, peer


async def _end_of(client: socket.socket) -> TcpEnd:
    loop = asyncio.get_running_loop()
    try:
        return (await loop.connect_accepted_socket(TcpEnd, client))[1]
    except BaseException:
        client.close()
        raise


def _text(peer: tuple[str, int]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
