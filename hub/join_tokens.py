"""Join tokens: made by an administrator, stored as a hash, good for some joins in a short time.

The secret is in the text that `create` returns and nowhere else. `take_use` runs inside the
transaction that stores the node (`hub.enrolment`).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from certs.authority import Authority
from certs.errors import TokenMalformed
from certs.tokens import JoinToken, encode_token, hash_secret, make_secret, secret_from_text
from hub.audit import Audit
from hub.authz import Subject
from hub.errors import (
    BadRequest,
    Conflict,
    NotFound,
    TokenExpired,
    TokenUnknown,
    TokenUsed,
)
from hub.node_labels import check_labels
from hub.store import enrolment as rows
from hub.store.connection import Connection
from hub.store.engine import Store

TOKEN_TTL_S = 3600.0
TOKEN_TTL_LIMIT_S = 86400.0
TOKEN_USES_LIMIT = 1000
TOKENS_LIMIT = 1000
KEPT_AFTER_EXPIRY_S = 7 * 86400.0
"""How long a dead token is kept, so that a late joiner hears `expired` and not `unknown`."""


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token; `text` is shown once and never stored."""

    row: rows.TokenRow
    text: str


@dataclass(frozen=True, slots=True)
class JoinTokens:
    """The tokens of a hub."""

    store: Store
    audit: Audit
    authority: Authority
    hubs: tuple[str, ...]
    """Addresses that tokens carry: 1 to 8 https URLs without a path."""
    clock: Callable[[], float] = time.time

    async def create(
        self,
        subject: Subject,
        *,
        uses: int = 1,
        ttl_s: float = TOKEN_TTL_S,
        groups: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
    ) -> CreatedToken:
        """Make a join token for `uses` nodes within `ttl_s` seconds.

        Raises:
            BadRequest: a number is out of its range, a label can't be taken.
            NotFound: a group doesn't exist.
            Conflict: too many tokens exist.
        """
        if not 1 <= uses <= TOKEN_USES_LIMIT:
            raise BadRequest(f"uses must be between 1 and {TOKEN_USES_LIMIT}")
        if not 0 < ttl_s <= TOKEN_TTL_LIMIT_S:
            raise BadRequest(f"a token lives at most {TOKEN_TTL_LIMIT_S:.0f} s")
        secret, now = make_secret(), self.clock()
        row = rows.TokenRow(
            id=uuid.uuid4().hex,
            uses=uses,
            uses_left=uses,
            groups=tuple(dict.fromkeys(groups)),
            labels=check_labels(labels or {}),
            created_by=subject.name,
            created_at=now,
            expires_at=now + ttl_s,
        )

        async def store(connection: Connection) -> None:
            await rows.delete_tokens_expired_before(connection, now - KEPT_AFTER_EXPIRY_S)
            if await rows.count_tokens(connection) >= TOKENS_LIMIT:
                raise Conflict(f"there are {TOKENS_LIMIT} join tokens; delete some first")
            present = await rows.group_names(connection, row.groups)
            for missing in (name for name in row.groups if name not in present):
                raise NotFound("group", missing)
            await rows.insert_token(connection, row, hash_secret(secret))

        await self.store.write(store)
        await self.audit.record(
            subject.name,
            "token.create",
            row.id,
            address=subject.address,
            detail={"uses": uses, "ttl_s": ttl_s, "groups": list(row.groups)},
        )
        token = JoinToken(hubs=self.hubs, pin=self.authority.root_spki_sha256, secret=secret)
        return CreatedToken(row, encode_token(token))

    async def page(self, limit: int, offset: int) -> tuple[list[rows.TokenRow], int]:
        """Return some tokens, newest first, and how many there are."""
        async with self.store.read() as connection:
            found = await rows.list_tokens(connection, limit, offset)
            return found, await rows.count_tokens(connection)

    async def delete(self, subject: Subject, token_id: str) -> None:
        """Make a token useless.

        Raises:
            NotFound: there is none.
        """
        if not await self.store.write(lambda c: rows.delete_token(c, token_id)):
            raise NotFound("join token", token_id[:64])
        await self.audit.record(subject.name, "token.delete", token_id, address=subject.address)


def hash_of(secret: str) -> str:
    """Return what a secret is stored as.

    Raises:
        TokenUnknown: it isn't a secret at all.
    """
    try:
        return hash_secret(secret_from_text(secret))
    except TokenMalformed as error:
        raise TokenUnknown from error


async def take_use(connection: Connection, secret_hash: str, now: float) -> rows.TokenRow:
    """Take one use of a token.

    Raises:
        TokenUnknown, TokenUsed, TokenExpired: there is none to take.
    """
    taken = await rows.take_use(connection, secret_hash, now)
    if taken is not None:
        return taken
    token = await rows.find_token(connection, secret_hash)
    if token is None:
        raise TokenUnknown
    raise TokenUsed if token.uses_left == 0 else TokenExpired
