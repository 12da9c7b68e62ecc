"""A task as NDJSON: what was kept from the beginning, then live until the end, the summary last.

The rule it guards: a run's `result` line comes after all its output and after the result is stored;
a reader who is slower than the output gets the missing middle as a count (`skipped_bytes`), never
the hub's memory.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from hub.store import tasks as queries
from hub.store.engine import Store
from hub.tasks.output import Kept, left_out_line
from hub.tasks.state import LiveRun, LiveTask, RunState

if TYPE_CHECKING:
    from hub.tasks.feed import Follower

BATCH_RUNS = 16
"""Runs whose stored output is loaded at once: 8 MiB at most."""
CHUNK_BYTES = 64 * 1024


class OutputLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output"):
    """A piece of output; `skipped_bytes` are missing before it."""

    node: str
    stream: str
    data: str
    skipped_bytes: int | msgspec.UnsetType = msgspec.UNSET


class ResultLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="result"):
    """How a run ended."""

    node: str
    state: str
    exit_code: int | None
    signal: int | None
    reason: str


class SummaryLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """How the task ended; `failed` counts every run that did not succeed."""

    task: str
    ok: int
    failed: int
    state: str
    counts: dict[str, int]


@dataclass(slots=True)
class _StreamCursor:
    """How far one stream of one run was read."""

    node: str
    name: str
    offset: int = 0
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def lines(self, kept: Kept, *, final: bool) -> Iterator[bytes]:
        while self.offset < kept.total:
            piece = kept.since(self.offset, CHUNK_BYTES)
            text = ""
            if piece.skipped:
                text = self.decoder.decode(b"", True) + left_out_line(piece.skipped)
                self.decoder.reset()
            self.offset += piece.skipped + len(piece.data)
            text += self.decoder.decode(piece.data, final and self.offset == kept.total)
            if text:
                yield self._line(text, piece.skipped)

    def _line(self, text: str, skipped: int) -> bytes:
        return _encode(
            OutputLine(
                node=self.node,
                stream=self.name,
                data=text,
                skipped_bytes=skipped or msgspec.UNSET,
            )
        )


def _encode(line: OutputLine | ResultLine | SummaryLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


class _Reader:
    """One follower's place in every run of a task."""

    def __init__(self, store: Store, task: LiveTask) -> None:
        self._store = store
        self._task = task
        self._cursors: dict[str, tuple[_StreamCursor, _StreamCursor]] = {}
        self._told: set[str] = set()

    async def changes(self, follower: Follower) -> AsyncIterator[bytes]:
        """Everything about the runs that changed, in chunks of some 64 KiB."""
        chunk = bytearray()
        while follower.changed:
            batch = [self._task.runs[run_id] for run_id in islice(follower.changed, BATCH_RUNS)]
            stored = await self._load([run.id for run in batch if run.stdout is None])
            for run in batch:
                if run.stdout is None and run.id not in stored:
                    continue  # stored meanwhile: it stays in `changed` for the next batch
                follower.changed.pop(run.id, None)
                for line in self._lines(run, stored.get(run.id)):
                    chunk += line
                if len(chunk) >= CHUNK_BYTES:
                    yield bytes(chunk)
                    chunk.clear()
        if chunk:
            yield bytes(chunk)

    async def _load(self, run_ids: list[str]) -> dict[str, queries.OutputRow]:
        if not run_ids:
            return {}
        async with self._store.read() as connection:
            found = await queries.outputs(connection, run_ids)
        # A run whose row is gone (its node was removed) has no output left to show.
        return {run_id: found.get(run_id, queries.OutputRow()) for run_id in run_ids}

    def _lines(self, run: LiveRun, stored: queries.OutputRow | None) -> Iterator[bytes]:
        if run.id in self._told:
            return
        row = run.row()
        if stored is None:
            stdout, stderr = run.stdout or Kept(), run.stderr or Kept()
        else:
            stdout = Kept.restored(stored.stdout_head, stored.stdout_tail, row.stdout_bytes)
            stderr = Kept.restored(stored.stderr_head, stored.stderr_tail, row.stderr_bytes)
        out, err = self._cursors.get(run.id) or (
            _StreamCursor(run.node_name, "stdout"),
            _StreamCursor(run.node_name, "stderr"),
        )
        self._cursors[run.id] = (out, err)
        yield from out.lines(stdout, final=run.is_final)
        yield from err.lines(stderr, final=run.is_final)
        if run.is_final:
            del self._cursors[run.id]
            self._told.add(run.id)
            yield _encode(
                ResultLine(
                    node=run.node_name,
                    state=row.state,
                    exit_code=row.exit_code,
                    signal=row.signal,
                    reason=row.reason,
                )
            )


async def follow(store: Store, task: LiveTask) -> AsyncGenerator[bytes, None]:
    """Yield a task's lines until it has ended; its feed has a follower meanwhile."""
    reader = _Reader(store, task)
    follower = task.feed.join(task.runs)
    try:
        while True:
            follower.wake.clear()
            async for chunk in reader.changes(follower):
                yield chunk
            if task.finished_at is not None and not follower.changed:
                break
            await follower.wake.wait()
        yield _encode(_summary(task))
    finally:
        task.feed.leave(follower)


def _summary(task: LiveTask) -> SummaryLine:
    counts = task.counts()
    ok = counts.get(RunState.SUCCEEDED.value, 0)
    return SummaryLine(
        task=task.id, ok=ok, failed=len(task.runs) - ok, state=task.state, counts=counts
    )
