"""Browser sessions: a random cookie, stored hashed; 12 hours from the last use, 7 days at most.

The rule it guards: a cookie is good exactly as long as its row lives and its user may sign in; a
change of either has effect with the next request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hub.accounts.changes import Changes, Ended
from hub.accounts.secrets import hash_of, new_secret
from hub.accounts.verified import Verified
from hub.authz import Role, Subject
from hub.errors import NotSignedIn, Unavailable
from hub.store import accounts as queries
from hub.store.engine import Store

logger = logging.getLogger(__name__)

IDLE_S = 12 * 3600.0
ABSOLUTE_S = 7 * 86_400.0
EXTEND_EVERY_S = 60.0
KEEP_PER_USER = 50


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A verified session."""

    subject: Subject
    csrf: str
    created_at: float
    expires_at: float
    """Seconds since the epoch; moves with use."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session that was just made, with the cookie's value, which is known only now."""

    cookie: str
    session: BrowserSession


@dataclass(slots=True)
class Sessions:
    """Makes, verifies and ends browser sessions."""

    _store: Store
    _changes: Changes
    _clock: Callable[[], float] = time.time
    _verified: Verified[BrowserSession] = field(default_factory=Verified)

    def __post_init__(self) -> None:
        self._changes.subscribe(self._verified.drop)

    async def create(self, user: queries.UserRow, address: str, user_agent: str) -> NewSession:
        """Sign the user in; the oldest of more than 50 sessions ends."""
        cookie, now = new_secret(), self._clock()
        row = queries.SessionRow(
            token_hash=hash_of(cookie),
            user_id=user.id,
            user_name=user.name,
            role=user.role,
            csrf=new_secret(),
            created_at=now,
            expires_at=now + IDLE_S,
        )
        await self._store.write(
            lambda connection: queries.insert_session(
                connection, row, address, user_agent, KEEP_PER_USER - 1
            )
        )
        return NewSession(cookie, _session(row, address))

    async def verify(self, cookie: str, address: str) -> BrowserSession:
        """Return the session of a cookie, and prolong it.

        Raises:
            NotSignedIn: it is unknown, has ended, or its user is disabled.
        """
        key, now = hash_of(cookie), self._clock()
        session = await self._prolong(key, await self._living(key, now), now)
        return replace(session, subject=replace(session.subject, address=address))

    async def current(self, subject: Subject) -> BrowserSession:
        """Return the session that the subject came with as it is now, without prolonging it.

        Raises:
            NotSignedIn: it has ended, or its user is disabled.
        """
        session = await self._living(subject.credential, self._clock())
        return replace(session, subject=replace(session.subject, address=subject.address))

    async def end(self, subject: Subject) -> None:
        """End the session that the subject came with."""
        await self._store.write(
            lambda connection: queries.delete_session(connection, subject.credential)
        )
        self._changes.announce(Ended(subject.user_id, credential=subject.credential))

    async def prune(self) -> int:
        """Delete the sessions that have ended; return how many."""
        now = self._clock()
        return await self._store.write(
            lambda connection: queries.delete_expired_sessions(connection, now)
        )

    async def _living(self, key: str, now: float) -> BrowserSession:
        session = self._verified.get(key) or await self._read(key, now)
        if session is None or session.expires_at <= now:
            raise NotSignedIn("the session has ended; sign in again")
        return session

    async def _read(self, key: str, now: float) -> BrowserSession | None:
        generation = self._verified.generation
        async with self._store.read() as connection:
            row = await queries.session_by_hash(connection, key, now)
        if row is None:
            return None
        session = _session(row, "")
        self._verified.put(key, session, generation)
        return session

    async def _prolong(self, key: str, session: BrowserSession, now: float) -> BrowserSession:
        """Move the end, written once a minute at most, and only when the store takes it."""
        expires_at = min(now + IDLE_S, session.created_at + ABSOLUTE_S)
        if expires_at - session.expires_at < EXTEND_EVERY_S:
            return session
        generation = self._verified.generation
        session = replace(session, expires_at=expires_at)
        self._verified.put(key, session, generation)
        try:
            await self._store.write(
                lambda connection: queries.extend_session(connection, key, expires_at)
            )
        except Unavailable as error:
            logger.warning("a session is not prolonged in the store: %s", error)
        return session


def _session(row: queries.SessionRow, address: str) -> BrowserSession:
    subject = Subject(
        row.user_name, Role(row.role), row.user_id, "session", row.token_hash, address
    )
    return BrowserSession(subject, row.csrf, row.created_at, row.expires_at)
