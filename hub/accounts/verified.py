"""A bounded cache of credentials that were verified, so that a request reads no database.

The rule it guards: an entry is gone in the moment its user changes, and a read that was under way
then is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from hub.accounts.changes import Ended
from hub.authz import Subject

LIMIT = 1_024


class Credential(Protocol):
    """What is cached: a session or a token."""

    @property
    def subject(self) -> Subject:
        """Whom it stands for."""


C = TypeVar("C", bound=Credential)


@dataclass(slots=True)
class Verified(Generic[C]):
    """The least recently used entries leave first."""

    _entries: OrderedDict[str, C] = field(default_factory=OrderedDict)
    generation: int = 0
    """Grows with each change; `put` takes the value from before the read."""

    def get(self, key: str) -> C | None:
        """Return the entry and mark it as used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: C, generation: int) -> None:
        """Keep an entry that was read at `generation`, unless a change came since."""
        if generation != self.generation:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > LIMIT:
            self._entries.popitem(last=False)

    def drop(self, ended: Ended) -> None:
        """Forget everything of the user, also what may go on: it is read again."""
        self.generation += 1
        for key in [k for k, e in self._entries.items() if e.subject.user_id == ended.user_id]:
            del self._entries[key]
