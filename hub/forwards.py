"""`Forwards`: the connections that clients have open through nodes: counted, limited, audited.

The rule it guards: what is listed is exactly what is open, because a forward is in the list for as
long as the block that carries it runs.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.errors import Conflict, Forbidden
from hub.ids import sortable_id
from hub.nodeview import NodeView
from hub.splice import Traffic

PER_USER = 1000


class ForwardView(msgspec.Struct, frozen=True, kw_only=True):
    """An open forward as the API shows it."""

    id: str
    node: str
    subject: str
    host: str
    port: int
    since: float
    """Seconds since the epoch."""
    sent_bytes: int
    """From the client to the target."""
    received_bytes: int


@dataclass(slots=True)
class OpenForward:
    """One connection; `reason` is set when it does not end by itself."""

    id: str
    node: str
    subject: str
    host: str
    port: int
    since: float
    traffic: Traffic = field(default_factory=Traffic)
    reason: str = ""

    def view(self) -> ForwardView:
        """Show it with the bytes so far."""
        return ForwardView(
            id=self.id,
            node=self.node,
            subject=self.subject,
            host=self.host,
            port=self.port,
            since=self.since,
            sent_bytes=self.traffic.sent.size_bytes,
            received_bytes=self.traffic.received.size_bytes,
        )


@dataclass(slots=True)
class Forwards:
    """All open forwards of the hub."""

    _audit: Audit
    _open: dict[str, OpenForward] = field(default_factory=dict)

    def list(self) -> list[ForwardView]:
        """Show the open ones, oldest first."""
        return [forward.view() for forward in self._open.values()]

    @asynccontextmanager
    async def carry(
        self, subject: Subject, node: NodeView, host: str, port: int
    ) -> AsyncIterator[OpenForward]:
        """Authorize a forward and list it while the block runs; audited at both ends.

        Raises:
            Forbidden: the subject may not forward through that node.
            Conflict: the subject has 1,000 forwards open.
        """
        target = f"{node.name} {host}:{port}"
        try:
            authorize(subject, Verb.FORWARD, node.name)
        except Forbidden:
            await self._audit.record(
                subject.name, "forward.open", target, outcome="denied", address=subject.address
            )
            raise
        if sum(entry.subject == subject.name for entry in self._open.values()) >= PER_USER:
            raise Conflict(f"you have {PER_USER} forwards open; close some first")
        forward = OpenForward(sortable_id(), node.name, subject.name, host, port, time.time())
        self._open[forward.id] = forward
        try:
            await self._audit.record(subject.name, "forward.open", target, address=subject.address)
            yield forward
        finally:
            del self._open[forward.id]
            await self._audit.record(
                subject.name,
                "forward.close",
                target,
                outcome="failed" if forward.reason else "ok",
                address=subject.address,
                detail={
                    "sent_bytes": forward.traffic.sent.size_bytes,
                    "received_bytes": forward.traffic.received.size_bytes,
                    "reason": forward.reason,
                },
            )
