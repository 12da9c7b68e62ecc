"""Joining, renewing and leaving on a real store with a real CA; the clock is set by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from certs.authority import Authority
from certs.errors import RequestRefused
from certs.identity import NodeIdentity
from certs.keys import key_from_pem, make_key_and_csr, make_request
from certs.tokens import decode_token, secret_to_text
from hub.audit import Audit
from hub.authz import Role, Subject
from hub.enrolment import RENEWALS_PER_DAY, Enrolment, Joined, NodeRefused, Refusal
from hub.errors import (
    BadRequest,
    Conflict,
    HubError,
    NotFound,
    Throttled,
    TokenExpired,
    TokenUnknown,
    TokenUsed,
)
from hub.events import EventLog
from hub.join_tokens import JoinTokens
from hub.store.engine import Store
from hub.store.schema import certificates, groups, join_tokens, memberships, nodes
from protocol.messages import Facts

ADMIN = Subject(
    name="ada", role=Role.ADMIN, user_id="1", via="token", credential="1", address="192.0.2.9"
)
ADDRESS = "198.51.100.7"


@dataclass
class Clock:
    now: float = 1_000_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Mesh:
    store: Store
    authority: Authority
    audit: Audit
    clock: Clock
    tokens: JoinTokens
    enrolment: Enrolment

    async def secret(self, uses: int = 1, **options: object) -> str:
        created = await self.tokens.create(ADMIN, uses=uses, **options)  # type: ignore[arg-type]
        return secret_to_text(decode_token(created.text).secret)

    async def join(self, secret: str, hostname: str = "web", name: str | None = None) -> Joined:
        _, csr = make_key_and_csr()
        return await self.enrolment.join(secret, csr, name, Facts(hostname=hostname), ADDRESS)

    async def node(self) -> tuple[NodeIdentity, bytes]:
        """A joined node: what its certificate says, and its key."""
        key, csr = make_key_and_csr()
        facts = Facts(hostname="web")
        joined = await self.enrolment.join(await self.secret(), csr, None, facts, ADDRESS)
        return self.identity(joined.certificate_pem), key

    def identity(self, chain_pem: bytes) -> NodeIdentity:
        leaf = x509.load_pem_x509_certificate(chain_pem)
        return self.authority.verify_node(leaf.public_bytes(Encoding.DER), self.clock.now)

    async def count(self, table: str) -> int:
        async with self.store.read() as connection:
            return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0)

    async def denials(self) -> list[tuple[str, str]]:
        page = await self.audit.entries(limit=100)
        denied = [entry for entry in page.entries if entry.outcome == "denied"]
        return [(entry.act, entry.detail["reason"]) for entry in denied]


@pytest.fixture
async def mesh(store: Store, tmp_path: Path) -> AsyncIterator[Mesh]:
    clock = Clock()
    authority = Authority.open(tmp_path / "ca", clock.now)
    audit, events = Audit(store), EventLog(store)
    tokens = JoinTokens(store, audit, authority, ("https://hub.example:8443",), clock)
    enrolment = Enrolment(store, audit, events, authority, clock)
    await enrolment.load()
    yield Mesh(store, authority, audit, clock, tokens, enrolment)


async def make_group(mesh: Mesh, name: str) -> None:
    row = insert(groups).values(id=name, name=name, description="", created_at=0.0)
    await mesh.store.write(lambda connection: connection.execute(row))


async def test_a_token_lets_one_node_in(mesh: Mesh) -> None:
    secret = await mesh.secret()
    joined = await mesh.join(secret)
    identity = mesh.identity(joined.certificate_pem)
    assert identity.node_id == joined.node_id
    assert joined.name == "web"
    assert joined.trust_pem == mesh.authority.root_pem
    mesh.enrolment.check(identity)
    with pytest.raises(TokenUsed, match="used already"):
        await mesh.join(secret)
    assert await mesh.count("nodes") == 1
    assert await mesh.denials() == [("node.join", "token_used")]


async def test_the_store_never_sees_the_secret(mesh: Mesh) -> None:
    created = await mesh.tokens.create(ADMIN)
    secret = decode_token(created.text).secret
    async with mesh.store.read() as connection:
        stored = str((await connection.execute(select(join_tokens))).all())
    page = await mesh.audit.entries(limit=10)
    for shown in (stored, repr(page)):
        assert secret.hex() not in shown
        assert secret_to_text(secret) not in shown


async def test_a_token_ends_at_its_time(mesh: Mesh) -> None:
    secret = await mesh.secret(ttl_s=60)
    mesh.clock.now += 60
    with pytest.raises(TokenExpired):
        await mesh.join(secret)
    assert await mesh.denials() == [("node.join", "token_expired")]
    assert await mesh.count("nodes") == 0


@pytest.mark.parametrize("secret", ["", "x", "A" * 43, "é" * 43, "A" * 64])
async def test_an_unknown_secret_is_refused_and_audited(mesh: Mesh, secret: str) -> None:
    with pytest.raises(TokenUnknown):
        await mesh.join(secret)
    assert await mesh.denials() == [("node.join", "token_unknown")]


async def test_a_deleted_token_is_unknown(mesh: Mesh) -> None:
    created = await mesh.tokens.create(ADMIN)
    await mesh.tokens.delete(ADMIN, created.row.id)
    with pytest.raises(TokenUnknown):
        await mesh.join(secret_to_text(decode_token(created.text).secret))
    with pytest.raises(NotFound):
        await mesh.tokens.delete(ADMIN, created.row.id)


async def test_of_many_joiners_at_once_exactly_as_many_as_uses_get_in(mesh: Mesh) -> None:
    secret = await mesh.secret(uses=3)
    outcomes: list[str] = []

    async def try_to_join() -> None:
        try:
            outcomes.append((await mesh.join(secret)).name)
        except TokenUsed as error:
            outcomes.append(error.code)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(12):
            tasks.create_task(try_to_join())
    assert sorted(outcomes) == ["token_used"] * 9 + ["web", "web-2", "web-3"]
    assert await mesh.count("nodes") == await mesh.count("certificates") == 3


async def test_a_join_that_fails_half_way_leaves_token_and_store_as_they_were(mesh: Mesh) -> None:
    secret = await mesh.secret()
    forbid = text(
        "CREATE TRIGGER broken BEFORE INSERT ON certificates"
        " BEGIN SELECT RAISE(ABORT, 'disk on fire'); END"
    )
    await mesh.store.write(lambda connection: connection.execute(forbid))
    with pytest.raises(IntegrityError, match="disk on fire"):
        await mesh.join(secret)
    assert await mesh.count("nodes") == 0
    repair = text("DROP TRIGGER broken")
    await mesh.store.write(lambda connection: connection.execute(repair))
    assert (await mesh.join(secret)).name == "web"


@pytest.mark.parametrize("csr", [b"", b"nonsense", b"\xff", b"A" * 9000])
async def test_a_bad_request_leaves_the_token_untouched(mesh: Mesh, csr: bytes) -> None:
    secret = await mesh.secret()
    with pytest.raises(BadRequest):
        await mesh.enrolment.join(secret, csr, None, Facts(hostname="web"), ADDRESS)
    assert (await mesh.join(secret)).name == "web"


async def test_a_bad_name_is_refused_and_a_bad_host_name_is_made_good(mesh: Mesh) -> None:
    secret = await mesh.secret()
    for name in ("", "-x", "a b", "all", "x" * 65, "../x"):
        with pytest.raises(BadRequest, match="node's name"):
            await mesh.join(secret, name=name)
    assert (await mesh.join(secret, hostname="Büro Mac.local")).name == "B-ro-Mac.local"


async def test_taken_names_get_a_number(mesh: Mesh) -> None:
    secret = await mesh.secret(uses=5)
    wanted = ["db", "db-2", "db", "d_b", "x" * 64]
    given = [(await mesh.join(secret, name=name)).name for name in wanted]
    assert given == ["db", "db-2", "db-3", "d_b", "x" * 64]
    assert (await mesh.join(await mesh.secret(), name="x" * 64)).name == "x" * 58 + "-2"


async def test_a_token_gives_groups_and_labels(mesh: Mesh) -> None:
    await make_group(mesh, "shops")
    secret = await mesh.secret(groups=["shops"], labels={"site": "oslo"})
    joined = await mesh.join(secret)
    async with mesh.store.read() as connection:
        row = (await connection.execute(select(nodes.c.labels, nodes.c.facts))).one()
        members = await connection.scalar(select(func.count()).select_from(memberships))
    assert row.labels == {"site": "oslo"}
    assert row.facts["hostname"] == "web"
    assert members == 1
    assert joined.name == "web"


async def test_a_token_for_a_group_that_is_not_there_is_refused(mesh: Mesh) -> None:
    with pytest.raises(NotFound, match="'nope'"):
        await mesh.tokens.create(ADMIN, groups=["nope"])
    assert await mesh.count("join_tokens") == 0


@pytest.mark.parametrize("options", [{"uses": 0}, {"uses": 1001}, {"ttl_s": 0}, {"ttl_s": 86401}])
async def test_a_token_out_of_range_is_refused(mesh: Mesh, options: dict[str, int]) -> None:
    with pytest.raises(BadRequest):
        await mesh.tokens.create(ADMIN, **options)  # type: ignore[arg-type]


async def test_tokens_are_listed_newest_first_and_forgotten_a_week_after(mesh: Mesh) -> None:
    first = await mesh.tokens.create(ADMIN)
    mesh.clock.now += 1
    second = await mesh.tokens.create(ADMIN, uses=2)
    page, total = await mesh.tokens.page(10, 0)
    assert ([row.id for row in page], total) == ([second.row.id, first.row.id], 2)
    assert page[0].uses_left == 2
    mesh.clock.now += 8 * 86400
    third = await mesh.tokens.create(ADMIN)
    page, total = await mesh.tokens.page(10, 0)
    assert ([row.id for row in page], total) == ([third.row.id], 1)


async def test_joins_from_one_address_are_throttled(mesh: Mesh) -> None:
    for _ in range(40):
        with pytest.raises(TokenUnknown):
            await mesh.join("A" * 43)
    with pytest.raises(Throttled) as caught:
        await mesh.join("A" * 43)
    assert 0 < caught.value.retry_after_s <= 3
    mesh.clock.now += 3
    with pytest.raises(TokenUnknown):
        await mesh.join("A" * 43)


async def test_joins_that_succeed_do_not_count_against_their_address(mesh: Mesh) -> None:
    secret = await mesh.secret(uses=60)
    for _ in range(60):
        await mesh.join(secret)
    for _ in range(40):
        with pytest.raises(TokenUsed):
            await mesh.join(secret)
    with pytest.raises(Throttled):
        await mesh.join(secret)


async def test_the_audit_is_not_filled_by_one_stranger(mesh: Mesh) -> None:
    for _ in range(100):
        await mesh.enrolment.note_refusal("other_ca", "203.0.113.1")
    assert len(await mesh.denials()) == 40


async def test_the_audit_is_not_filled_by_many_strangers(mesh: Mesh) -> None:
    for number in range(300):
        await mesh.enrolment.note_refusal("other_ca", f"2001:db8::{number:x}")
    assert (await mesh.audit.entries(limit=1)).total == 200


async def test_renewal_gives_the_same_node_the_same_key_and_a_new_week(mesh: Mesh) -> None:
    identity, key = await mesh.node()
    mesh.clock.now += 3.5 * 86400
    chain = await mesh.enrolment.renew(identity, make_request(key_from_pem(key)))
    new = mesh.identity(chain)
    assert (new.node_id, new.key_hash) == (identity.node_id, identity.key_hash)
    assert new.serial != identity.serial
    assert new.not_after == mesh.clock.now + 7 * 86400
    mesh.enrolment.check(identity)  # no gap: the old one is good until its own end
    mesh.enrolment.check(new)


async def test_a_live_tunnel_outlives_its_first_certificate_only_by_renewal(mesh: Mesh) -> None:
    idle, _ = await mesh.node()
    renewing, key = await mesh.node()
    mesh.clock.now += 6 * 86400
    await mesh.enrolment.renew(renewing, make_request(key_from_pem(key)))
    mesh.clock.now += 2 * 86400
    mesh.enrolment.check(renewing)
    with pytest.raises(NodeRefused) as caught:
        mesh.enrolment.check(idle)
    assert caught.value.reason is Refusal.EXPIRED


async def test_renewal_for_another_key_is_refused(mesh: Mesh) -> None:
    identity, _ = await mesh.node()
    with pytest.raises(RequestRefused, match="another key"):
        await mesh.enrolment.renew(identity, make_key_and_csr()[1])
    with pytest.raises(RequestRefused):
        await mesh.enrolment.renew(identity, b"nonsense")
    assert await mesh.count("certificates") == 1


async def test_renewals_are_bounded_and_old_certificates_forgotten(mesh: Mesh) -> None:
    identity, key = await mesh.node()
    request = make_request(key_from_pem(key))
    for _ in range(RENEWALS_PER_DAY):
        await mesh.enrolment.renew(identity, request)
    with pytest.raises(Throttled):
        await mesh.enrolment.renew(identity, request)
    for _ in range(8):
        mesh.clock.now += 5 * 86400
        identity = mesh.identity(await mesh.enrolment.renew(identity, request))
    assert await mesh.count("certificates") == 8


Act = Callable[[Mesh, str], Awaitable[None]]


async def revoke(mesh: Mesh, node_id: str) -> None:
    await mesh.enrolment.revoke(ADMIN, node_id, "lost laptop")


async def quarantine(mesh: Mesh, node_id: str) -> None:
    await mesh.enrolment.quarantine(node_id, "two machines, one key")


async def remove(mesh: Mesh, node_id: str) -> None:
    await mesh.enrolment.remove(ADMIN, node_id)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (revoke, Refusal.REVOKED),
        (quarantine, Refusal.QUARANTINED),
        (remove, Refusal.UNKNOWN_NODE),
    ],
)
async def test_a_barred_node_is_cut_and_refused_also_after_a_restart(
    mesh: Mesh, act: Act, reason: Refusal
) -> None:
    identity, key = await mesh.node()
    other, _ = await mesh.node()
    cut: list[str] = []

    def broken(node_id: str) -> None:
        raise RuntimeError(node_id)

    mesh.enrolment.on_cut += [broken, cut.append]
    await act(mesh, identity.node_id)
    assert cut == [identity.node_id]
    restarted = Enrolment(mesh.store, mesh.audit, mesh.enrolment.events, mesh.authority, mesh.clock)
    await restarted.load()
    for enrolment in (mesh.enrolment, restarted):
        enrolment.check(other)
        with pytest.raises(NodeRefused) as caught:
            enrolment.check(identity)
        assert caught.value.reason is reason
        with pytest.raises(NodeRefused):
            await enrolment.renew(identity, make_request(key_from_pem(key)))


async def test_revocation_is_written_to_each_certificate(mesh: Mesh) -> None:
    identity, key = await mesh.node()
    await mesh.enrolment.renew(identity, make_request(key_from_pem(key)))
    await revoke(mesh, identity.node_id)
    async with mesh.store.read() as connection:
        rows = (await connection.execute(select(certificates.c.revoked_reason))).all()
    assert [row.revoked_reason for row in rows] == ["lost laptop"] * 2
    page = await mesh.audit.entries(limit=1)
    assert (page.entries[0].act, page.entries[0].subject) == ("node.revoke", "ada")


async def test_a_quarantine_never_softens_a_revocation(mesh: Mesh) -> None:
    identity, _ = await mesh.node()
    await revoke(mesh, identity.node_id)
    await quarantine(mesh, identity.node_id)
    with pytest.raises(NodeRefused, match="revoked"):
        mesh.enrolment.check(identity)
    with pytest.raises(Conflict):
        await mesh.enrolment.release(ADMIN, identity.node_id)


async def test_a_revocation_that_was_not_stored_is_not_in_force(mesh: Mesh) -> None:
    identity, _ = await mesh.node()
    forbid = text(
        "CREATE TRIGGER broken BEFORE UPDATE ON nodes BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    await mesh.store.write(lambda connection: connection.execute(forbid))
    with pytest.raises(IntegrityError):
        await revoke(mesh, identity.node_id)
    mesh.enrolment.check(identity)
    async with mesh.store.read() as connection:
        assert (await connection.scalar(select(certificates.c.revoked_at))) is None


async def test_only_a_quarantined_node_is_released(mesh: Mesh) -> None:
    identity, _ = await mesh.node()
    with pytest.raises(Conflict):
        await mesh.enrolment.release(ADMIN, identity.node_id)
    await quarantine(mesh, identity.node_id)
    await mesh.enrolment.release(ADMIN, identity.node_id)
    mesh.enrolment.check(identity)
    await revoke(mesh, identity.node_id)
    with pytest.raises(Conflict):
        await mesh.enrolment.release(ADMIN, identity.node_id)


@pytest.mark.parametrize("act", [revoke, quarantine, remove])
async def test_a_node_that_is_not_there_is_not_found(mesh: Mesh, act: Act) -> None:
    with pytest.raises(NotFound):
        await act(mesh, "00000000-0000-0000-0000-000000000000")


async def test_hooks_hear_of_each_change(mesh: Mesh) -> None:
    heard: list[str] = []
    mesh.enrolment.on_changed.append(lambda _: heard.append("changed"))
    mesh.enrolment.on_cut.append(lambda _: heard.append("cut"))
    mesh.enrolment.on_removed.append(lambda _: heard.append("removed"))
    identity, key = await mesh.node()
    assert heard == ["changed"]
    await mesh.enrolment.renew(identity, make_request(key_from_pem(key)))
    assert heard == ["changed"] * 2
    await quarantine(mesh, identity.node_id)
    assert heard[2:] == ["cut", "changed"]
    await mesh.enrolment.release(ADMIN, identity.node_id)
    await remove(mesh, identity.node_id)
    assert heard[4:] == ["changed", "cut", "removed"]
    kinds = [event.kind for event in await mesh.enrolment.events.after(0, 10)]
    assert kinds == ["node.joined", "node.quarantined", "node.changed", "node.removed"]


async def test_every_refusal_is_one_of_the_hubs_errors(mesh: Mesh) -> None:
    for error in (TokenUnknown(), TokenUsed(), TokenExpired()):
        assert isinstance(error, HubError)
        assert error.code.startswith("token_")
