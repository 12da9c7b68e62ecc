"""One link: a port of one node that comes out on another, kept up for as long as it may be.

The rule it guards: the port is open on the first node exactly while the link is enabled, whoever
declared it may still forward through both nodes, and that node is there. Whatever keeps it from
being up is tried again, later each time, and said in words.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hub.authz import Subject
from hub.connections import Connection
from hub.errors import Conflict, HubError, Unavailable
from hub.events import EventLog
from hub.forwards import Forwards, OpenForward
from hub.listeners import Listener, Listeners
from hub.node_reports import clean_text
from hub.registry import Registry
from hub.shells import until_first
from hub.store.links import LinkRow
from hub.ways import Way
from protocol.aio import ResetCode, Stream, StreamReset
from protocol.errors import LocalProtocolError
from protocol.messages import Forward

logger = logging.getLogger(__name__)

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0

State: TypeAlias = Literal["up", "waiting", "refused", "disabled"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a link does, and why, in words."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Services:
    """What a link works with."""

    registry: Registry
    listeners: Listeners
    forwards: Forwards
    events: EventLog
    name_of: Callable[[str], str]
    """The name of a node."""
    subject_of: Callable[[LinkRow], Awaitable[Subject]]
    """Who declared the link, as they are now.

    Raises:
        Conflict: they may not have it any more.
    """


class Link:
    """One link; `run` keeps it up until it is deleted."""

    def __init__(self, row: LinkRow, services: Services) -> None:
        self.row = row
        self._services = services
        self._forward: OpenForward | None = None
        self._listener: Listener | None = None
        self._trouble: Standing | None = Standing("waiting", "it was not tried yet")
        """Why its port is not open."""
        self._far_side = Standing("up")
        """What the last connection met beyond the second node."""
        self._changed = asyncio.Event()
        self._ended = ""
        """Who ended it, and how."""
        self._deleted = False
        self._told_up = False

    # --- for whoever shows and changes it ---

    @property
    def forward_id(self) -> str | None:
        """The id of its forward while its port is open."""
        return None if self._forward is None else self._forward.id

    @property
    def standing(self) -> Standing:
        """How it does now."""
        if not self.row.enabled:
            return Standing("disabled", self._ended)
        if self._trouble is not None:
            return self._trouble
        name_of, is_online = self._services.name_of, self._services.registry.is_online
        if not is_online(self.row.from_node):
            return Standing("waiting", f"{name_of(self.row.from_node)} is not connected")
        if self._listener is not None and not self._listener.is_open:
            return Standing("waiting", f"{name_of(self.row.from_node)} opens the port again")
        if not is_online(self.row.to_node):
            return Standing("waiting", f"{name_of(self.row.to_node)} is not connected")
        return Standing("up") if self._is_carrying() else self._far_side

    def wake(self) -> None:
        """Look again: a node came or went, or a right changed."""
        self._changed.set()

    def replace(self, row: LinkRow, reason: str) -> None:
        """Take a changed row; `reason` is told to the connections that end by it."""
        self.row, self._ended = row, "" if row.enabled else reason
        self.wake()

    def delete(self, reason: str) -> None:
        """End for good; `reason` is told to its connections."""
        self._ended, self._deleted = reason, True
        self.wake()

    # --- its life ---

    async def run(self) -> None:
        """Keep it up until it is deleted or this is cancelled."""
        failures = 0
        while not self._deleted:
            self._changed.clear()
            try:
                await self._try()
            except Exception:
                logger.exception("the link %s failed", self.row.name)
                self._trouble = Standing("waiting", "the hub failed; its log says why")
            await self._tell()
            if await self._is_woken(min(LONGEST_RETRY_S, FIRST_RETRY_S * 2**failures)):
                failures = 0
            else:
                failures = min(failures + 1, 16)

    async def _is_woken(self, wait_s: float) -> bool:
        """Wait for a change, or about so long; says which it was."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                await self._changed.wait()
                return True
        return False

    async def _try(self) -> None:
        """Open the port and stand, until something ends it; leaves why in `_trouble`."""
        if not self.row.enabled:
            self._trouble = Standing("disabled", self._ended)
            return
        try:
            await self._open()
            self._trouble = Standing("disabled", self._ended)
        except StreamReset as reset:
            self._trouble = self._said_by_first_node(reset)
        except Conflict as refusal:
            self._trouble = Standing("refused", str(refusal))
        except HubError as error:
            self._trouble = Standing("waiting", str(error))
        finally:
            self._forward = None

    async def _open(self) -> None:
        row, services = self.row, self._services
        subject = await services.subject_of(row)
        way = Way(
            kind="link",
            node=row.from_node,
            bind=row.bind,
            listen_port=row.port,
            to_node=row.to_node,
            host=row.host,
            port=row.to_port,
            name=row.name,
        )
        instead = f"the link {row.name} keeps this forward up; disable or delete the link"
        listening = services.listeners.open(
            row.from_node, row.bind, row.port, row.created_by, self._carry
        )
        async with (
            listening as listener,
            services.forwards.declare(subject, way, instead=instead) as self._forward,
        ):
            self._trouble, self._listener, why = None, listener, ""
            try:
                await self._stand(listener)
            except (HubError, StreamReset) as error:
                why = str(error)
                raise
            finally:
                self._forward.end_connections(why or self._ended or "the hub is stopping")

    async def _stand(self, listener: Listener) -> None:
        """Stay until the link is disabled or deleted.

        Raises:
            StreamReset: the node closed the port, or is gone.
            Conflict: who declared the link may not have it any more.
        """
        cause: StreamReset | None = None

        async def node_ends() -> None:
            nonlocal cause
            cause = await listener.ended()

        async def change() -> None:
            await self._changed.wait()

        while self.row.enabled and not self._deleted:
            self._changed.clear()
            await self._services.subject_of(self.row)
            await self._tell()
            await until_first(node_ends(), change())
            if cause is not None:
                raise cause

    async def _carry(self, peer: str, incoming: Stream) -> None:
        """Carry one connection from the first node to the second."""
        row, services, forward = self.row, self._services, self._forward
        if forward is None:
            raise Unavailable(f"the link {row.name} is not up")
        try:
            await services.subject_of(row)
        except Conflict as refusal:
            await forward.note_denied(str(refusal))
            raise
        async with forward.connection(peer) as connection:
            opened = Forward(host=row.host, port=row.to_port, subject=row.created_by)
            try:
                outgoing = await services.registry.open(row.to_node, opened)
            except LocalProtocolError as error:
                raise Unavailable(str(error)) from error
            self._note(connection, await connection.carry(incoming, outgoing))

    def _note(self, connection: Connection, cause: StreamReset | None) -> None:
        """Remember whether the second node let a connection through."""
        if connection.ended is not None:
            return
        told = Standing("up")
        if cause is not None and not connection.traffic.received.size_bytes:
            said = f"{self._services.name_of(self.row.to_node)}: {clean_text(str(cause))}"
            if cause.code is ResetCode.REFUSED:
                told = Standing("refused", said)
            elif cause.code in (ResetCode.UNREACHABLE, ResetCode.TIMEOUT):
                told = Standing("up", f"the last connection failed: {said}")
        if told != self._far_side:
            self._far_side = told
            self.wake()

    def _is_carrying(self) -> bool:
        """Whether a connection that is open now got an answer."""
        open_now = self._forward.connections.values() if self._forward is not None else ()
        return any(connection.traffic.received.size_bytes for connection in open_now)

    def _said_by_first_node(self, reset: StreamReset) -> Standing:
        name = self._services.name_of(self.row.from_node)
        if reset.code is ResetCode.UNKNOWN_KIND:
            return Standing("refused", f"{name}: its agent can't listen yet; update it")
        state: State = "refused" if reset.code is ResetCode.REFUSED else "waiting"
        return Standing(state, f"{name}: {clean_text(str(reset))}")

    async def _tell(self) -> None:
        """Publish that it is up or down, when that changed."""
        standing = self.standing
        if (standing.state == "up") == self._told_up:
            return
        self._told_up = not self._told_up
        kind = "link.up" if self._told_up else "link.down"
        data = {"link": self.row.name, "state": standing.state, "reason": standing.reason}
        node_id = self.row.from_node
        try:
            await self._services.events.publish(
                kind, node_id=node_id, node=self._services.name_of(node_id), data=data
            )
        except Unavailable as error:
            logger.warning("%s of %s is not stored: %s", kind, self.row.name, error)
