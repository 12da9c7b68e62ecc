"""Queries on join tokens, the nodes that came by them, and their certificates.

Functions take the connection first. The rule they guard: a token's use is taken by one conditional
update, so that of two joiners with the last use exactly one gets it. `hub.enrolment` is the only
caller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, case, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import certificates, groups, join_tokens, memberships, nodes


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A join token as stored, without the hash of its secret."""

    id: str
    uses: int
    uses_left: int
    groups: tuple[str, ...]
    labels: Mapping[str, str]
    created_by: str
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class NewNode:
    """What is stored of a node when it joins."""

    id: str
    labels: Mapping[str, str]
    facts: Mapping[str, Any]
    created_at: float
    address: str


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """An issued certificate."""

    serial: str
    node_id: str
    fingerprint: str
    key_hash: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class StandingRow:
    """Whether a node may connect, and until when its latest certificate is valid."""

    node_id: str
    state: str
    valid_until: float


_TOKEN = (
    join_tokens.c.id,
    join_tokens.c.uses,
    join_tokens.c.uses_left,
    join_tokens.c.groups,
    join_tokens.c.labels,
    join_tokens.c.created_by,
    join_tokens.c.created_at,
    join_tokens.c.expires_at,
)


def _token(row: Row[*tuple[Any, ...]]) -> TokenRow:
    fields = row._asdict()
    return TokenRow(**(fields | {"groups": tuple(fields["groups"])}))


async def insert_token(connection: AsyncConnection, row: TokenRow, secret_hash: str) -> None:
    """Store a new token."""
    values = {
        "id": row.id,
        "secret_hash": secret_hash,
        "uses": row.uses,
        "uses_left": row.uses_left,
        "groups": list(row.groups),
        "labels": dict(row.labels),
        "created_by": row.created_by,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
    }
    await connection.execute(insert(join_tokens).values(values))


async def count_tokens(connection: AsyncConnection) -> int:
    """Count the tokens that are stored, used and expired ones included."""
    return await connection.scalar(select(func.count()).select_from(join_tokens)) or 0


async def list_tokens(connection: AsyncConnection, limit: int, offset: int) -> list[TokenRow]:
    """List tokens, newest first."""
    newest_first = select(*_TOKEN).order_by(join_tokens.c.created_at.desc(), join_tokens.c.id)
    rows = await connection.execute(newest_first.limit(limit).offset(offset))
    return [_token(row) for row in rows]


async def delete_token(connection: AsyncConnection, token_id: str) -> bool:
    """Delete a token; False when there is none."""
    done = await connection.execute(delete(join_tokens).where(join_tokens.c.id == token_id))
    return done.rowcount > 0


async def delete_tokens_expired_before(connection: AsyncConnection, at: float) -> None:
    """Forget tokens that expired before `at`."""
    await connection.execute(delete(join_tokens).where(join_tokens.c.expires_at < at))


async def take_use(connection: AsyncConnection, secret_hash: str, now: float) -> TokenRow | None:
    """Take one use of a valid token; None when it is unknown, used up or expired."""
    taken = (
        update(join_tokens)
        .where(join_tokens.c.secret_hash == secret_hash)
        .where(join_tokens.c.uses_left > 0, join_tokens.c.expires_at > now)
        .values(uses_left=join_tokens.c.uses_left - 1)
    )
    if (await connection.execute(taken)).rowcount == 0:
        return None
    return await find_token(connection, secret_hash)


async def find_token(connection: AsyncConnection, secret_hash: str) -> TokenRow | None:
    """Find a token by its secret's hash, whatever its state."""
    found = await connection.execute(
        select(*_TOKEN).where(join_tokens.c.secret_hash == secret_hash)
    )
    row = found.one_or_none()
    return None if row is None else _token(row)


async def group_names(connection: AsyncConnection, among: Sequence[str]) -> set[str]:
    """Return which of these groups exist."""
    return set(await connection.scalars(select(groups.c.name).where(groups.c.name.in_(among))))


