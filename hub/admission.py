"""Whose TLS handshake may begin: so many at once, so many a second, the rest in line.

The rule it guards: a handshake costs the hub's one thread about two milliseconds, so after a
restart ten thousand agents would stop everything else for half a minute. Each kind of connection
has a `Lane` of its own: agents that return delay neither people nor the tunnels that live.

    async with lane.turn(address): # TurnedAway: close the connection, it comes back later
        ...                        # shake hands
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hub.address_limits import AddressLimits, TooManyFromAddress
from hub.telemetry import Counter, Telemetry

PATIENCE_S = 15.0
"""How long somebody waits in line: agents give up a dial after 20 s."""
IN_FLIGHT = 500
IN_LINE = 1000
BURST_S = 0.02
"""How much of a rate may be used at once after a pause: others wait behind it."""


class TurnedAway(Exception):
    """No handshake for this connection: too many wait, or it waited too long."""


class Lane:
    """A line of one kind of connections: first come, first served."""

    def __init__(self, per_s: float | None = None, in_flight: int = IN_FLIGHT) -> None:
        """Let `per_s` begin each second (None: any number), and `in_flight` at once.

        With a rate, the line is as long as what can begin while somebody is patient; one address
        may take half of it.
        """
        self._per_s = per_s
        self._room = in_flight
        self._limit = IN_LINE if per_s is None else int(per_s * PATIENCE_S)
        self._addresses = AddressLimits(max(1, self._limit // 2))
        self._line: deque[asyncio.Future[None]] = deque()
        self._level = self._burst = 1.0 if per_s is None else max(1.0, per_s * BURST_S)
        self._filled_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.admitted = Counter()
        self.turned_away = Counter()

    @property
    def waiting(self) -> int:
        """How many are in line."""
        self._forget_gone()
        return len(self._line)

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Wait in line, then hold a place for the length of the block.

        Raises:
            TurnedAway: the line is full, or half of it is of this address, or it took longer than
                15 s.
        """
        await self._enter(address)
        try:
            yield
        finally:
            self._room += 1
            self._admit()

    async def _enter(self, address: str) -> None:
        try:
            if self.waiting >= self._limit:
                raise TurnedAway("the line is full")
            with self._addresses.entering(address):
                await self._wait()
        except TooManyFromAddress as error:
            self.turned_away.add()
            raise TurnedAway(str(error)) from error
        except TurnedAway:
            self.turned_away.add()
            raise
        self.admitted.add()

    async def _wait(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self._admit()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # admitted and given up in one moment
                self._room += 1
                self._admit()
            if isinstance(error, TimeoutError):
                raise TurnedAway(f"no turn within {PATIENCE_S:.0f} s") from None
            raise

    def _admit(self) -> None:
        """Let begin who may."""
        now = asyncio.get_running_loop().time()
        while self.waiting and self._room:
            if wait_s := self._take(now):
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)
                return
            self._room -= 1
            self._line.popleft().set_result(None)

    def _forget_gone(self) -> None:
        """Drop who gave up: all are equally patient, so they are the first in line."""
        while self._line and self._line[0].done():
            self._line.popleft()

    def _tick(self) -> None:
        self._timer = None
        self._admit()

    def _take(self, now: float) -> float:
        """Take one from the bucket; returns 0.0, or the seconds until there is one."""
        if self._per_s is None:
            return 0.0
        self._level = min(self._burst, self._level + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self._per_s
        self._level -= 1.0
        return 0.0


def expose_returning(telemetry: Telemetry, lane: Lane) -> None:
    """Register what `/metrics` says of the lane in which agents return."""
    telemetry.counter("mooring_tunnels_admitted_total", "Handshakes begun.", lane.admitted)
    telemetry.counter(
        "mooring_tunnels_turned_away_total", "Agents sent back to their back-off.", lane.turned_away
    )
    telemetry.gauge("mooring_tunnels_waiting", "Agents in line.", lambda: lane.waiting)
