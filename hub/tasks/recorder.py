"""Writes what happens to runs: results at once, many in one unit; progress a second late.

The rule it guards: `record` returns only when the results are committed, so an `Acknowledge` sent
after it is true. That a run was sent or started is needed only to be honest after a crash, and is
written a second late: most runs have ended by then, and their result says more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from hub.errors import Unavailable
from hub.store import tasks as queries
from hub.store.engine import Store
from hub.store.tasks import RunResult, RunRow
from hub.tasks.state import LiveRun

logger = logging.getLogger(__name__)

NOTE_DELAY_S = 1.0
RETRY_DELAY_S = 1.0
RETRY_LIMIT_S = 30.0
"""The pause doubles up to this."""
ATTEMPTS = 2_900
"""A store that refuses for a day is broken; nodes keep their results until the next start."""


@dataclass(slots=True)
class Recorder:
    """The one writer of run states; `run` lives as long as the tasks do."""

    store: Store
    note_delay_s: float = NOTE_DELAY_S
    _results: list[tuple[Sequence[RunResult], asyncio.Future[None]]] = field(default_factory=list)
    _notes: dict[str, LiveRun] = field(default_factory=dict)
    _notes_due: bool = False
    _timer: asyncio.TimerHandle | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(self, results: Sequence[RunResult]) -> None:
        """Commit results.

        Raises:
            Unavailable: the store did not take them for a day.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._results.append((results, done))
        for result in results:
            self._notes.pop(result.run.id, None)
        self._wake.set()
        await done

    def note(self, run: LiveRun) -> None:
        """Write the run's state and start within about a second, unless it ends before."""
        self._notes[run.id] = run
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.note_delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._notes_due = True
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._write()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _write(self) -> None:
        waiting, self._results = self._results, []
        results = [result for group, _ in waiting for result in group]
        notes: list[LiveRun] = []
        if self._notes_due:
            notes, self._notes, self._notes_due = list(self._notes.values()), {}, False

        failure = await self._commit(results, [run.row() for run in notes if not run.is_final])
        for _, done in waiting:
            if done.done():
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

    async def _commit(
        self, results: Sequence[RunResult], notes: Sequence[RunRow]
    ) -> Unavailable | None:
        if not results and not notes:
            return None
        for attempt in range(ATTEMPTS if results else 1):
            try:
                await self.store.write(
                    lambda connection: queries.record_runs(connection, results, notes)
                )
            except Exception as error:
                # Its text would repeat every value of the statement.
                kind = type(error).__name__
                logger.warning("%d results are not stored yet: %s", len(results), kind)
                failure = Unavailable(f"the store does not take results: {kind}")
                failure.__cause__ = error
                pause_s = min(RETRY_DELAY_S * 2 ** min(attempt, 10), RETRY_LIMIT_S)
                await asyncio.sleep(pause_s if results else 0)
            else:
                return None
        return failure
