"""`Entries`: which browsers may use which service, by a secret that only they hold.

The rule it guards: an entry belongs to one browser session and one service, and is over when that
session is, when its user's rights change, when the service is withdrawn, or after eight hours. Its
secret is a cookie of the service's own host, or a part of its path; only a hash is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hub.accounts.changes import Ended
from hub.accounts.secrets import hash_of, new_secret
from hub.authz import Subject

LIFE_S = 8 * 3600.0
PER_USER = 50


@dataclass(eq=False, slots=True)
class Entry:
    """A browser's leave to use one service."""

    subject: Subject
    service: str
    expires_at: float
    """Seconds since the epoch."""
    _ended: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None

    async def ended(self) -> None:
        """Wait for its end."""
        await self._ended.wait()

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def end(self) -> None:
        """End it; whoever waits for that is woken."""
        self._ended.set()
        if self.timer is not None:
            self.timer.cancel()


@dataclass(slots=True)
class Entries:
    """All entries of the hub, in memory: a hub that restarts asks the browsers to enter again."""

    _clock: Callable[[], float] = time.time
    _entries: dict[str, Entry] = field(default_factory=dict)
    """By the hash of the secret, oldest first."""

    def admit(self, subject: Subject, service: str, until: float) -> str:
        """Make an entry and return its secret; the oldest of more than 50 of a user ends.

        Args:
            subject: The user, by a browser session.
            service: The service's name.
            until: When that session ends, in seconds since the epoch.
        """
        mine = [k for k, e in self._entries.items() if e.subject.user_id == subject.user_id]
        for oldest in mine[: max(0, len(mine) - PER_USER + 1)]:
            self._expire(oldest)
        now = self._clock()
        secret, entry = new_secret(), Entry(subject, service, min(now + LIFE_S, until))
        key = hash_of(secret)
        self._entries[key] = entry
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(entry.expires_at - now, self._expire, key)
        return secret

    def find(self, secret: str, service: str) -> Entry | None:
        """Return the entry to this service that a secret stands for."""
        entry = self._entries.get(hash_of(secret))
        if entry is None or entry.is_over or entry.service != service:
            return None
        return entry if entry.expires_at > self._clock() else None

    def drop(self, ended: Ended) -> None:
        """End the entries of a session or a user whose rights ended."""
        self._end(lambda entry: ended.covers(entry.subject))

    def drop_service(self, service: str) -> None:
        """End the entries to a service that is published no longer."""
        self._end(lambda entry: entry.service == service)

    def _expire(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            entry.end()

    def _end(self, which: Callable[[Entry], bool]) -> None:
        for key in [key for key, entry in self._entries.items() if which(entry)]:
            self._expire(key)
