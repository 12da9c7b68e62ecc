"""How nodes come into the mesh and leave it: joining, renewal, revocation, removal.

The rules it guards: a token's use is taken and the certificate is stored in one transaction, or
neither; a refusal has a name, is logged and audited; after `revoke`, `quarantine` or `remove` no
stream of that node is accepted, and `on_cut` ends its live tunnel at once. `check` is asked at each
connection and stream and costs a dictionary's lookup.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from certs.authority import Authority
from certs.errors import RequestRefused
from certs.identity import NodeIdentity
from hub.audit import Audit
from hub.authz import Subject
from hub.buckets import Buckets
from hub.errors import (
    BadRequest,
    Conflict,
    NotFound,
    Throttled,
    TokenRefused,
    Unavailable,
)
from hub.events import EventLog
from hub.join_tokens import hash_of, take_use
from hub.node_names import check_name, name_from_hostname
from hub.store import enrolment as rows
from hub.store.connection import Connection
from hub.store.engine import Store
from protocol.messages import Facts

logger = logging.getLogger(__name__)

RENEWALS_PER_DAY = 8
"""Certificates that a node may have issued in a day: it needs two a week."""
CERTIFICATES_KEPT_S = 30 * 86400.0


class Refusal(StrEnum):
    """Why a node with a genuine certificate is not served."""

    UNKNOWN_NODE = "unknown_node"
    REVOKED = "revoked"
    QUARANTINED = "quarantined"
    EXPIRED = "expired"


class NodeRefused(Exception):
    """A node may not connect or open a stream."""

    def __init__(self, reason: Refusal, node_id: str) -> None:
        super().__init__(reason, node_id)
        self.reason = reason
        self.node_id = node_id

    def __str__(self) -> str:
        return f"node {self.node_id} refused: {self.reason}"


@dataclass(frozen=True, slots=True)
class Joined:
    """What a joiner gets."""

    node_id: str
    name: str
    certificate_pem: bytes
    trust_pem: bytes


@dataclass(slots=True)
class _Standing:
    state: str
    valid_until: float


Hook = Callable[[str], None]


@dataclass(slots=True)
class Enrolment:
    """The service; `load` it once before anybody connects."""

    store: Store
    audit: Audit
    events: EventLog
    authority: Authority
    clock: Callable[[], float] = time.time
    on_cut: list[Hook] = field(default_factory=list)
    """Called with the node's id when its live tunnel must end now."""
    on_changed: list[Hook] = field(default_factory=list)
    """Called when the node joined, renewed, or its state changed."""
    on_removed: list[Hook] = field(default_factory=list)
    _standings: dict[str, _Standing] = field(default_factory=dict)
    _joins: Buckets = field(default_factory=lambda: Buckets(per_s=20 / 60, burst=40))
    _refusals: Buckets = field(default_factory=lambda: Buckets(per_s=20 / 60, burst=40))
    _all_refusals: Buckets = field(default_factory=lambda: Buckets(per_s=5, burst=200))

    async def load(self) -> None:
        """Read who may connect; to be awaited once before anybody connects."""
        async with self.store.read() as connection:
            for row in await rows.standings(connection):
                self._standings[row.node_id] = _Standing(row.state, row.valid_until)

    # --- joining and renewing -------------------------------------------------------------------

    async def join(
        self, secret: str, csr_pem: bytes, name: str | None, facts: Facts, address: str
    ) -> Joined:
        """Let a new node in: take a use of the token, store the node and its certificate.

        Only attempts that fail count against the address, and those under way: whoever holds a
        token with a thousand uses may use them all at once.

        Raises:
            Throttled: too many attempts from this address.
            BadRequest: the request or the name can't be taken; the token is untouched.
            TokenUnknown, TokenUsed, TokenExpired: the token doesn't let anybody in.
        """
        if wait_s := self._joins.take(address, self.clock()):
            raise Throttled(wait_s)
        try:
            joined = await self._join(secret, csr_pem, name, facts, address)
        except (BadRequest, TokenRefused) as error:
            await self.note_refusal(error.code, address, detail=str(error), act="node.join")
            raise
        self._joins.give_back(address)
        return joined

    async def _join(
        self, secret: str, csr_pem: bytes, name: str | None, facts: Facts, address: str
    ) -> Joined:
        wanted = name_from_hostname(facts.hostname) if name is None else check_name(name)
        secret_hash, now = hash_of(secret), self.clock()
        node_id = str(uuid.uuid4())
        try:
            issued = self.authority.issue_node(csr_pem, node_id, now)
        except RequestRefused as error:
            raise BadRequest(str(error)) from error

        async def admit(connection: Connection) -> tuple[str, rows.TokenRow]:
            token = await take_use(connection, secret_hash, now)
            node = rows.NewNode(node_id, token.labels, msgspec.to_builtins(facts), now, address)
            given = await rows.insert_node(connection, node, wanted)
            await rows.add_to_groups(connection, node_id, token.groups)
            await rows.insert_certificate(connection, _row(issued.identity))
            return given, token

        given, token = await self.store.write(admit)
        self._standings[node_id] = _Standing("active", issued.identity.not_after)
        _call(self.on_changed, node_id)
        detail = {"token": token.id, "serial": issued.identity.serial}
        logger.info("node %s (%s) joined from %s", given, node_id, address)
        await self.audit.record(
            f"node:{given}", "node.join", node_id, address=address, detail=detail
        )
        await self.events.publish("node.joined", node_id=node_id, node=given)
        return Joined(node_id, given, issued.chain_pem, self.authority.root_pem)

    async def renew(self, identity: NodeIdentity, csr_pem: bytes) -> bytes:
        """Issue the next certificate of a connected node for the key that it proved.

        Returns the chain in PEM. The old certificate stays valid until it expires, so that a node
        that never receives the new one has lost nothing.

        Raises:
            NodeRefused: the node may not connect any more.
            RequestRefused: the request is for another key, or can't be read.
            Throttled: the node had many certificates issued today.
        """
        self.check(identity)
        now = self.clock()
        issued = self.authority.issue_node(csr_pem, identity.node_id, now)
        if issued.identity.key_hash != identity.key_hash:
            raise RequestRefused("it is for another key; a new key needs a new join")

        async def store(connection: Connection) -> str | None:
            state = await rows.node_state(connection, identity.node_id)
            if state != "active":
                return state or Refusal.UNKNOWN_NODE
            day_ago = now - 86400.0
            node_id = identity.node_id
            if await rows.count_certificates_since(connection, node_id, day_ago) > RENEWALS_PER_DAY:
                raise Throttled(3600.0)
            old = now - CERTIFICATES_KEPT_S
            await rows.delete_certificates_expired_before(connection, node_id, old)
            await rows.insert_certificate(connection, _row(issued.identity))
            return None

        if refusal := await self.store.write(store):
            raise NodeRefused(Refusal(refusal), identity.node_id)
        if standing := self._standings.get(identity.node_id):
            standing.valid_until = issued.identity.not_after
        _call(self.on_changed, identity.node_id)
        logger.info("node %s renewed its certificate", identity.node_id)
        return issued.chain_pem

    # --- leaving --------------------------------------------------------------------------------

    async def revoke(self, subject: Subject, node_id: str, reason: str) -> None:
        """Revoke all certificates of a node and end its live tunnel.

        Raises:
            NotFound: there is no such node.
        """
        await self._bar(node_id, "revoked", reason, subject.name, subject.address)

    async def quarantine(self, node_id: str, reason: str) -> None:
        """Keep a node out that behaves as if its key were copied, until `release`.

        Raises:
            NotFound: there is no such node.
        """
        await self._bar(node_id, "quarantined", reason, "hub", "")

    async def release(self, subject: Subject, node_id: str) -> None:
        """Let a quarantined node in again with the certificate it has.

        Raises:
            NotFound: there is no such node.
            Conflict: it isn't quarantined.
        """

        async def store(connection: Connection) -> str | None:
            if await rows.node_state(connection, node_id) not in ("quarantined", None):
                raise Conflict("only a quarantined node can be released")
            return await rows.set_node_state(connection, node_id, "active", "")

        name = await self.store.write(store)
        if name is None:
            raise NotFound("node", node_id)
        if standing := self._standings.get(node_id):
            standing.state = "active"
        _call(self.on_changed, node_id)
        await self.audit.record(subject.name, "node.release", name, address=subject.address)
        await self.events.publish("node.changed", node_id=node_id, node=name)

    async def remove(self, subject: Subject, node_id: str) -> None:
        """Forget a node and all that hangs on it, after ending its live tunnel.

        Raises:
            NotFound: there is no such node.
        """
        name = await self.store.write(lambda c: rows.delete_node(c, node_id))
        if name is None:
            raise NotFound("node", node_id)
        self._standings.pop(node_id, None)
        _call(self.on_cut, node_id)
        _call(self.on_removed, node_id)
        logger.info("node %s (%s) removed by %s", name, node_id, subject.name)
        await self.audit.record(subject.name, "node.remove", name, address=subject.address)
        await self.events.publish("node.removed", node_id=node_id, node=name)

    async def _bar(self, node_id: str, state: str, reason: str, subject: str, address: str) -> None:
        """Refuse a node from this moment on, then store it; a failed store takes it back."""
        reason, now = reason[:1000], self.clock()
        standing = self._standings.get(node_id)
        if standing is None:
            raise NotFound("node", node_id)
        was = standing.state
        if was == "revoked" and state == "quarantined":
            return  # nothing may soften a revocation
        standing.state = state

        async def store(connection: Connection) -> str | None:
            if state == "revoked":
                await rows.revoke_certificates(connection, node_id, reason, now)
            return await rows.set_node_state(connection, node_id, state, reason)

        try:
            name = await self.store.write(store)
        except Exception:
            standing.state = was
            raise
        if name is None:
            raise NotFound("node", node_id)
        _call(self.on_cut, node_id)
        _call(self.on_changed, node_id)
        logger.warning("node %s (%s) is %s: %s", name, node_id, state, reason)
        detail = {"reason": reason}
        act = "node.revoke" if state == "revoked" else "node.quarantine"
        await self.audit.record(subject, act, name, address=address, detail=detail)
        await self.events.publish(f"node.{state}", node_id=node_id, node=name, data=detail)

    # --- at every connection --------------------------------------------------------------------

    def check(self, identity: NodeIdentity) -> None:
        """Let a verified identity pass, or not.

        Raises:
            NodeRefused: with the reason.
        """
        standing = self._standings.get(identity.node_id)
        if standing is None:
            raise NodeRefused(Refusal.UNKNOWN_NODE, identity.node_id)
        if standing.state != "active":
            raise NodeRefused(Refusal(standing.state), identity.node_id)
        if self.clock() >= max(standing.valid_until, identity.not_after):
            raise NodeRefused(Refusal.EXPIRED, identity.node_id)

    async def note_refusal(
        self,
        reason: str,
        address: str,
        *,
        node_id: str = "",
        detail: str = "",
        act: str = "node.refuse",
    ) -> None:
        """Log and audit that somebody was turned away.

        At most 20 times a minute per address and 5 times a second in all, so that strangers can't
        fill the disk. Never raises: whoever is refused stays refused when the store is busy.

        Args:
            reason: a name of `certs.errors.Reason`, `Refusal`, or a join error's code.
            address: the peer's network address.
            node_id: who it says to be, when known.
            detail: more for people; cut to 500 characters.
            act: what was tried.
        """
        now = self.clock()
        if self._refusals.take(address, now) or self._all_refusals.take("", now):
            logger.debug("%s from %s refused: %s (not audited, too many)", act, address, reason)
            return
        logger.warning("%s from %s refused: %s %s", act, address, reason, node_id)
        who = f"node:{node_id}" if node_id else "anonymous"
        noted = {"reason": reason, "detail": detail[:500]}
        try:
            await self.audit.record(
                who, act, node_id, outcome="denied", address=address, detail=noted
            )
        except Unavailable as error:
            logger.error("the refusal of %s could not be audited: %s", address, error)


def _row(identity: NodeIdentity) -> rows.CertificateRow:
    return rows.CertificateRow(
        serial=identity.serial,
        node_id=identity.node_id,
        fingerprint=identity.fingerprint,
        key_hash=identity.key_hash,
        not_before=identity.not_before,
        not_after=identity.not_after,
    )


def _call(hooks: Sequence[Hook], node_id: str) -> None:
    """Call every hook; one that fails must not keep the others from cutting a tunnel."""
    for hook in hooks:
        try:
            hook(node_id)
        except Exception:
            logger.exception("a hook on node %s failed", node_id)
