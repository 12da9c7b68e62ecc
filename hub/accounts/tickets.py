"""One-time tickets for browser sockets: 30 seconds, one use, bound to who and for what.

The rule it guards: a socket that a foreign page opened with the user's cookie has no ticket,
because only a page of the hub can ask for one (Origin and CSRF). Tickets live in memory and are
bounded per user.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from hub.accounts.changes import Ended
from hub.authz import Subject
from hub.errors import NotSignedIn, Throttled

LIFE_S = 30.0
PER_USER_LIMIT = 64
_REFUSED = "the ticket is unknown, used or expired; ask for a new one"

Purpose = Literal["live", "shell", "published"]
"""`published`: to get from the hub into a published service, which `node` names."""


class Ticket(msgspec.Struct, frozen=True):
    """What the page sends as its first frame."""

    ticket: str
    expires_at: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class _Issued:
    subject: Subject
    purpose: Purpose
    node: str | None
    expires_at: float


@dataclass(slots=True)
class Tickets:
    """Issues and redeems tickets."""

    _clock: Callable[[], float] = time.time
    _issued: dict[str, _Issued] = field(default_factory=dict)

    def issue(self, subject: Subject, purpose: Purpose, node: str | None = None) -> Ticket:
        """Issue a ticket.

        Raises:
            Throttled: the user holds 64 that were not used.
        """
        now = self._clock()
        self._issued = {key: held for key, held in self._issued.items() if held.expires_at > now}
        mine = sum(held.subject.user_id == subject.user_id for held in self._issued.values())
        if mine >= PER_USER_LIMIT:
            raise Throttled(LIFE_S)
        ticket = secrets.token_urlsafe(24)
        self._issued[ticket] = _Issued(subject, purpose, node, now + LIFE_S)
        return Ticket(ticket, now + LIFE_S)

    def redeem(
        self, ticket: str, subject: Subject, purpose: Purpose, node: str | None = None
    ) -> None:
        """Use a ticket up; it must be this credential's, for this purpose and node.

        Raises:
            NotSignedIn: it is unknown, used, expired, or another's.
        """
        if self.claim(ticket, purpose, node).credential != subject.credential:
            raise NotSignedIn(_REFUSED)

    def claim(self, ticket: str, purpose: Purpose, node: str | None = None) -> Subject:
        """Use a ticket up and return whose it was, for a caller with no other credential.

        Raises:
            NotSignedIn: it is unknown, used, expired, or for something else.
        """
        held = self._issued.pop(ticket, None)
        if (
            held is None
            or held.expires_at <= self._clock()
            or (held.purpose, held.node) != (purpose, node)
        ):
            raise NotSignedIn(_REFUSED)
        return held.subject

    def drop(self, ended: Ended) -> None:
        """Forget the tickets of a credential that ended."""
        self._issued = {
            key: held for key, held in self._issued.items() if not ended.covers(held.subject)
        }
