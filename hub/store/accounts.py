"""Queries on users, browser sessions and API tokens; `hub.accounts` is their only user.

The rule it guards: a credential is stored as its hash only, and is read together with its user, so
that a disabled user has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import Conflict, NotFound
from hub.store.schema import api_tokens, browser_sessions, users


@dataclass(frozen=True, slots=True)
class UserRow:
    """A row of `users`."""

    id: str
    name: str
    role: str
    password_hash: str | None
    disabled: bool
    created_at: float


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A browser session with its user."""

    token_hash: str
    user_id: str
    user_name: str
    role: str
    csrf: str
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class TokenRow:
    """An API token with its user; `role` is the token's own, `user_role` its owner's."""

    id: str
    token_hash: str
    name: str
    role: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None
    user_id: str
    user_name: str
    user_role: str
    disabled: bool


# --- users -------------------------------------------------------------------------------------


async def insert_user(connection: AsyncConnection, user: UserRow) -> bool:
    """Insert the user; False when the name is taken."""
    if await user_named(connection, user.name) is not None:
        return False
    row = {
        "id": user.id, "name": user.name, "role": user.role, "disabled": user.disabled,
        "password_hash": user.password_hash, "created_at": user.created_at,
    }  # fmt: skip
    await connection.execute(insert(users).values(row))
    return True


async def user_named(connection: AsyncConnection, name: str) -> UserRow | None:
    """Return the user of that name."""
    row = (await connection.execute(select(users).where(users.c.name == name))).first()
    return None if row is None else UserRow(**row._mapping)


async def all_users(connection: AsyncConnection) -> list[UserRow]:
    """Return all users by name."""
    rows = await connection.execute(select(users).order_by(users.c.name))
    return [UserRow(**row._mapping) for row in rows]


async def existing_user(connection: AsyncConnection, name: str) -> UserRow:
    """Return the user of that name.

    Raises:
        NotFound: there is none.
    """
    user = await user_named(connection, name)
    if user is None:
        raise NotFound("user", name)
    return user


async def change_user(
    connection: AsyncConnection, name: str, values: dict[str, Any], spared: str | None
) -> UserRow:
    """Set columns of a user, end the sessions but the spared one; return the user as it is now.

    Raises:
        NotFound: there is no such user.
        Conflict: nobody would be left to administer.
    """
    user = replace(await existing_user(connection, name), **values)
    if user.role != "admin" or user.disabled:
        await _keep_an_admin(connection, user.id)
    if values:
        await connection.execute(update(users).where(users.c.id == user.id).values(values))
    await connection.execute(
        delete(browser_sessions).where(
            browser_sessions.c.user_id == user.id, browser_sessions.c.token_hash != (spared or "")
        )
    )
    return user


async def delete_user(connection: AsyncConnection, name: str) -> str:
    """Delete the user, by cascade the sessions and tokens too; return the id.

    Raises:
        NotFound: there is no such user.
        Conflict: nobody would be left to administer.
    """
    user = await existing_user(connection, name)
    await _keep_an_admin(connection, user.id)
    await connection.execute(delete(users).where(users.c.id == user.id))
    return user.id


async def _keep_an_admin(connection: AsyncConnection, user_id: str) -> None:
    """Refuse to go on without this user when no other one administers."""
    query = select(func.count()).where(
        users.c.role == "admin", users.c.disabled.is_(False), users.c.id != user_id
    )
    if not await connection.scalar(query):
        raise Conflict("this is the last administrator; make another one first")


# --- browser sessions --------------------------------------------------------------------------


async def insert_session(
    connection: AsyncConnection, session: SessionRow, address: str, user_agent: str, keep: int
) -> None:
    """Insert a session; of the user's earlier ones only the `keep` newest stay."""
    row = {
        "token_hash": session.token_hash, "user_id": session.user_id, "csrf": session.csrf,
        "created_at": session.created_at, "expires_at": session.expires_at,
        "address": address[:64], "user_agent": user_agent[:256],
    }  # fmt: skip
    older = (
        select(browser_sessions.c.token_hash)
        .where(browser_sessions.c.user_id == session.user_id)
        .order_by(browser_sessions.c.created_at.desc())
        .offset(keep)
    )
    await connection.execute(
        delete(browser_sessions).where(browser_sessions.c.token_hash.in_(older))
    )
    await connection.execute(insert(browser_sessions).values(row))


