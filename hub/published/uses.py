"""`Uses`: who uses which service now; a use is listed and audited as one forward.

The rule it guards: every request and socket is a connection of a use, authorized by itself, within
a bound per browser. A use begins with the first of them, ends a minute after the last or with the
entry, and only its two ends are in the audit. Closing the forward ends the entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hub.connections import Connection
from hub.errors import HubError, Unavailable
from hub.forwards import Forwards, OpenForward
from hub.nodeview import NodeView
from hub.published.entries import Entry
from hub.published.services import Service
from hub.shells import until_first
from hub.ways import Way

IDLE_S = 60.0
AT_ONCE = 64
"""Requests and sockets of one browser to one service."""


@dataclass(eq=False, slots=True)
class _Use:
    """One entry's requests and sockets, as long as they are not a minute apart."""

    opened: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    forward: OpenForward | None = None
    error: HubError | None = None
    active: int = 0
    idle: asyncio.TimerHandle | None = None


@dataclass(slots=True)
class Uses:
    """All uses of the hub; nobody is served before `run`."""

    _forwards: Forwards
    _uses: dict[Entry, _Use] = field(default_factory=dict)
    _tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Carry uses until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                await asyncio.Event().wait()
        finally:
            self._tasks = None

    @asynccontextmanager
    async def admit(
        self, entry: Entry, service: Service, node: NodeView
    ) -> AsyncIterator[Connection]:
        """Count one request or socket as a connection of the entry's use while the block runs.

        Raises:
            Forbidden: the subject may not forward through that node.
            Conflict: the subject has too many forwards or connections open, or this one was closed.
            Unavailable: 64 requests and sockets of this browser are open, or the hub stops.
        """
        use = self._use(entry, service, node)
        if use.active >= AT_ONCE:
            raise Unavailable(f"{AT_ONCE} requests of yours are open there; close some pages")
        self._begin(use, service)
        try:
            await use.opened.wait()
            if use.forward is None:
                raise use.error or Unavailable("the hub is stopping; try again in a minute")
            async with use.forward.connection(entry.subject.address) as connection:
                yield connection
        finally:
            self._end(use, service)

    def _use(self, entry: Entry, service: Service, node: NodeView) -> _Use:
        use = self._uses.get(entry)
        if use is None or use.over.is_set():
            if self._tasks is None:
                raise Unavailable("the hub is starting or stopping; try again in a minute")
            use = self._uses[entry] = _Use()
            self._tasks.create_task(self._carry(use, entry, service, node))
        return use

    async def _carry(self, use: _Use, entry: Entry, service: Service, node: NodeView) -> None:
        row = service.row
        way = Way(kind="published", node=node.id, host=row.host, port=row.port, name=row.name)
        try:
            async with self._forwards.declare(entry.subject, way) as forward:
                use.forward = forward
                use.opened.set()
                await until_first(use.over.wait(), entry.ended(), forward.wait_closed())
            if forward.closed:
                entry.end()
        except HubError as error:
            use.error = error
        finally:
            use.over.set()
            use.opened.set()
            if self._uses.get(entry) is use:
                del self._uses[entry]

    def _begin(self, use: _Use, service: Service) -> None:
        if use.idle is not None:
            use.idle.cancel()
        use.active += 1
        service.active += 1
        service.requests += 1

    def _end(self, use: _Use, service: Service) -> None:
        service.active -= 1
        use.active -= 1
        if not use.active:
            use.idle = asyncio.get_running_loop().call_later(IDLE_S, use.over.set)
