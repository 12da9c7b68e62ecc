"""The one writer: units of work in, one transaction for all that wait, results out.

The rule it guards: a caller hears of success only after the commit that holds its unit, and a unit
that raises undoes only itself (a savepoint each; none when the transaction holds a single unit).
The queue is bounded; when it is full a write is refused with `Unavailable` and nothing is done.

Used by `Store.write` alone; `run` lives in the store's TaskGroup until `close`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from hub.errors import Conflict, Unavailable
from hub.store.driver import DriverConnection

logger = logging.getLogger(__name__)

T = TypeVar("T")
QUEUE_LIMIT = 10_000
"""Units that may wait; at 10,000 rows/s of group commits this is about a second of work."""
BATCH_LIMIT = 256
"""Units in one transaction: past this the commit's cost is already shared enough."""

TURN_S = 0.002
"""Statements run on the event loop (`driver.py`): after 2 ms everybody else has a turn."""


@dataclass(frozen=True, slots=True)
class _Work:
    unit: Callable[[AsyncConnection], Awaitable[Any]]
    then: Callable[[Any], None] | None
    done: asyncio.Future[Any]

    def succeed(self, result: Any) -> None:
        """Tell that the commit holds the unit: first `then`, even when the caller is gone."""
        if self.then is not None:
            try:
                self.then(result)
            except Exception:
                logger.exception("what follows a committed write failed")
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Tell that nothing was written: what the unit raised, or that the disk took nothing."""
        if not self.done.done():
            self.done.set_exception(_as_ours(error))


@dataclass(slots=True)
class Writer:
    """Runs units of work on one connection, in order, in group commits."""

    engine: AsyncEngine
    _waiting: deque[_Work] = field(default_factory=deque)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False
    """No more units are taken."""

    @property
    def depth(self) -> int:
        """Units that wait now."""
        return len(self._waiting)

    async def submit(
        self,
        unit: Callable[[AsyncConnection], Awaitable[T]],
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run the unit in the next transaction and return its result after the commit.

        A caller cancelled while waiting withdraws its unit, unless that has begun.

        Raises:
            Unavailable: the queue is full, the writer is closing, or the commit failed.
        """
        if self.closing:
            raise Unavailable("the store is closing")
        if len(self._waiting) >= QUEUE_LIMIT:
            raise Unavailable("too many writes are waiting; try again in a moment")
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(unit, then, done))
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Write until `close` is called and everything that waited is committed."""
        try:
            async with self.engine.connect() as connection:
                while batch := await self._next_batch():
                    await self._write(connection, batch)
        finally:
            self.closing = True
            while self._waiting:
                self._waiting.popleft().fail(Unavailable("the store is closing"))

    def close(self) -> None:
        """Take no more units; `run` returns when those that wait are written."""
        self.closing = True
        self._wake.set()

    async def _next_batch(self) -> list[_Work]:
        while True:
            while self._waiting:
                taken = [
                    self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_LIMIT))
                ]
                if batch := [work for work in taken if not work.done.done()]:
                    return batch
            if self.closing:
                return []
            self._wake.clear()
            await self._wake.wait()

    async def _write(self, connection: AsyncConnection, batch: list[_Work]) -> None:
        results: list[tuple[_Work, Any]] = []
        try:
            async with connection.begin():
                if len(batch) == 1:
                    results.append((batch[0], await batch[0].unit(connection)))
                else:
                    await self._write_in_savepoints(connection, batch, results)
        except asyncio.CancelledError:
            for work in batch:
                work.fail(Unavailable("the store closed before the write was committed"))
            raise
        except Exception as error:
            self._report_failure(batch, error)
            return
        for work, result in results:
            work.succeed(result)

    async def _write_in_savepoints(
        self, connection: AsyncConnection, batch: list[_Work], results: list[tuple[_Work, Any]]
    ) -> None:
        now = asyncio.get_running_loop().time
        yielded_at = now()
        for work in batch:
            await self._write_in_savepoint(connection, work, results)
            if now() - yielded_at > TURN_S:
                await asyncio.sleep(0)
                yielded_at = now()

    async def _write_in_savepoint(
        self, connection: AsyncConnection, work: _Work, results: list[tuple[_Work, Any]]
    ) -> None:
        try:
            async with connection.begin_nested():
                result = await work.unit(connection)
        except Exception as error:
            if not await _in_transaction(connection):
                raise  # SQLite gave the whole transaction up (disk full): every unit is undone
            work.fail(error)
        else:
            results.append((work, result))

    def _report_failure(self, batch: list[_Work], error: Exception) -> None:
        """A single unit's own error goes to its caller as it is; a lost transaction to all."""
        if len(batch) == 1:
            batch[0].fail(error)
            return
        logger.error("a transaction of %d writes was lost: %s", len(batch), error)
        for work in batch:
            unavailable = Unavailable("the store could not commit; nothing was written")
            unavailable.__cause__ = error if isinstance(error, DBAPIError) else None
            work.fail(unavailable)


async def _in_transaction(connection: AsyncConnection) -> bool:
    """Ask SQLite itself: SQLAlchemy does not know of a transaction that was given up."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    return isinstance(driver, DriverConnection) and driver.in_transaction


def _as_ours(error: BaseException) -> BaseException:
    """Return the hub's own error for what the database says."""
    if isinstance(error, OperationalError):
        return named(error)
    if isinstance(error, IntegrityError) and "FOREIGN KEY" in str(error.orig):
        gone = Conflict("something that this belongs to was removed meanwhile; look again")
        gone.__cause__ = error
        return gone
    return error


def named(error: OperationalError) -> Unavailable:
    """Return the hub's own error for a database that does not work: disk full or gone, locked."""
    unavailable = Unavailable(f"the database does not work: {error.orig}")
    unavailable.__cause__ = error
    return unavailable
