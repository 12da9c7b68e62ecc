"""Tokens for programs: `/api-tokens`; everybody has their own, an administrator sees all."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from msgspec import Meta

from hub.accounts.tokens import TTL_LIMIT_S, ApiToken
from hub.api.guards import signed_in
from hub.authz import Role, Subject, Verb
from hub.core import Hub
from hub.errors import Forbidden


class ApiTokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token to be made; without `ttl_s` it has no end."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    role: Role
    ttl_s: Annotated[float, Meta(gt=0, le=TTL_LIMIT_S)] | None = None


class NewToken(ApiToken, frozen=True):
    """A token just made."""

    token: str
    """Shown once: the hub keeps only a hash."""


class ApiTokenPage(msgspec.Struct, frozen=True, kw_only=True):
    """All tokens that the caller may see, oldest first."""

    items: list[ApiToken]
    next_cursor: str | None
    total: int


class ApiTokensController(Controller):
    """API tokens."""

    path = "/api-tokens"
    tags = ("api tokens",)

    @get(guards=[signed_in()])
    async def list_tokens(self, hub: Hub, subject: Subject) -> ApiTokenPage:
        """List the caller's tokens, everybody's for an administrator."""
        tokens = await hub.accounts.tokens.visible_to(subject)
        return ApiTokenPage(items=tokens, next_cursor=None, total=len(tokens))

    @post(guards=[signed_in()])
    async def create_token(self, hub: Hub, subject: Subject, data: ApiTokenRequest) -> NewToken:
        """Make a token for the caller, with at most the caller's role."""
        if data.role.rank > subject.role.rank:
            raise Forbidden(Verb.ADMIN.value)
        new = await hub.accounts.tokens.create(
            subject.user_id, subject.name, data.name, data.role, data.ttl_s
        )
        await hub.audit.record(
            subject.name,
            "api_token.create",
            data.name,
            address=subject.address,
            detail={"id": new.token.id, "role": data.role},
        )
        return NewToken(**msgspec.structs.asdict(new.token), token=new.secret)

    @delete("/{token_id:str}", guards=[signed_in()])
    async def delete_token(self, hub: Hub, subject: Subject, token_id: str) -> None:
        """Remove a token; what was opened with it is closed."""
        token = await hub.accounts.tokens.remove(subject, token_id)
        await hub.audit.record(
            subject.name,
            "api_token.delete",
            token.name,
            address=subject.address,
            detail={"id": token.id, "user": token.user},
        )
