"""API tokens `moor_…` for programs: stored hashed, with a role and perhaps an end.

The rule it guards: a token never does more than its owner may now, nor more than its own role;
verifying one that was seen lately reads no database. Its end is announced when it comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from hub.accounts.changes import Changes, Ended
from hub.accounts.secrets import hash_of, new_secret
from hub.accounts.verified import Verified
from hub.authz import Role, Subject, Verb, allows
from hub.errors import BadRequest, Conflict, Forbidden, NotFound, NotSignedIn, Unavailable
from hub.store import accounts as queries
from hub.store.engine import Store

logger = logging.getLogger(__name__)

PREFIX = "moor_"
PER_USER_LIMIT = 100
TTL_LIMIT_S = 10 * 365 * 86_400.0
USED_EVERY_S = 60.0
"""`last_used_at` is written once a minute at most."""
LOOK_AGAIN_S = 3_600.0
"""The clock of the day may be set: a token's end is waited for in steps of this."""


class ApiToken(msgspec.Struct, frozen=True):
    """A token as its owner sees it, without the secret."""

    id: str
    name: str
    user: str
    role: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token that was just made, with its secret, which is known only now."""

    secret: str
    token: ApiToken


@dataclass(frozen=True, slots=True)
class _Known:
    subject: Subject
    expires_at: float | None
    last_used_at: float | None


@dataclass(slots=True)
class ApiTokens:
    """Makes, verifies, lists and removes API tokens."""

    _store: Store
    _changes: Changes
    _clock: Callable[[], float] = time.time
    _verified: Verified[_Known] = field(default_factory=Verified)
    _ending: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    """By the ids of tokens that were used and have an end."""

    def __post_init__(self) -> None:
        self._changes.subscribe(self._verified.drop)

    async def create(
        self, user_id: str, user_name: str, name: str, role: Role, ttl_s: float | None = None
    ) -> NewApiToken:
        """Make a token for a user.

        Raises:
            BadRequest: the name or the life is out of range.
            Conflict: the user holds 100.
        """
        if not name.strip() or len(name) > 64:
            raise BadRequest("a token's name has 1 to 64 characters")
        if ttl_s is not None and not 0 < ttl_s <= TTL_LIMIT_S:
            raise BadRequest(f"ttl_s is above 0 and at most {TTL_LIMIT_S:.0f}")
        secret, now = PREFIX + new_secret(), self._clock()
        row = queries.TokenRow(
            id=uuid.uuid4().hex,
            token_hash=hash_of(secret),
            name=name,
            role=role.value,
            created_at=now,
            expires_at=None if ttl_s is None else now + ttl_s,
            last_used_at=None,
            user_id=user_id,
            user_name=user_name,
            user_role=role.value,
            disabled=False,
        )
        if not await self._store.write(
            lambda connection: queries.insert_token(connection, row, PER_USER_LIMIT)
        ):
            raise Conflict(f"{user_name} holds {PER_USER_LIMIT} tokens; remove one first")
        return NewApiToken(secret, _shown(row))

    async def verify(self, secret: str, address: str) -> Subject:
        """Return who a bearer token stands for.

        Raises:
            NotSignedIn: it is unknown or expired, or its owner is disabled.
        """
        key, now = hash_of(secret), self._clock()
        known = self._verified.get(key)
        if known is None:
            known = await self._read(key)
        if known is None or (known.expires_at is not None and known.expires_at <= now):
            raise NotSignedIn("the token is unknown or expired; make a new one")
        self._announce_end(known)
        if known.last_used_at is None or now - known.last_used_at >= USED_EVERY_S:
            await self._note_use(key, known, now)
        subject = known.subject
        return Subject(
            subject.name, subject.role, subject.user_id, "token", subject.credential, address
        )

    async def visible_to(self, subject: Subject) -> list[ApiToken]:
        """List the subject's own tokens; everybody's for an administrator."""
        user_id = None if allows(subject, Verb.ADMIN) else subject.user_id
        async with self._store.read() as connection:
            return [_shown(row) for row in await queries.all_tokens(connection, user_id)]

    async def remove(self, subject: Subject, token_id: str) -> ApiToken:
        """Remove one of the subject's own tokens, or anybody's for an administrator.

        Raises:
            NotFound: there is none that the subject may see.
            Forbidden: the token's role is above the role that the subject came with.
        """
        async with self._store.read() as connection:
            row = await queries.token_by_id(connection, token_id)
        is_admin = allows(subject, Verb.ADMIN)
        if row is None or not (is_admin or row.user_id == subject.user_id):
            raise NotFound("token", token_id)
        if Role(row.role).rank > subject.role.rank:
            raise Forbidden(Verb.ADMIN.value)
        await self._store.write(lambda connection: queries.delete_token(connection, token_id))
        self._changes.announce(Ended(row.user_id, credential=token_id))
        return _shown(row)

    def _announce_end(self, known: _Known) -> None:
        """Tell when the token expires, so that what was opened with it is closed then."""
        token_id = known.subject.credential
        if known.expires_at is None or token_id in self._ending:
            return
        wait_s = max(0.0, min(known.expires_at - self._clock(), LOOK_AGAIN_S))
        loop = asyncio.get_running_loop()
        self._ending[token_id] = loop.call_later(wait_s, self._end, known, known.expires_at)

    def _end(self, known: _Known, expires_at: float) -> None:
        del self._ending[known.subject.credential]
        if expires_at > self._clock():
            self._announce_end(known)
        else:
            self._changes.announce(Ended(known.subject.user_id, known.subject.credential))

    async def _read(self, key: str) -> _Known | None:
        generation = self._verified.generation
        async with self._store.read() as connection:
            row = await queries.token_by_hash(connection, key)
        if row is None or row.disabled:
            return None
        role = Role(row.role).capped(Role(row.user_role))
        subject = Subject(row.user_name, role, row.user_id, "token", row.id)
        known = _Known(subject, row.expires_at, row.last_used_at)
        self._verified.put(key, known, generation)
        return known

    async def _note_use(self, key: str, known: _Known, now: float) -> None:
        """Store when it was used, if the store takes it: a full disk must lock nobody out."""
        self._verified.put(key, replace(known, last_used_at=now), self._verified.generation)
        try:
            await self._store.write(
                lambda connection: queries.touch_token(connection, known.subject.credential, now)
            )
        except Unavailable as error:
            logger.warning("the use of a token is not stored: %s", error)


def _shown(row: queries.TokenRow) -> ApiToken:
    return ApiToken(
        row.id, row.name, row.user_name, row.role, row.created_at, row.expires_at, row.last_used_at
    )
