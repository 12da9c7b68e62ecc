"""Tells who must let go when a user's rights end: caches, tickets, open sockets.

The rule it guards: a changed role or password, a disabled or removed user, an ended session or
token has effect at once, and not when a cache or a socket happens to end.

    accounts.on_change(lambda ended: close_sockets_where(ended.covers))
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hub.authz import Subject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """What a user, or one credential of theirs, was allowed is no longer valid."""

    user_id: str
    credential: str | None = None
    """Only this session or token; None: all of the user's."""
    spared: str | None = None
    """The session that made the change and goes on."""

    def covers(self, subject: Subject) -> bool:
        """Say whether what was opened for this subject must be closed."""
        return (
            subject.user_id == self.user_id
            and self.credential in (None, subject.credential)
            and subject.credential != self.spared
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """Calls back, in the order of subscription; callbacks return at once."""

    _callbacks: list[Callable[[Ended], None]] = field(default_factory=list)

    def subscribe(self, callback: Callable[[Ended], None]) -> None:
        """Call back for every end of rights, for the life of the hub."""
        self._callbacks.append(callback)

    @contextmanager
    def watch(self, callback: Callable[[Ended], None]) -> Iterator[None]:
        """Call back while the block runs: for one socket or stream."""
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)

    def announce(self, ended: Ended) -> None:
        """Tell all; one that fails does not keep it from the others."""
        for callback in tuple(self._callbacks):
            try:
                callback(ended)
            except Exception:
                logger.exception("a subscriber failed to let go of an ended credential")
