"""`Checkpoints`: moves the write-ahead log into the database, beside everything else.

The rule it guards: the log stays bounded under a steady load of writes, and nobody waits on the
event loop for it. SQLite's own checkpoint would run, and sync the disk, inside some COMMIT; here a
thread with its own connection does it whenever the log has grown by 4 MiB. PASSIVE moves most of
it while writes go on; TRUNCATE then moves the rest and empties the file, for which the next BEGIN
may have to wait. A reader that stays in the log puts that off to the next time; a disk slower than
the writes makes them wait at 64 MiB. Closing moves what is left. Used by `driver.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

GROWTH_BYTES = 4 * 1024 * 1024
"""As SQLite's own default of 1,000 pages."""
LIMIT_BYTES = 16 * GROWTH_BYTES
"""A log as long as this makes the next transaction wait for the checkpoint that runs."""
READERS_TIMEOUT_MS = 50
"""TRUNCATE waits this long for readers, and writes wait with it; our reads are shorter."""


@dataclass(slots=True)
class Checkpoints:
    """The thread that checkpoints one database, for its one writer."""

    path: Path
    _due_bytes: int = GROWTH_BYTES
    _log_bytes: int = 0
    """After the last commit."""
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "store-checkpoint")
    )
    _connection: sqlite3.Connection | None = None
    _running: Future[None] | None = None

    def log_bytes(self) -> int:
        """Return the size of the log's file, 0 when there is none."""
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size
        except FileNotFoundError:
            return 0

    async def room(self) -> None:
        """Wait for the checkpoint that runs, if the log is far too long; called before BEGIN."""
        if self._running is not None and self._log_bytes >= LIMIT_BYTES:
            await asyncio.wait({asyncio.wrap_future(self._running)})

    def may_sync(self) -> bool:
        """Say whether the disk may keep a commit waiting; called once before each.

        So it is while a checkpoint runs, and once after it: starting the log afresh, SQLite syncs.
        """
        if self._running is None:
            return False
        if self._running.done():
            self._running = None
        return True

    def committed(self) -> None:
        """Start a checkpoint when it is time; called after each commit."""
        self._log_bytes = self.log_bytes()
        if self._running is None and self._log_bytes >= self._due_bytes:
            self._running = self._thread.submit(self._checkpoint)

    def _checkpoint(self) -> None:
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self.path, isolation_level=None, check_same_thread=False
                )
                self._connection.execute(f"PRAGMA busy_timeout = {READERS_TIMEOUT_MS}")
            for mode in ("PASSIVE", "TRUNCATE"):
                self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.Error as error:
            logger.warning("the database's log is not checkpointed yet: %s", error)
        self._due_bytes = self.log_bytes() + GROWTH_BYTES

    def _close(self) -> None:
        if self.log_bytes():
            self._checkpoint()
        if self._connection is not None:
            self._connection.close()

    async def close(self) -> None:
        """Checkpoint once more, and close."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        finally:
            self._thread.shutdown(wait=False)

    def stop(self) -> None:
        """Let the thread do what `close` does, without waiting for it."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)