async def session_by_hash(
    connection: AsyncConnection, token_hash: str, now: float
) -> SessionRow | None:
    """Return a session that lives, of a user who may sign in."""
    query = (
        select(
            browser_sessions.c.token_hash,
            browser_sessions.c.user_id,
            users.c.name.label("user_name"),
            users.c.role,
            browser_sessions.c.csrf,
            browser_sessions.c.created_at,
            browser_sessions.c.expires_at,
        )
        .join(users, users.c.id == browser_sessions.c.user_id)
        .where(
            browser_sessions.c.token_hash == token_hash,
            browser_sessions.c.expires_at > now,
            users.c.disabled.is_(False),
        )
    )
    row = (await connection.execute(query)).first()
    return None if row is None else SessionRow(**row._mapping)


async def extend_session(connection: AsyncConnection, token_hash: str, expires_at: float) -> None:
    """Move the end of a session."""
    await connection.execute(
        update(browser_sessions)
        .where(browser_sessions.c.token_hash == token_hash)
        .values(expires_at=expires_at)
    )


async def delete_session(connection: AsyncConnection, token_hash: str) -> None:
    """End one session."""
    await connection.execute(
        delete(browser_sessions).where(browser_sessions.c.token_hash == token_hash)
    )


async def delete_expired_sessions(connection: AsyncConnection, now: float) -> int:
    """Forget the sessions that have ended; return how many."""
    query = delete(browser_sessions).where(browser_sessions.c.expires_at <= now)
    return (await connection.execute(query)).rowcount


# --- API tokens --------------------------------------------------------------------------------


def _tokens() -> Select[Any]:
    return select(
        api_tokens.c.id,
        api_tokens.c.token_hash,
        api_tokens.c.name,
        api_tokens.c.role,
        api_tokens.c.created_at,
        api_tokens.c.expires_at,
        api_tokens.c.last_used_at,
        api_tokens.c.user_id,
        users.c.name.label("user_name"),
        users.c.role.label("user_role"),
        users.c.disabled,
    ).join(users, users.c.id == api_tokens.c.user_id)


async def insert_token(connection: AsyncConnection, token: TokenRow, limit: int) -> bool:
    """Insert a token; False when its user holds `limit` already."""
    held = await connection.scalar(
        select(func.count()).where(api_tokens.c.user_id == token.user_id)
    )
    if (held or 0) >= limit:
        return False
    row = {
        "id": token.id, "token_hash": token.token_hash, "user_id": token.user_id,
        "name": token.name, "role": token.role, "created_at": token.created_at,
        "expires_at": token.expires_at, "last_used_at": token.last_used_at,
    }  # fmt: skip
    await connection.execute(insert(api_tokens).values(row))
    return True


async def token_by_hash(connection: AsyncConnection, token_hash: str) -> TokenRow | None:
    """Return the token, expired or not."""
    row = (await connection.execute(_tokens().where(api_tokens.c.token_hash == token_hash))).first()
    return None if row is None else TokenRow(**row._mapping)


async def token_by_id(connection: AsyncConnection, token_id: str) -> TokenRow | None:
    """Return the token, expired or not."""
    row = (await connection.execute(_tokens().where(api_tokens.c.id == token_id))).first()
    return None if row is None else TokenRow(**row._mapping)


async def all_tokens(connection: AsyncConnection, user_id: str | None) -> list[TokenRow]:
    """Return a user's tokens, or everybody's, oldest first."""
    query = _tokens().order_by(api_tokens.c.created_at, api_tokens.c.id)
    if user_id is not None:
        query = query.where(api_tokens.c.user_id == user_id)
    return [TokenRow(**row._mapping) for row in await connection.execute(query)]


async def touch_token(connection: AsyncConnection, token_id: str, now: float) -> None:
    """Note that the token was used."""
    await connection.execute(
        update(api_tokens).where(api_tokens.c.id == token_id).values(last_used_at=now)
    )


async def delete_token(connection: AsyncConnection, token_id: str) -> None:
    """Delete the token."""
    await connection.execute(delete(api_tokens).where(api_tokens.c.id == token_id))
