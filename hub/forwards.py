"""`Forwards`: the ways through nodes that are open: counted, limited, closed, audited.

A forward is one declared way (a port of a client, a SOCKS proxy, a listener on a node, a link, a
published service), however many connections it carries. The rule it guards: what is listed is
exactly what is open, because a forward is in the list as long as somebody holds it or one of its
connections runs; and what an operator closed carries nothing any more.

    async with forwards.declare(subject, Way(kind="published", node=node.id)) as forward:
        async with forward.connection(peer) as connection:
            await connection.carry(stream, target)
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.connections import Connection, Limits
from hub.errors import Conflict, Forbidden, HubError, NotFound
from hub.ids import sortable_id
from hub.ways import ForwardDetail, ForwardView, Way
from protocol.aio import ResetCode

SHOWN_CONNECTIONS = 500
"""Of one forward, in its own view; the oldest."""


class OpenForward:
    """One forward; whoever got it from `Forwards.open` holds it until `release`."""

    def __init__(self, forwards: Forwards, subject: Subject, way: Way, instead: str) -> None:
        self.id = sortable_id()
        self.subject = subject
        self.way = way
        self.listen_port = way.listen_port
        """Set when the system picked it."""
        self.instead = instead
        """What to do instead of closing it, when it is kept up by something else."""
        self.closed = ""
        """Why it carries nothing any more; names who closed it."""
        self.connections: dict[str, Connection] = {}
        self._forwards = forwards
        self._holders = 1
        self._since = time.time()
        self._active_at = time.monotonic()
        self._total = self._sent = self._received = 0
        self._closing = asyncio.Event()

    async def release(self) -> None:
        """Let go; the last one to do so ends the forward."""
        self._holders -= 1
        if self._holders == 0:
            await self._forwards._ended(self)

    async def wait_closed(self) -> str:
        """Wait until somebody closes the forward; returns why."""
        await self._closing.wait()
        return self.closed

    @asynccontextmanager
    async def connection(
        self, peer: str, host: str | None = None, port: int | None = None
    ) -> AsyncIterator[Connection]:
        """Count and list a connection while the block runs.

        Args:
            peer: Who connected.
            host: Where it goes, when the forward does not say.
            port: The same.

        Raises:
            Forbidden: the forward's subject may not forward through the node any more.
            Conflict: the forward was closed, or its subject has too many connections open.
        """
        try:
            self._forwards._admit_connection(self)
        except HubError as error:
            await self.note_denied(str(error))
            raise
        connection = Connection(peer, host or self.way.host, port or self.way.port)
        self.connections[connection.id] = connection
        self._holders += 1
        self._total += 1
        self._active_at = time.monotonic()
        try:
            yield connection
        finally:
            self._active_at = max(self._active_at, connection.active_at(time.monotonic()))
            del self.connections[connection.id]
            self._sent += connection.traffic.sent.size_bytes
            self._received += connection.traffic.received.size_bytes
            self._forwards._connection_ended(self)
            if connection.refused:
                await self.note_denied(connection.refused)
            await self.release()

    def close(self, reason: str) -> None:
        """Reset all connections and carry no more."""
        self.closed = reason
        self.end_connections(reason)
        self._closing.set()

    def end_connections(self, reason: str) -> None:
        """Reset all connections."""
        for connection in list(self.connections.values()):
            connection.end(ResetCode.REFUSED, reason)

    async def note_denied(self, reason: str) -> None:
        """Audit that a connection was refused."""
        await self._forwards._record(self, "forward.open", "denied", {"reason": reason})

    @property
    def totals(self) -> dict[str, Any]:
        """What passed so far."""
        open_now = self.connections.values()
        return {
            "connections_total": self._total,
            "sent_bytes": self._sent + sum(c.traffic.sent.size_bytes for c in open_now),
            "received_bytes": self._received + sum(c.traffic.received.size_bytes for c in open_now),
        }

    def view(self, name_of: Callable[[str], str], now: float) -> ForwardView:
        """Show it with the totals so far."""
        return ForwardView(**self._shown(name_of, now))

    def detail(self, name_of: Callable[[str], str], now: float) -> ForwardDetail:
        """Show it with its oldest connections."""
        oldest = list(self.connections.values())[:SHOWN_CONNECTIONS]
        shown = [connection.view(now) for connection in oldest]
        return ForwardDetail(**self._shown(name_of, now), open_connections=shown)

    def _shown(self, name_of: Callable[[str], str], now: float) -> dict[str, Any]:
        way, open_now = self.way, self.connections.values()
        active_at = max([self._active_at, *(c.active_at(now) for c in open_now)])
        return {
            "id": self.id,
            "kind": way.kind,
            "node": name_of(way.node),
            "subject": self.subject.name,
            "host": way.host,
            "port": way.port,
            "bind": way.bind,
            "listen_port": self.listen_port,
            "to_node": None if way.to_node is None else name_of(way.to_node),
            "name": way.name,
            "since": self._since,
            "last_activity": time.time() - now + active_at,
            "connections": len(open_now),
            **self.totals,
        }


@dataclass(slots=True)
class Forwards:
    """All open forwards of the hub; `run` ends connections that are idle."""

    _audit: Audit
    _name_of: Callable[[str], str]
    """The name of a node."""
    _limits: Limits = field(default_factory=Limits)
    _open: dict[str, OpenForward] = field(default_factory=dict)
    _connections: Counter[str] = field(default_factory=Counter)
    """Open ones by user."""

    async def run(self) -> None:
        """Look at all connections every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._limits.sweep_s)
            self.sweep(time.monotonic())

    def sweep(self, now: float) -> None:
        """End what was idle for too long; `now` is monotonic."""
        for forward in list(self._open.values()):
            for connection in list(forward.connections.values()):
                connection.limit(self._limits, now)

    def list(self) -> list[ForwardView]:
        """Show the open ones, oldest first."""
        now = time.monotonic()
        return [forward.view(self._name_of, now) for forward in self._open.values()]

    def get(self, forward_id: str) -> ForwardDetail:
        """Show one with its connections.

        Raises:
            NotFound: none is open with this id.
        """
        return self._find(forward_id).detail(self._name_of, time.monotonic())

    async def open(self, subject: Subject, way: Way, *, instead: str = "") -> OpenForward:
        """Authorize a forward and list it until it is released; audited.

        Args:
            subject: Who declared it; each connection is authorized for them again.
            way: What it is.
            instead: Set when something keeps it up, so that it can't be closed by itself: what to
                do instead, in words.

        Raises:
            Forbidden: the subject may not forward through its nodes.
            Conflict: the subject has 1,000 forwards open.
        """
        try:
            self._authorize(subject, way)
        except Forbidden:
            await self._audit.record(
                subject.name,
                "forward.open",
                self._object(way),
                outcome="denied",
                address=subject.address,
            )
            raise
        limit = self._limits.forwards_per_user
        if sum(f.subject.user_id == subject.user_id for f in self._open.values()) >= limit:
            raise Conflict(f"you have {limit} forwards open; close some first")
        forward = OpenForward(self, subject, way, instead)
        self._open[forward.id] = forward
        try:
            await self._record(forward, "forward.open", "ok", {})
        except BaseException:
            del self._open[forward.id]
            raise
        return forward

    @asynccontextmanager
    async def declare(
        self, subject: Subject, way: Way, *, instead: str = ""
    ) -> AsyncIterator[OpenForward]:
        """Hold a forward while the block runs; connections that are open then live on.

        Raises:
            Forbidden, Conflict: as `open`.
        """
        forward = await self.open(subject, way, instead=instead)
        try:
            yield forward
        finally:
            await forward.release()

    async def close(self, subject: Subject, forward_id: str) -> None:
        """Close a forward: reset its connections, and refuse what its client opens again.

        Raises:
            NotFound: none is open with this id.
            Forbidden: it is another's, and the subject is no administrator.
            Conflict: something keeps it up; the text says what to change.
        """
        forward = self._find(forward_id)
        try:
            if forward.subject.user_id != subject.user_id:
                authorize(subject, Verb.ADMIN)
            self._authorize(subject, forward.way)
        except Forbidden:
            await self._audit.record(
                subject.name,
                "forward.kill",
                self._object(forward.way),
                outcome="denied",
                address=subject.address,
            )
            raise
        if forward.instead:
            raise Conflict(forward.instead)
        await self._audit.record(
            subject.name, "forward.kill", self._object(forward.way), address=subject.address
        )
        forward.close(f"the forward was closed by {subject.name}")
        await self._ended(forward)

    # --- inside ---

    def _find(self, forward_id: str) -> OpenForward:
        forward = self._open.get(forward_id)
        if forward is None:
            raise NotFound("open forward", forward_id)
        return forward

    def _authorize(self, subject: Subject, way: Way) -> None:
        authorize(subject, Verb.FORWARD, self._name_of(way.node))
        if way.to_node is not None:
            authorize(subject, Verb.FORWARD, self._name_of(way.to_node))

    def _admit_connection(self, forward: OpenForward) -> None:
        if forward.closed:
            raise Conflict(forward.closed)
        self._authorize(forward.subject, forward.way)
        user, limit = forward.subject.user_id, self._limits.connections_per_user
        if self._connections[user] >= limit:
            raise Conflict(f"you have {limit} connections open; close some first")
        self._connections[user] += 1

    def _connection_ended(self, forward: OpenForward) -> None:
        user = forward.subject.user_id
        self._connections[user] -= 1
        if not self._connections[user]:
            del self._connections[user]

    async def _ended(self, forward: OpenForward) -> None:
        """Nobody holds it, or it was closed; its end is audited once."""
        if self._open.pop(forward.id, None) is not None:
            detail = {**forward.totals, "reason": forward.closed}
            await self._record(forward, "forward.close", "ok", detail)

    async def _record(
        self,
        forward: OpenForward,
        act: str,
        outcome: Literal["ok", "denied"],
        detail: dict[str, Any],
    ) -> None:
        subject = forward.subject
        await self._audit.record(
            subject.name,
            act,
            self._object(forward.way),
            outcome=outcome,
            address=subject.address,
            detail={"forward": forward.id, "kind": forward.way.kind, **detail},
        )

    def _object(self, way: Way) -> str:
        """The way as the audit names it: node, where it listens, where it goes."""
        listens = "" if way.listen_port is None else f" {way.bind}:{way.listen_port} ->"
        place = "" if way.to_node is None else f" {self._name_of(way.to_node)}"
        target = "" if way.port is None else f" {way.host}:{way.port}"
        return f"{self._name_of(way.node)}{listens}{place}{target}"
