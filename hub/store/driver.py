"""SQLite for SQLAlchemy's async engine with as few changes of thread as can be.

aiosqlite crosses to its thread and back four times for one statement, which costs more than SQLite
itself (measured: 1.0 ms against 0.02 ms for an insert). A `DriverConnection` has aiosqlite's shape,
as its dialect uses it, and two ways to run: a reader crosses once a statement, rows included; the
writer runs statements where it stands, BEGIN and COMMIT too, and crosses only where SQLite waits:
for a lock that somebody else holds, and for the disk during a checkpoint (`checkpoint.py`). Any
other COMMIT only writes to the log, into the page cache. Where even that blocks (a network file
system, one mounted with `sync`, a disk far behind its writes) the event loop waits with it: keep
the database on a local disk. Used by `engine.py` as `async_creator`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from hub.store.checkpoint import Checkpoints

T = TypeVar("T")
BUSY_TIMEOUT_MS = 5_000
"""Patience with another process that writes: a backup, a shell on the file."""


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the file with our pragmas, and without the driver's own transactions.

    pysqlite's BEGIN would come too late for SAVEPOINT; the writer's is emitted by an event.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


class DriverConnection:
    """One SQLite connection and the thread that it may cross to; the writer's has checkpoints."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: ThreadPoolExecutor,
        checkpoints: Checkpoints | None,
    ) -> None:
        self._connection = connection
        self._thread = thread
        self._checkpoints = checkpoints

    @property
    def inline(self) -> bool:
        """Whether statements run where they are awaited."""
        return self._checkpoints is not None

    @classmethod
    async def open(cls, path: Path, *, read_only: bool) -> DriverConnection:
        """Open the file; readers cross threads for each statement, the writer does not."""
        thread = ThreadPoolExecutor(1, "store-reader" if read_only else "store-writer")
        connection = await asyncio.get_running_loop().run_in_executor(
            thread, lambda: connect(path, read_only=read_only)
        )
        if read_only:
            return cls(connection, thread, None)
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return cls(connection, thread, Checkpoints(path))

    @property
    def isolation_level(self) -> str | None:
        """Always None: transactions are explicit."""
        return self._connection.isolation_level

    @property
    def in_transaction(self) -> bool:
        """Whether SQLite has a transaction open; it gives one up by itself on a full disk."""
        return self._connection.in_transaction

    async def cross(self, call: Callable[[], T]) -> T:
        """Run the call on the connection's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def cursor(self) -> DriverCursor:
        """Make a cursor; nothing is touched yet."""
        return DriverCursor(self, self._connection.cursor())

    async def commit(self) -> None:
        """Commit, and start a checkpoint when it is time."""
        if self._checkpoints is None or self._checkpoints.may_sync():
            await self.cross(self._connection.commit)
        else:
            self._connection.commit()
        if self._checkpoints is not None:
            self._checkpoints.committed()

    async def begin(self, statement: str) -> None:
        """Take the lock to write: at once when it is free, else wait for it on the thread.

        Raises:
            sqlite3.OperationalError: somebody else held it for 5 s.
        """
        if self._checkpoints is not None:
            await self._checkpoints.room()
        try:
            self._connection.execute(statement)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            await self.cross(lambda: self._begin_patiently(statement))

    def _begin_patiently(self, statement: str) -> None:
        self._connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        try:
            self._connection.execute(statement)
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    async def rollback(self) -> None:
        """Roll back, where a transaction is open; it is only forgotten, nothing is written."""
        if self._connection.in_transaction:
            self._connection.rollback()

    async def create_function(self, *args: Any, **options: Any) -> None:
        """Register a function of SQL."""
        self._connection.create_function(*args, **options)

    async def close(self) -> None:
        """Break off the statement that runs, if any; close, and end the thread."""
        self._connection.interrupt()
        try:
            if self._checkpoints is not None:
                await self._checkpoints.close()
            await self.cross(self._connection.close)
        finally:
            self._thread.shutdown(wait=False)

    def stop(self) -> None:
        """Break off the statement that runs and end the thread; for a connection given up."""
        self._connection.interrupt()
        if self._checkpoints is not None:
            self._checkpoints.stop()
        self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)


class DriverCursor:
    """A cursor that fetches all rows in the crossing that executes."""

    def __init__(self, connection: DriverConnection, cursor: sqlite3.Cursor) -> None:
        self._owner = connection
        self._cursor = cursor
        self._rows: list[Any] = []
        self.arraysize = cursor.arraysize

    async def __aenter__(self) -> DriverCursor:
        return self

    @property
    def description(self) -> Any:
        """The columns, None after a statement without rows."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """Rows changed by the last statement."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The row id of the last insert."""
        return self._cursor.lastrowid

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Execute one statement and fetch its rows."""

        def run() -> list[Any]:
            self._cursor.execute(statement, parameters)
            return self._cursor.fetchall() if self._cursor.description else []

        if not self._owner.inline:
            self._rows = await self._owner.cross(run)
        elif statement.startswith("BEGIN"):
            await self._owner.begin(statement)
        else:
            self._rows = run()

    async def executemany(self, statement: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Execute one statement for many rows."""
        if self._owner.inline:
            self._cursor.executemany(statement, parameters)
        else:
            await self._owner.cross(lambda: self._cursor.executemany(statement, parameters))

    async def fetchall(self) -> list[Any]:
        """Hand over the rows that `execute` fetched."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Let go of the statement."""
        self._cursor.close()
