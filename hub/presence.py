"""Who came and who went, stored many at a time: after a restart all nodes come within a minute.

The rule it guards: nobody's move is told before it is stored, and each is stored with its event in
one unit. The first who comes stores for all who wait meanwhile; nothing waits for company.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.errors import Unavailable
from hub.events import Event, EventLog
from hub.nodeview import NodeView
from hub.store import nodes as rows
from hub.store.connection import Connection
from hub.store.engine import Store

logger = logging.getLogger(__name__)

MOVES_AT_ONCE = 250
"""In one unit of a write: everybody else's writes wait for it, some milliseconds."""


@dataclass(slots=True, eq=False)
class Move:
    """A node came online from `address`, or went offline (None)."""

    node_id: str
    at: float
    address: str | None
    detail: dict[str, Any]
    """What the event says."""
    done: bool = False

    @property
    def online(self) -> bool:
        """Whether it came."""
        return self.address is not None


@dataclass(slots=True)
class Presence:
    """Stores moves; `take` is told each when it is stored, or can't be."""

    store: Store
    events: EventLog
    find: Callable[[str], NodeView | None]
    take: Callable[[Move], None]
    _waiting: deque[Move] = field(default_factory=deque)
    _storing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def note(self, move: Move) -> None:
        """Store a move; when the store fails, memory still tells the truth."""
        self._waiting.append(move)
        while not move.done:
            async with self._storing:
                if not move.done:
                    await self._store_some()

    async def _store_some(self) -> None:
        count = min(len(self._waiting), MOVES_AT_ONCE)
        moves = [self._waiting.popleft() for _ in range(count)]

        async def unit(connection: Connection) -> list[Event]:
            await rows.move_nodes(connection, [(m.node_id, m.at, m.address) for m in moves])
            known = [(move, view) for move in moves if (view := self.find(move.node_id))]
            drafts = [
                self.events.draft(
                    "node.online" if move.online else "node.offline",
                    node_id=view.id,
                    node=view.name,
                    data=move.detail,
                )
                for move, view in known
            ]
            return await self.events.insert(connection, drafts)

        def stored(events: Sequence[Event]) -> None:
            self._take_all(moves)
            self.events.tell(events)

        try:
            await self.store.write(unit, then=stored)
        except Exception as error:
            is_bug = not isinstance(error, Unavailable)
            text = "the coming or going of %d nodes is not stored: %s"
            logger.error(text, len(moves), error, exc_info=is_bug)
            self._take_all(moves)
        except asyncio.CancelledError:  # somebody else stores what is left
            self._waiting.extendleft(move for move in reversed(moves) if not move.done)
            raise

    def _take_all(self, moves: Sequence[Move]) -> None:
        for move in moves:
            if not move.done:
                move.done = True
                self.take(move)
