"""Users, sessions, tokens, tickets, throttle, origins: what they promise one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hub.accounts import passwords as passwords_module
from hub.accounts.accounts import Accounts
from hub.accounts.changes import Ended
from hub.accounts.first_start import create_admin, operator_token, write_operator_env
from hub.accounts.origins import Origins
from hub.accounts.passwords import Passwords
from hub.accounts.sessions import ABSOLUTE_S, IDLE_S
from hub.accounts.throttle import Throttle
from hub.accounts.verified import LIMIT, Verified
from hub.authz import Role, Subject
from hub.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    HubError,
    NotFound,
    NotSignedIn,
    Throttled,
    Unavailable,
    WrongCredentials,
)
from hub.store.engine import Store


@dataclass
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(store: Store, passwords: Passwords, clock: Clock) -> Accounts:
    return Accounts.create(store, passwords=passwords, clock=clock)


async def session_of(accounts: Accounts, name: str) -> tuple[str, Subject]:
    new = await accounts.sessions.create(await accounts.users.find(name), "::1", "test")
    return new.cookie, new.session.subject


# --- users ---


async def test_a_user_signs_in_with_the_password_only(accounts: Accounts) -> None:
    await accounts.users.create("ann", "correct horse", Role.VIEWER)
    assert (await accounts.users.sign_in("ann", "correct horse", "::1")).role == "viewer"
    for name, password in (("ann", "wrong horse"), ("bob", "correct horse"), ("ann", "x" * 10_000)):
        with pytest.raises(WrongCredentials):
            await accounts.users.sign_in(name, password, "::1")


async def test_names_and_passwords_are_checked(accounts: Accounts) -> None:
    for name, password in (("", "x" * 8), ("a b", "x" * 8), ("ann", "short"), ("ann", "x" * 257)):
        with pytest.raises(BadRequest):
            await accounts.users.create(name, password, Role.VIEWER)
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    with pytest.raises(Conflict):
        await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    with pytest.raises(NotFound):
        await accounts.users.change("nobody", role=Role.ADMIN)


async def test_the_last_administrator_stays(accounts: Accounts) -> None:
    users = accounts.users
    await users.create("root", "x" * 8, Role.ADMIN)
    await users.create("ann", "x" * 8, Role.ADMIN)
    await users.change("ann", disabled=True)
    acts: list[Callable[[], Awaitable[object]]] = [
        lambda: users.remove("root"),
        lambda: users.change("root", disabled=True),
        lambda: users.change("root", role=Role.DEPLOYER),
    ]
    for act in acts:
        with pytest.raises(Conflict, match="last administrator"):
            await act()
    await users.change("root", password="y" * 8)
    await users.change("ann", disabled=False)
    await users.remove("root")
    assert [user.name for user in await users.all()] == ["ann"]


async def test_two_administrators_cannot_remove_each_other(accounts: Accounts) -> None:
    for name in ("ann", "bob"):
        await accounts.users.create(name, "x" * 8, Role.ADMIN)

    async def remove(name: str) -> bool:
        try:
            await accounts.users.remove(name)
        except Conflict:
            return False
        return True

    async with asyncio.TaskGroup() as group:
        removed = [group.create_task(remove(name)) for name in ("ann", "bob")]
    assert sorted(task.result() for task in removed) == [False, True]


async def test_a_change_ends_sessions_tickets_and_whoever_listens(accounts: Accounts) -> None:
    await accounts.users.create("root", "x" * 8, Role.ADMIN)
    await accounts.users.create("ann", "x" * 8, Role.OPERATOR)
    heard: list[Ended] = []
    accounts.on_change(heard.append)
    changes: list[Callable[[], Awaitable[object]]] = [
        lambda: accounts.users.change("ann", role=Role.VIEWER),
        lambda: accounts.users.change("ann", disabled=False),
        lambda: accounts.users.change("ann", password="y" * 8),
    ]
    for change in changes:
        cookie, subject = await session_of(accounts, "ann")
        await accounts.sessions.verify(cookie, "::1")
        ticket = accounts.tickets.issue(subject, "live").ticket
        await change()
        assert heard.pop().covers(subject)
        with pytest.raises(NotSignedIn):
            await accounts.sessions.verify(cookie, "::1")
        with pytest.raises(NotSignedIn):
            accounts.tickets.redeem(ticket, subject, "live")


async def test_changing_the_own_password_spares_the_own_session(accounts: Accounts) -> None:
    await accounts.users.create("ann", "x" * 8, Role.ADMIN)
    mine, subject = await session_of(accounts, "ann")
    other, _ = await session_of(accounts, "ann")
    with pytest.raises(WrongCredentials):
        await accounts.users.change_own_password(subject, "wrong", "y" * 8)
    await accounts.users.change_own_password(subject, "x" * 8, "y" * 8)
    await accounts.sessions.verify(mine, "::1")
    with pytest.raises(NotSignedIn):
        await accounts.sessions.verify(other, "::1")
    await accounts.users.sign_in("ann", "y" * 8, "::1")


# --- sessions ---


async def test_a_session_slides_and_has_an_absolute_end(accounts: Accounts, clock: Clock) -> None:
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    cookie, _ = await session_of(accounts, "ann")
    start = clock.now
    while clock.now < start + ABSOLUTE_S - IDLE_S:
        clock.now += IDLE_S - 1
        session = await accounts.sessions.verify(cookie, "::1")
        assert session.expires_at <= start + ABSOLUTE_S
    clock.now = start + ABSOLUTE_S
    with pytest.raises(NotSignedIn):
        await accounts.sessions.verify(cookie, "::1")
    assert await accounts.sessions.prune() == 1


async def test_an_idle_session_ends(accounts: Accounts, clock: Clock) -> None:
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    cookie, _ = await session_of(accounts, "ann")
    clock.now += IDLE_S
    with pytest.raises(NotSignedIn):
        await accounts.sessions.verify(cookie, "::1")


async def test_a_slid_session_lives_in_the_database_too(
    accounts: Accounts, store: Store, clock: Clock
) -> None:
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    cookie, _ = await session_of(accounts, "ann")
    clock.now += IDLE_S - 1
    await accounts.sessions.verify(cookie, "::1")
    clock.now += IDLE_S - 1
    restarted = Accounts.create(store, clock=clock)
    assert (await restarted.sessions.verify(cookie, "::9")).subject.address == "::9"


async def test_signing_out_ends_one_session(accounts: Accounts) -> None:
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    mine, subject = await session_of(accounts, "ann")
    other, other_subject = await session_of(accounts, "ann")
    heard: list[Ended] = []
    accounts.on_change(heard.append)
    await accounts.sessions.end(subject)
    with pytest.raises(NotSignedIn):
        await accounts.sessions.verify(mine, "::1")
    await accounts.sessions.verify(other, "::1")
    assert heard[0].covers(subject)
    assert not heard[0].covers(other_subject)


# --- tokens ---


async def test_a_token_gives_the_lower_of_two_roles_and_follows_its_owner(
    accounts: Accounts,
) -> None:
    await accounts.users.create("root", "x" * 8, Role.ADMIN)
    await accounts.users.create("ann", "x" * 8, Role.DEPLOYER)
    owner = await accounts.users.find("ann")
    new = await accounts.tokens.create(owner.id, "ann", "ci", Role.OPERATOR)
    assert (await accounts.tokens.verify(new.secret, "::1")).role == Role.OPERATOR
    await accounts.users.change("ann", role=Role.VIEWER)
    assert (await accounts.tokens.verify(new.secret, "::1")).role == Role.VIEWER
    await accounts.users.change("ann", disabled=True)
    with pytest.raises(NotSignedIn):
        await accounts.tokens.verify(new.secret, "::1")


async def test_a_token_expires_and_its_use_is_noted(accounts: Accounts, clock: Clock) -> None:
    await accounts.users.create("ann", "x" * 8, Role.ADMIN)
    owner = await accounts.users.find("ann")
    new = await accounts.tokens.create(owner.id, "ann", "ci", Role.ADMIN, ttl_s=100)
    subject = await accounts.tokens.verify(new.secret, "::1")
    first_use = clock.now
    for clock.now in (first_use + 30, first_use + 70):
        await accounts.tokens.verify(new.secret, "::1")
    assert (await accounts.tokens.visible_to(subject))[0].last_used_at == first_use + 70
    clock.now = first_use + 100
    with pytest.raises(NotSignedIn):
        await accounts.tokens.verify(new.secret, "::1")


async def test_the_end_of_a_token_that_is_in_use_is_announced(
    store: Store, passwords: Passwords
) -> None:
    accounts = Accounts.create(store, passwords=passwords)
    await accounts.users.create("olga", "correct horse", Role.OPERATOR)
    user = await accounts.users.find("olga")
    ended: asyncio.Queue[Ended] = asyncio.Queue()
    accounts.on_change(ended.put_nowait)
    made = await accounts.tokens.create(user.id, "olga", "short", Role.OPERATOR, 0.5)
    subject = await accounts.tokens.verify(made.secret, "")
    async with asyncio.timeout(5):
        assert (await ended.get()).covers(subject)
    with pytest.raises(NotSignedIn):
        await accounts.tokens.verify(made.secret, "")


async def test_a_store_that_takes_no_writes_locks_nobody_out(
    accounts: Accounts, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await accounts.users.create("olga", "correct horse", Role.OPERATOR)
    cookie, subject = await session_of(accounts, "olga")
    token = await accounts.tokens.create(subject.user_id, "olga", "ci", Role.OPERATOR)

    async def full(*_: object, **__: object) -> None:
        raise Unavailable("the disk is full")

    monkeypatch.setattr(Store, "write", full)
    clock.now += 3_600
    assert (await accounts.tokens.verify(token.secret, "")).name == "olga"
    assert (await accounts.sessions.verify(cookie, "")).subject.name == "olga"


async def test_verifying_a_token_again_reads_no_database(store: Store, accounts: Accounts) -> None:
    await accounts.users.create("ann", "x" * 8, Role.VIEWER)
    owner = await accounts.users.find("ann")
    new = await accounts.tokens.create(owner.id, "ann", "ci", Role.VIEWER)
    await accounts.tokens.verify(new.secret, "::1")
    verifying = accounts.tokens.verify(new.secret, "::2")
    with pytest.raises(StopIteration) as returned:
        verifying.send(None)
    assert returned.value.value.address == "::2"


async def test_tokens_are_seen_and_removed_by_owner_or_administrator(accounts: Accounts) -> None:
    secrets = {}
    for name, role in (("root", Role.ADMIN), ("ann", Role.VIEWER), ("bob", Role.VIEWER)):
        await accounts.users.create(name, "x" * 8, role)
        owner = await accounts.users.find(name)
        secrets[name] = (await accounts.tokens.create(owner.id, name, "ci", role)).secret
    root, ann, bob = [await accounts.tokens.verify(secrets[n], "") for n in ("root", "ann", "bob")]
    assert [token.user for token in await accounts.tokens.visible_to(ann)] == ["ann"]
    assert len(await accounts.tokens.visible_to(root)) == 3
    with pytest.raises(NotFound):
        await accounts.tokens.remove(ann, bob.credential)
    await accounts.tokens.remove(root, bob.credential)
    with pytest.raises(NotSignedIn):
        await accounts.tokens.verify(secrets["bob"], "")
    weak = await accounts.tokens.create(root.user_id, "root", "weak", Role.VIEWER)
    with pytest.raises(Forbidden):
        await accounts.tokens.remove(await accounts.tokens.verify(weak.secret, ""), root.credential)


def test_the_cache_is_bounded_and_refuses_what_was_read_before_a_change() -> None:
    @dataclass(frozen=True)
    class Known:
        subject: Subject

    cache: Verified[Known] = Verified()
    for number in range(LIMIT + 10):
        subject = Subject("ann", Role.VIEWER, f"u{number}", "token", "t")
        cache.put(str(number), Known(subject), cache.generation)
    assert cache.get("9") is None
    assert cache.get("10") is not None
    read_at = cache.generation
    cache.drop(Ended("u10"))
    assert cache.get("10") is None
    cache.put("10", Known(subject), read_at)
    assert cache.get("10") is None


# --- tickets, throttle, passwords, origins ---


async def test_a_ticket_is_good_once_for_its_caller_purpose_and_node(
    accounts: Accounts, clock: Clock
) -> None:
    ann = Subject("ann", Role.OPERATOR, "u1", "session", "s1")
    bob = Subject("bob", Role.OPERATOR, "u2", "session", "s2")
    tickets = accounts.tickets

    def issue() -> str:
        return tickets.issue(ann, "shell", "web-1").ticket

    used = issue()
    tickets.redeem(used, ann, "shell", "web-1")
    attempts: list[Callable[[], None]] = [
        lambda: tickets.redeem(used, ann, "shell", "web-1"),
        lambda: tickets.redeem(issue(), bob, "shell", "web-1"),
        lambda: tickets.redeem(issue(), ann, "shell", "web-2"),
        lambda: tickets.redeem(issue(), ann, "live"),
        lambda: tickets.redeem("nonsense", ann, "live"),
    ]
    for refused in attempts:
        with pytest.raises(NotSignedIn):
            refused()
    late = issue()
    clock.now += 30
    with pytest.raises(NotSignedIn):
        tickets.redeem(late, ann, "shell", "web-1")


async def test_unused_tickets_are_bounded_per_user(accounts: Accounts, clock: Clock) -> None:
    ann = Subject("ann", Role.OPERATOR, "u1", "session", "s1")
    bob = Subject("bob", Role.OPERATOR, "u2", "session", "s2")
    for _ in range(64):
        accounts.tickets.issue(ann, "live")
    with pytest.raises(Throttled):
        accounts.tickets.issue(ann, "live")
    accounts.tickets.issue(bob, "live")
    clock.now += 31
    accounts.tickets.issue(ann, "live")


def test_the_sixth_attempt_in_a_minute_waits_and_then_longer(clock: Clock) -> None:
    throttle = Throttle(clock)
    waits = []
    for _ in range(3):
        for _ in range(5):
            throttle.attempt("ann", "::1")
        with pytest.raises(Throttled) as refused:
            throttle.attempt("ann", "::1")
        waits.append(refused.value.retry_after_s)
        throttle.attempt("ann", "::2")
        clock.now += waits[-1] - 1
        with pytest.raises(Throttled):
            throttle.attempt("ann", "::1")
        clock.now += 1
    assert waits == [60, 120, 240]
    clock.now += 3_601
    throttle.attempt("ann", "::1")


def test_success_forgets_the_attempts(clock: Clock) -> None:
    throttle = Throttle(clock)
    for _ in range(20):
        throttle.attempt("ann", "::1")
        throttle.succeeded("ann", "::1")


async def test_a_flood_of_sign_ins_is_refused_not_queued(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords_module, "WAITING_LIMIT", 2)
    known = await passwords.hash("x" * 8)

    async def attempt() -> str:
        try:
            return str(await passwords.verify(known, "x" * 8))
        except Unavailable:
            return "refused"

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt()) for _ in range(10)]
    results = [task.result() for task in tasks]
    assert (results.count("True"), results.count("refused")) == (4, 6)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://hub.example.org", True),
        ("https://hub.example.org:443", False),
        ("https://hub.example.org:8443", False),
        ("http://hub.example.org", False),
        ("https://hub.example.org.evil.test", False),
        ("https://localhost:8443", True),
        ("https://127.0.0.1:8443", True),
        ("https://[::1]:8443", True),
        ("https://localhost:8444", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_the_hubs_own_origins_are_allowed(origin: str, allowed: bool) -> None:
    origins = Origins(["https://Hub.Example.org:443/"])
    origins.listening("127.0.0.1", 8443)
    assert origins.allow(origin) is allowed


# --- first start ---


async def test_a_first_start_leaves_an_administrator_and_a_token(
    accounts: Accounts, tmp_path: Path
) -> None:
    assert await create_admin(accounts, tmp_path)
    password_file = tmp_path / "admin-password"
    assert password_file.stat().st_mode & 0o777 == 0o600
    await accounts.users.sign_in("admin", password_file.read_text().strip(), "::1")
    assert not await create_admin(accounts, tmp_path)

    token = await operator_token(accounts, tmp_path)
    path = write_operator_env(tmp_path, "https://localhost:1", token, tmp_path / "a ca.pem")
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"export MOORING_CA='{tmp_path}/a ca.pem'\n" in path.read_text()
    assert (await accounts.tokens.verify(token, "")).role == Role.ADMIN
    assert await operator_token(accounts, tmp_path) == token
    write_operator_env(tmp_path, "https://localhost:1", token, None)
    assert "export MOORING_CA=\n" in path.read_text()


async def test_a_lost_operator_token_is_replaced_and_the_old_one_removed(
    accounts: Accounts, tmp_path: Path
) -> None:
    await create_admin(accounts, tmp_path)
    lost = await operator_token(accounts, tmp_path)
    new = await operator_token(accounts, tmp_path)
    assert new != lost
    with pytest.raises(NotSignedIn):
        await accounts.tokens.verify(lost, "")


async def test_without_an_administrator_there_is_no_operator_token(
    accounts: Accounts, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match="no active administrator"):
        await operator_token(accounts, tmp_path)
