"""`EventLog`: what happened, stored and told live; the one source of what the pages show.

The rule it guards: an event is told only after it is stored, in the order of its id, and a
subscriber misses none: one that is too slow to keep up reads on from the database.

    await events.publish("node.online", node_id=node.id, node=node.name)
    drafts = [events.draft("task.created", data=data)]
    await store.write(lambda connection: events.insert(connection, drafts), then=events.tell)
    with events.subscribe() as subscription:
        async for event in subscription: ...
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hub.errors import Unavailable
from hub.store import events as queries
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.events import Draft

QUEUE_LIMIT = 1_024
"""Events that wait for one subscriber; past this it reads them from the database."""
SUBSCRIPTIONS_LIMIT = 2_000
READ_LIMIT = 500
KEEP_S = 7 * 86_400
PRUNE_LIMIT = 500
"""Events deleted in one unit, so that other writes wait a few milliseconds at most."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened; `data` depends on `kind` (docs/design/api.md)."""

    id: int
    at: float
    """Seconds since the epoch."""
    kind: str
    node: str | None
    """The node's name at that time."""
    data: dict[str, Any]


@dataclass(slots=True, eq=False)
class Subscription:
    """One reader of the log: an asynchronous iterator in the order of ids, until `close`."""

    _log: EventLog
    _last_id: int
    _behind: bool
    _queue: deque[Event] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False

    def close(self) -> None:
        """End the iteration, what waits included."""
        self._closed = True
        self._wake.set()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        while not self._closed:
            while self._queue:
                event = self._queue.popleft()
                if event.id > self._last_id:
                    self._last_id = event.id
                    return event
            if self._behind:
                await self._catch_up()
            else:
                self._wake.clear()
                await self._wake.wait()
        raise StopAsyncIteration

    def _offer(self, event: Event) -> None:
        if self._behind:
            return
        if len(self._queue) >= QUEUE_LIMIT:
            self._last_id = max(self._last_id, self._queue[0].id - 1)
            self._queue.clear()
            self._behind = True
        else:
            self._queue.append(event)
        self._wake.set()

    async def _catch_up(self) -> None:
        """Read a page from the database; live events queue up meanwhile and follow it."""
        self._behind = False
        try:
            page = await self._log.after(self._last_id, READ_LIMIT)
        except BaseException:
            self._behind = True
            raise
        if len(page) == READ_LIMIT:
            self._queue.clear()
            self._behind = True
        self._queue.extendleft(reversed(page))


@dataclass(slots=True)
class EventLog:
    """Stores events and fans them out in this process."""

    _store: Store
    _clock: Callable[[], float] = time.time
    _subscriptions: set[Subscription] = field(default_factory=set)

    async def publish(
        self,
        kind: str,
        *,
        node_id: str | None = None,
        node: str | None = None,
        data: msgspec.Struct | dict[str, Any] | None = None,
    ) -> Event:
        """Store an event, tell the subscribers, and return it.

        Raises:
            Unavailable: the store takes no more writes now.
        """
        draft = self.draft(kind, node_id=node_id, node=node, data=data)
        [event] = await self._store.write(
            lambda connection: self.insert(connection, [draft]), then=self.tell
        )
        return event

    def draft(
        self,
        kind: str,
        *,
        node_id: str | None = None,
        node: str | None = None,
        data: msgspec.Struct | dict[str, Any] | None = None,
    ) -> Draft:
        """Describe what happens now, to be stored in the unit of what it tells about."""
        document = msgspec.to_builtins(data) if data is not None else {}
        return Draft(self._clock(), kind, node_id, node, document)

    async def insert(self, connection: Connection, drafts: Sequence[Draft]) -> list[Event]:
        """Store events in somebody's unit of a write, whose `then` must `tell` them."""
        ids = await queries.insert_events(connection, drafts)
        return [
            Event(event_id, draft.at, draft.kind, draft.node, draft.data)
            for event_id, draft in zip(ids, drafts, strict=True)
        ]

    def tell(self, events: Iterable[Event]) -> None:
        """Hand stored events to the subscribers; called by a write's `then`, in order of ids."""
        for event in events:
            for subscription in self._subscriptions:
                subscription._offer(event)

    @contextmanager
    def subscribe(self, after: int | None = None) -> Iterator[Subscription]:
        """Follow the log: from now on, or from the event after the id `after`.

        Raises:
            Unavailable: 2,000 follow it already.
        """
        if len(self._subscriptions) >= SUBSCRIPTIONS_LIMIT:
            raise Unavailable("too many follow the events; close some pages or streams")
        behind = after is not None
        subscription = Subscription(self, after or 0, behind)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def after(self, event_id: int, limit: int) -> list[Event]:
        """Return up to `limit` stored events with a larger id, oldest first."""
        async with self._store.read() as connection:
            rows = await queries.events_after(connection, event_id, limit)
        return [Event(*row) for row in rows]

    async def of_node(self, node_id: str, limit: int, *, before: int | None = None) -> list[Event]:
        """Return up to `limit` of a node's events with an id below `before`, newest first."""
        async with self._store.read() as connection:
            rows = await queries.events_of_node(connection, node_id, before, limit)
        return [Event(*row) for row in rows]

    async def prune(self) -> int:
        """Delete what is older than 7 days; return how many."""
        until = self._clock() - KEEP_S
        total = 0
        while count := await self._store.write(
            lambda connection: queries.delete_events(connection, until, PRUNE_LIMIT)
        ):
            total += count
        return total

    def close(self) -> None:
        """End all subscriptions: the hub closes."""
        for subscription in self._subscriptions:
            subscription.close()
