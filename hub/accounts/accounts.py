"""`Accounts`: users and everything that proves to be one, joined.

The rule it guards: sessions, tokens and tickets hear of every change of a user. Made once, with
the store; `on_change` is for whoever holds sockets open.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from hub.accounts.changes import Changes, Ended
from hub.accounts.origins import Origins
from hub.accounts.passwords import Passwords
from hub.accounts.sessions import Sessions
from hub.accounts.throttle import Throttle
from hub.accounts.tickets import Tickets
from hub.accounts.tokens import ApiTokens
from hub.accounts.users import Users
from hub.store.engine import Store


@dataclass(frozen=True, slots=True)
class Accounts:
    """What the hub knows about who calls."""

    users: Users
    sessions: Sessions
    tokens: ApiTokens
    tickets: Tickets
    origins: Origins
    _changes: Changes

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        public_urls: Iterable[str] = (),
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Accounts:
        """Join the parts; `clock` gives seconds since the epoch."""
        changes = Changes()
        tickets = Tickets(clock)
        changes.subscribe(tickets.drop)
        return cls(
            Users(store, changes, passwords or Passwords(), Throttle(clock), clock),
            Sessions(store, changes, clock),
            ApiTokens(store, changes, clock),
            tickets,
            Origins(public_urls),
            changes,
        )

    def on_change(self, callback: Callable[[Ended], None]) -> None:
        """Call back when rights end: close what `ended.covers(subject)`; must return at once."""
        self._changes.subscribe(callback)

    def watch(self, callback: Callable[[Ended], None]) -> AbstractContextManager[None]:
        """As `on_change`, while a block runs: for one socket or stream."""
        return self._changes.watch(callback)
