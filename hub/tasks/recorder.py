"""Writes what happens to runs: results at once, many in one unit; progress a second late.

The rule it guards: `record` returns only when the results are committed, so an `Acknowledge` sent
after it is true. That a run was sent or started is needed only to be honest after a crash, and is
written a second late: most runs have ended by then, and their result says more. The events that
tell of results are stored with them, and told when `settled` has moved what the hub shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hub.errors import Unavailable
from hub.events import Event, EventLog
from hub.store import tasks as queries
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.events import Draft
from hub.store.tasks import RunResult, RunRow
from hub.tasks.state import LiveRun

logger = logging.getLogger(__name__)

NOTE_DELAY_S = 1.0
RETRY_DELAY_S = 1.0
RETRY_LIMIT_S = 30.0
"""The pause doubles up to this."""
ATTEMPTS = 2_900
"""A store that refuses for a day is broken; nodes keep their results until the next start."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Results that one caller waits for."""

    results: Sequence[RunResult]
    drafts: Sequence[Draft]
    settled: Callable[[], None]
    done: asyncio.Future[None]


@dataclass(slots=True)
class Recorder:
    """The one writer of run states; `run` lives as long as the tasks do."""

    store: Store
    events: EventLog
    note_delay_s: float = NOTE_DELAY_S
    _waiting: list[_Group] = field(default_factory=list)
    _notes: dict[str, LiveRun] = field(default_factory=dict)
    _notes_due: bool = False
    _timer: asyncio.TimerHandle | None = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def record(
        self, results: Sequence[RunResult], drafts: Sequence[Draft], settled: Callable[[], None]
    ) -> None:
        """Commit results and their events.

        Args:
            results: may be none.
            drafts: what is told of them.
            settled: called after the commit and before the events are told, also when the caller
                has been cancelled meanwhile; it must neither block nor raise.

        Raises:
            Unavailable: the store did not take them for a day.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Group(results, drafts, settled, done))
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
        waiting, self._waiting = self._waiting, []
        notes: list[LiveRun] = []
        if self._notes_due:
            notes, self._notes, self._notes_due = list(self._notes.values()), {}, False

        failure = await self._commit(waiting, [run.row() for run in notes if not run.is_final])
        for group in waiting:
            if group.done.done():
                continue
            if failure is None:
                group.done.set_result(None)
            else:
                group.done.set_exception(failure)

    async def _commit(
        self, groups: Sequence[_Group], notes: Sequence[RunRow]
    ) -> Unavailable | None:
        results = [result for group in groups for result in group.results]
        drafts = [draft for group in groups for draft in group.drafts]

        async def unit(connection: Connection) -> list[Event]:
            await queries.record_runs(connection, results, notes)
            return await self.events.insert(connection, drafts)

        def committed(events: list[Event]) -> None:
            for group in groups:
                group.settled()
            self.events.tell(events)

        if not results and not notes:
            return None
        for attempt in range(ATTEMPTS if results else 1):
            try:
                await self.store.write(unit, then=committed)
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
