"""The table of open forwards."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from hub.audit import Audit
from hub.authz import Role, Subject
from hub.connections import Limits
from hub.core import Hub
from hub.errors import Conflict, Forbidden, NotFound
from hub.forwards import SHOWN_CONNECTIONS, Forwards
from hub.store.engine import Store
from hub.ways import Way
from protocol.aio import ResetCode, StreamReset
from tests.hub.conftest import ClientFor
from tests.hub.world import OPERATOR, VIEWER

ADMIN = Subject("anna", Role.ADMIN, "u3", "token", "t3")
NEVER = Limits(idle_s=1e9, half_closed_s=1e9)
WAY = Way(kind="local", node="id-web-1", host="127.0.0.1", port=80)


def forwards_of(store: Store, limits: Limits = NEVER) -> Forwards:
    return Forwards(Audit(store), lambda node_id: node_id.removeprefix("id-"), limits)


async def acts(store: Store) -> list[tuple[str, str]]:
    """What the audit holds, oldest first."""
    entries = (await Audit(store).entries(50)).entries
    return [(entry.act, entry.outcome) for entry in reversed(entries)]


async def test_a_forward_is_one_entry_for_all_its_connections(store: Store) -> None:
    forwards = forwards_of(store)
    async with forwards.declare(OPERATOR, WAY) as forward:
        async with forward.connection("192.0.2.1") as first:
            first.traffic.sent.size_bytes = 7
            async with forward.connection("192.0.2.2") as second:
                second.traffic.received.size_bytes = 5
                (view,) = forwards.list()
        (after,) = forwards.list()
    assert (view.node, view.subject, view.host, view.port) == ("web-1", "olga", "127.0.0.1", 80)
    assert (view.kind, view.connections, view.connections_total) == ("local", 2, 2)
    assert (after.connections, after.connections_total) == (0, 2)
    assert (after.sent_bytes, after.received_bytes) == (7, 5)
    assert forwards.list() == []
    assert await acts(store) == [("forward.open", "ok"), ("forward.close", "ok")]
    (closed, _) = (await Audit(store).entries(10)).entries
    assert closed.object == "web-1 127.0.0.1:80"
    assert closed.detail == {
        "forward": view.id,
        "kind": "local",
        "connections_total": 2,
        "sent_bytes": 7,
        "received_bytes": 5,
        "reason": "",
    }


async def test_a_forward_is_listed_until_its_last_connection_ends(store: Store) -> None:
    forwards = forwards_of(store)
    forward = await forwards.open(OPERATOR, WAY)
    async with forward.connection("192.0.2.1"):
        await forward.release()
        assert [view.id for view in forwards.list()] == [forward.id]
    assert forwards.list() == []


async def test_who_may_not_forward_is_refused_and_audited(store: Store) -> None:
    with pytest.raises(Forbidden):
        async with forwards_of(store).declare(VIEWER, WAY):
            pass
    assert await acts(store) == [("forward.open", "denied")]


async def test_a_closed_forward_names_who_closed_it_and_carries_nothing_more(store: Store) -> None:
    forwards = forwards_of(store)
    resets: list[StreamReset] = []
    async with forwards.declare(OPERATOR, WAY) as forward:
        async with forward.connection("192.0.2.1") as connection:
            connection.end_by(resets.append)
            await forwards.close(ADMIN, forward.id)
        assert forwards.list() == []
        with pytest.raises(Conflict, match="closed by anna"):
            async with forward.connection("192.0.2.1"):
                pass
        assert await forward.wait_closed() == "the forward was closed by anna"
    assert [(reset.code, reset.reason) for reset in resets] == [
        (ResetCode.REFUSED, "the forward was closed by anna")
    ]
    assert await acts(store) == [
        ("forward.open", "ok"),
        ("forward.kill", "ok"),
        ("forward.close", "ok"),
        ("forward.open", "denied"),
    ]


async def test_a_connection_that_is_still_being_made_is_closed_too(store: Store) -> None:
    forwards = forwards_of(store)
    resets: list[StreamReset] = []
    async with (
        forwards.declare(OPERATOR, WAY) as forward,
        forward.connection("192.0.2.1") as connection,
    ):
        await forwards.close(OPERATOR, forward.id)
        connection.end_by(resets.append)
    assert len(resets) == 1


async def test_anothers_forward_is_closed_by_administrators_only(store: Store) -> None:
    forwards = forwards_of(store)
    other = Subject("otto", Role.DEPLOYER, "u9", "token", "t9")
    async with forwards.declare(OPERATOR, WAY) as forward:
        with pytest.raises(Forbidden):
            await forwards.close(other, forward.id)
        assert len(forwards.list()) == 1
        await forwards.close(ADMIN, forward.id)
    with pytest.raises(NotFound):
        await forwards.close(ADMIN, forward.id)
    assert ("forward.kill", "denied") in await acts(store)


async def test_what_something_keeps_up_says_what_to_do_instead(store: Store) -> None:
    forwards = forwards_of(store)
    async with forwards.declare(OPERATOR, WAY, instead="disable the link db") as forward:
        with pytest.raises(Conflict, match="disable the link db"):
            await forwards.close(ADMIN, forward.id)
        assert not forward.closed


async def test_a_user_has_a_bounded_number_of_forwards_and_connections(store: Store) -> None:
    forwards = forwards_of(store, Limits(forwards_per_user=2, connections_per_user=2))
    async with forwards.declare(OPERATOR, WAY) as one, forwards.declare(OPERATOR, WAY) as two:
        with pytest.raises(Conflict, match="2 forwards"):
            await forwards.open(OPERATOR, WAY)
        async with one.connection("192.0.2.1"):
            async with two.connection("192.0.2.1"):
                with pytest.raises(Conflict, match="2 connections"):
                    async with one.connection("192.0.2.1"):
                        pass
            async with two.connection("192.0.2.1"):
                pass
    await (await forwards.open(OPERATOR, WAY)).release()


async def test_an_idle_connection_is_reset_and_one_in_use_is_not(store: Store) -> None:
    forwards = forwards_of(store, Limits(idle_s=3600, half_closed_s=60))
    async with forwards.declare(OPERATOR, WAY) as forward:
        async with forward.connection("a") as idle, forward.connection("b") as used:
            now = time.monotonic()
            resets: list[StreamReset] = []
            idle.end_by(resets.append)
            used.traffic.received.size_bytes = 1
            forwards.sweep(now + 3000)
            assert resets == []
            forwards.sweep(now + 3601)
            assert used.ended is None
    (reset,) = resets
    assert (reset.code, reset.reason) == (ResetCode.TIMEOUT, "idle for 60 minutes")


async def test_the_sweeper_looks_by_itself(store: Store) -> None:
    forwards = forwards_of(store, Limits(idle_s=0.0, sweep_s=0.01))
    async with forwards.declare(OPERATOR, WAY) as forward, forward.connection("a") as connection:
        ended: asyncio.Future[StreamReset] = asyncio.get_running_loop().create_future()
        connection.end_by(ended.set_result)
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(forwards.run())
            assert (await ended).code is ResetCode.TIMEOUT
            running.cancel()


async def test_a_half_closed_connection_without_a_byte_is_reset_soon(store: Store) -> None:
    forwards = forwards_of(store, Limits(idle_s=3600, half_closed_s=60))
    async with forwards.declare(OPERATOR, WAY) as forward:
        async with forward.connection("a") as half, forward.connection("b") as whole:
            now = time.monotonic()
            resets: list[StreamReset] = []
            half.end_by(resets.append)
            half.traffic.sent.ended = True
            forwards.sweep(now + 59)
            assert resets == []
            forwards.sweep(now + 61)
            assert whole.ended is None
    (reset,) = resets
    assert reset.code is ResetCode.TIMEOUT
    assert reset.reason == "half closed and idle for 60 s"


async def test_a_forwards_own_view_shows_a_bounded_part_of_its_connections(store: Store) -> None:
    forwards = forwards_of(store)
    async with AsyncExitStack() as stack:
        way = Way(kind="socks", node="id-web-1")
        forward = await stack.enter_async_context(forwards.declare(OPERATOR, way))
        for number in range(SHOWN_CONNECTIONS + 1):
            await stack.enter_async_context(forward.connection(f"peer-{number}", "db", 5432))
        detail = forwards.get(forward.id)
        assert (detail.host, detail.port, detail.connections) == ("", None, SHOWN_CONNECTIONS + 1)
        assert len(detail.open_connections) == SHOWN_CONNECTIONS
        first = detail.open_connections[0]
        assert (first.peer, first.host, first.port) == ("peer-0", "db", 5432)


async def test_the_api_shows_and_closes_forwards(hub: Hub, client: ClientFor) -> None:
    user = await hub.accounts.users.find("operator")
    owner = Subject(user.name, Role.OPERATOR, user.id, "token", "t")
    async with hub.forwards.declare(owner, WAY) as forward, forward.connection("192.0.2.1"):
        viewer = await client(Role.VIEWER)
        (listed,) = (await viewer.get("/api/v1/forwards")).json()["items"]
        shown = (await viewer.get(f"/api/v1/forwards/{forward.id}")).json()
        assert shown.items() >= {**listed, "last_activity": shown["last_activity"]}.items()
        assert [entry["peer"] for entry in shown["open_connections"]] == ["192.0.2.1"]
        for role, status in ((Role.VIEWER, 403), (Role.DEPLOYER, 403), (Role.OPERATOR, 204)):
            answer = await (await client(role)).delete(f"/api/v1/forwards/{forward.id}")
            assert answer.status_code == status, role
        assert (await viewer.get(f"/api/v1/forwards/{forward.id}")).status_code == 404