async def insert_node(connection: AsyncConnection, node: NewNode, wanted: str) -> str:
    """Store a node as `wanted`, or with the first free suffix -2, -3 …; returns its name."""
    name = await _free_name(connection, wanted)
    await connection.execute(
        insert(nodes).values(
            id=node.id,
            name=name,
            labels=dict(node.labels),
            facts=dict(node.facts),
            packages=[],
            state="active",
            state_reason="",
            created_at=node.created_at,
            address=node.address,
        )
    )
    return name


async def _free_name(connection: AsyncConnection, wanted: str) -> str:
    stem = wanted[:58]  # with a suffix of five digits a name still fits its 64 characters
    like = nodes.c.name.startswith(f"{stem}-", autoescape=True)
    found = await connection.scalars(select(nodes.c.name).where((nodes.c.name == wanted) | like))
    taken = set(found)
    if wanted not in taken:
        return wanted
    return next(
        name for number in range(2, len(taken) + 3) if (name := f"{stem}-{number}") not in taken
    )


async def add_to_groups(connection: AsyncConnection, node_id: str, names: Sequence[str]) -> None:
    """Make a node a member of those of the named groups that exist."""
    if not names:
        return
    members = select(groups.c.id, literal(node_id)).where(groups.c.name.in_(names))
    await connection.execute(insert(memberships).from_select(["group_id", "node_id"], members))


async def insert_certificate(connection: AsyncConnection, row: CertificateRow) -> None:
    """Store an issued certificate."""
    await connection.execute(
        insert(certificates).values(
            serial=row.serial,
            node_id=row.node_id,
            fingerprint=row.fingerprint,
            key_hash=row.key_hash,
            not_before=row.not_before,
            not_after=row.not_after,
        )
    )


async def count_certificates_since(connection: AsyncConnection, node_id: str, at: float) -> int:
    """Count a node's certificates that became valid after `at`."""
    recent = (certificates.c.node_id == node_id) & (certificates.c.not_before > at)
    counted = select(func.count()).select_from(certificates).where(recent)
    return await connection.scalar(counted) or 0


async def delete_certificates_expired_before(
    connection: AsyncConnection, node_id: str, at: float
) -> None:
    """Forget a node's certificates that expired before `at`."""
    old = (certificates.c.node_id == node_id) & (certificates.c.not_after < at)
    await connection.execute(delete(certificates).where(old))


async def node_state(connection: AsyncConnection, node_id: str) -> str | None:
    """Return a node's state; None when there is no such node."""
    return await connection.scalar(select(nodes.c.state).where(nodes.c.id == node_id))


async def set_node_state(
    connection: AsyncConnection, node_id: str, state: str, reason: str
) -> str | None:
    """Set a node's state; returns the node's name, None when there is no such node."""
    change = update(nodes).where(nodes.c.id == node_id).values(state=state, state_reason=reason)
    await connection.execute(change)
    return await connection.scalar(select(nodes.c.name).where(nodes.c.id == node_id))


async def revoke_certificates(
    connection: AsyncConnection, node_id: str, reason: str, now: float
) -> None:
    """Revoke all certificates of a node that aren't yet."""
    valid = (certificates.c.node_id == node_id) & certificates.c.revoked_at.is_(None)
    await connection.execute(
        update(certificates).where(valid).values(revoked_at=now, revoked_reason=reason)
    )


async def delete_node(connection: AsyncConnection, node_id: str) -> str | None:
    """Delete a node and all that hangs on it; returns its name, None when there is none."""
    name = await connection.scalar(select(nodes.c.name).where(nodes.c.id == node_id))
    if name is not None:
        await connection.execute(delete(nodes).where(nodes.c.id == node_id))
    return name


async def standings(connection: AsyncConnection) -> list[StandingRow]:
    """Say of every node whether it may connect."""
    unrevoked = case((certificates.c.revoked_at.is_(None), certificates.c.not_after), else_=0.0)
    latest = (
        select(nodes.c.id, nodes.c.state, func.coalesce(func.max(unrevoked), 0.0))
        .select_from(nodes.outerjoin(certificates, certificates.c.node_id == nodes.c.id))
        .group_by(nodes.c.id, nodes.c.state)
    )
    return [StandingRow(*row) for row in await connection.execute(latest)]
