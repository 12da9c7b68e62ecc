"""Join tokens: `/tokens`; a token's text and the line to paste are shown once, when it is made."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import Parameter
from msgspec import Meta

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.errors import BadRequest
from hub.join_tokens import TOKEN_TTL_LIMIT_S, TOKEN_TTL_S, TOKEN_USES_LIMIT

Word = Annotated[str, Meta(min_length=1, max_length=64)]
Value = Annotated[str, Meta(max_length=256)]


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a new token allows."""

    uses: Annotated[int, Meta(ge=1, le=TOKEN_USES_LIMIT)] = 1
    ttl_s: Annotated[float, Meta(gt=0, le=TOKEN_TTL_LIMIT_S)] = TOKEN_TTL_S
    groups: Annotated[list[Word], Meta(max_length=64)] = []
    labels: Annotated[dict[Word, Value], Meta(max_length=64)] = {}


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """A join token without its secret."""

    id: str
    uses: int
    uses_left: int
    groups: list[str]
    labels: dict[str, str]
    created_by: str
    created_at: float
    expires_at: float


class NewJoinToken(JoinToken, frozen=True, kw_only=True):
    """A join token just made."""

    token: str
    """Shown once: the hub keeps only a hash."""
    command: str
    """The line to paste on the new node."""


class JoinTokenPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the tokens, newest first."""

    items: list[JoinToken]
    next_cursor: str | None
    total: int


class TokensController(Controller):
    """Join tokens."""

    path = "/tokens"
    tags = ("tokens",)

    @get(guards=[requires(Verb.ADMIN)])
    async def list_tokens(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: str | None = None,
    ) -> JoinTokenPage:
        """List join tokens, used and lately expired ones included."""
        offset = _offset(cursor)
        rows, total = await hub.join_tokens.page(limit, offset)
        following = offset + len(rows)
        return JoinTokenPage(
            items=[msgspec.convert(row, JoinToken, from_attributes=True) for row in rows],
            next_cursor=str(following) if following < total and rows else None,
            total=total,
        )

    @post(guards=[requires(Verb.ADMIN)])
    async def create_token(self, hub: Hub, subject: Subject, data: TokenRequest) -> NewJoinToken:
        """Make a join token."""
        created = await hub.join_tokens.create(
            subject, uses=data.uses, ttl_s=data.ttl_s, groups=data.groups, labels=data.labels
        )
        command = hub.installer.command(created.text)
        shown = msgspec.convert(created.row, JoinToken, from_attributes=True)
        return NewJoinToken(**msgspec.structs.asdict(shown), token=created.text, command=command)

    @delete("/{token_id:str}", guards=[requires(Verb.ADMIN)])
    async def delete_token(self, hub: Hub, subject: Subject, token_id: str) -> None:
        """Make a join token useless."""
        await hub.join_tokens.delete(subject, token_id)


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise BadRequest("the cursor is not one that this list gave")
    return int(cursor)
