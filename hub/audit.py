"""`Audit`: who did what to what, from where, and how it ended; append-only.

The rule it guards: every act that changes something or opens a way to a node leaves an entry, the
refused ones too. An entry is committed when `record` returns.

    await audit.record(subject.name, "task.create", task.id, address=subject.address)
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from hub.store import audit as queries
from hub.store.connection import Connection
from hub.store.engine import Store

_TEXT_LIMITS = {"subject": 64, "address": 64, "act": 64, "object": 256}
"""Widths of the columns; a hostile name is cut, not refused: the entry must be written."""


class AuditEntry(msgspec.Struct, frozen=True):
    """One entry of the audit."""

    id: int
    at: float
    """Seconds since the epoch."""
    subject: str
    address: str
    act: str
    object: str
    outcome: str
    detail: dict[str, Any]


class AuditPage(msgspec.Struct, frozen=True):
    """Entries newest first, and how many there are in all."""

    entries: list[AuditEntry]
    total: int


@dataclass(frozen=True, slots=True)
class Audit:
    """Appends and reads the audit."""

    _store: Store
    _clock: Callable[[], float] = time.time

    async def record(
        self,
        subject_name: str,
        act: str,
        object: str = "",
        *,
        outcome: Literal["ok", "denied", "failed"] = "ok",
        address: str = "",
        detail: msgspec.Struct | dict[str, Any] | None = None,
    ) -> None:
        """Append an entry; `act` is a noun and a verb: `session.create`, `node.refuse`.

        Raises:
            Unavailable: the store takes no more writes now; the act should not be done then.
        """
        await self._store.write(
            self.unit(subject_name, act, object, outcome=outcome, address=address, detail=detail)
        )

    def unit(
        self,
        subject_name: str,
        act: str,
        object: str = "",
        *,
        outcome: Literal["ok", "denied", "failed"] = "ok",
        address: str = "",
        detail: msgspec.Struct | dict[str, Any] | None = None,
    ) -> Callable[[Connection], Awaitable[int]]:
        """Return what appends the entry, to be awaited in the write of the act itself."""
        at = self._clock()
        document = msgspec.to_builtins(detail) if detail is not None else {}
        return lambda connection: queries.append_entry(
            connection,
            at,
            subject_name[: _TEXT_LIMITS["subject"]],
            address[: _TEXT_LIMITS["address"]],
            act[: _TEXT_LIMITS["act"]],
            object[: _TEXT_LIMITS["object"]],
            outcome,
            document,
        )

    async def entries(
        self,
        limit: int,
        *,
        before: int | None = None,
        subject: str | None = None,
        act: str | None = None,
    ) -> AuditPage:
        """Return up to `limit` entries with an id below `before`, of a subject, of an act."""
        async with self._store.read() as connection:
            rows, total = await queries.entries(connection, before, limit, subject, act)
        return AuditPage(
            [
                AuditEntry(
                    row.id, row.at, row.subject, row.address, row.act, row.object, row.outcome,
                    row.detail,
                )
                for row in rows
            ],
            total,
        )  # fmt: skip
