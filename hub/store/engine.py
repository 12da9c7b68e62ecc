"""`Store`: the hub's database; reads from a pool, writes through one group-committing writer.

The rule it guards: nothing writes but the writer (readers are opened `query_only`), and a crash at
any moment leaves a database that opens (WAL, transactional migrations).

    async with Store.open("sqlite+aiosqlite:///hub.db") as store:
        async with store.read() as connection: ...
        await store.write(lambda connection: accounts.insert_user(connection, user))
"""

from __future__ import annotations

import asyncio
from asyncio import TaskGroup
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from hub.errors import BadRequest, Unavailable
from hub.store.driver import DriverConnection, connect
from hub.store.migrations.upgrade import upgrade
from hub.store.writer import Writer, named

T = TypeVar("T")
READERS = 4
"""Connections for reads: SQLite reads are short, and each connection is a thread."""
CHECKOUT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Store:
    """An open database; made by `Store.open`."""

    _readers: AsyncEngine
    _writer: Writer

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Store]:
        """Migrate the database at `url`, start the writer; at the end write all that waits.

        Raises:
            BadRequest: the URL is not a `sqlite+aiosqlite:///` one with a file.
            Unavailable: the file cannot be opened or migrated; it is left as it was.
        """
        path = _path_of(url)
        await asyncio.to_thread(_migrate, path)
        readers = _engine(path, read_only=True)
        writing = _engine(path, read_only=False)
        writer = Writer(writing)
        failure: Exception | None = None
        try:
            async with TaskGroup() as group:
                running = group.create_task(writer.run(), name="store-writer")
                try:
                    yield cls(readers, writer)
                except Exception as error:  # the body's own, not to be wrapped in a group
                    failure = error
                finally:
                    writer.close()
                    await asyncio.wait([running])  # drain first, also when we are cancelled
        finally:
            await readers.dispose()
            await writing.dispose()
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Lend a connection for reads; each statement sees the latest commit.

        Raises:
            Unavailable: all connections were busy for 10 s, the store is closing, or the database
                does not work.
        """
        if self._writer.closing:
            raise Unavailable("the store is closing")
        connection = self._readers.connect()
        try:
            await connection.start()
        except PoolTimeout as error:
            raise Unavailable("the database is busy; try again in a moment") from error
        except OperationalError as error:
            raise named(error) from error
        try:
            yield connection
        except OperationalError as error:
            raise named(error) from error
        finally:
            await connection.close()

    async def write(
        self,
        unit: Callable[[AsyncConnection], Awaitable[T]],
        *,
        then: Callable[[T], None] | None = None,
    ) -> T:
        """Run one unit of a group commit and return its result once it is on disk.

        The unit does SQL and nothing else: everybody's writes wait for it. `then` is called with
        the result right after the commit, in the order of the units, even when the caller has been
        cancelled meanwhile; it must neither block nor raise.

        Raises:
            Unavailable: too many writes wait, the store is closing, the database does not work, or
                the commit failed.
        """
        return await self._writer.submit(unit, then)

    async def check(self) -> None:
        """Pass a transaction through the writer.

        Raises:
            Unavailable: it takes none.
        """

        async def nothing(_connection: AsyncConnection) -> None:
            return None

        await self.write(nothing)

    @property
    def queue_depth(self) -> int:
        """Writes that wait now."""
        return self._writer.depth


def _path_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BadRequest(f"the database URL does not parse: {error}") from error
    path = parsed.database
    if parsed.drivername != "sqlite+aiosqlite" or not path or path.startswith((":", "file:")):
        raise BadRequest(
            f"the database {parsed.render_as_string()} is not supported; "
            "use sqlite+aiosqlite:///PATH"
        )
    return Path(path)


def _migrate(path: Path) -> None:
    """Bring the schema up to date in one transaction, and switch the file to WAL."""
    engine = create_engine(
        "sqlite://", creator=lambda: connect(path, read_only=False), poolclass=NullPool
    )
    event.listen(engine, "begin", _begin_immediate)
    try:
        path.touch(mode=0o600, exist_ok=True)
        with engine.connect() as connection:
            upgrade(connection)
    except OSError as error:
        raise Unavailable(f"the database {path} cannot be opened: {error.strerror}") from error
    except DBAPIError as error:
        raise Unavailable(f"the database {path} cannot be opened: {error.orig}") from error
    finally:
        engine.dispose()


def _engine(path: Path, *, read_only: bool) -> AsyncEngine:
    """Make the readers' or the writer's engine.

    Readers need no transaction, so nothing is rolled back when one goes home to the pool.
    """
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        async_creator=lambda *_, **__: DriverConnection.open(path, read_only=read_only),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=READERS if read_only else 1,
        max_overflow=0,
        pool_timeout=CHECKOUT_TIMEOUT_S,
        pool_reset_on_return=None if read_only else "rollback",
    )
    if not read_only:
        event.listen(engine.sync_engine, "begin", _begin_immediate)
    return engine


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a later upgrade of a read lock could not wait."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
