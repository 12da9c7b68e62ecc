"""Nodes in memory: true presence, changes that are all or nothing, reports that are safe."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from hub import presence
from hub.audit import Audit
from hub.authz import Role, Subject
from hub.errors import BadRequest, Conflict, InvalidTarget, NotFound, NothingMatches
from hub.events import EventLog
from hub.nodes import NodeChange, Nodes
from hub.nodeview import Status
from hub.store import schema, writer
from hub.store.engine import Store
from protocol.messages import Disk, Facts, InstalledPackage, Report

OLGA = Subject("olga", Role.ADMIN, "u1", "token", "t1", "192.0.2.1")


async def join(nodes: Nodes, name: str, state: str = "active") -> str:
    """Store a node as enrolment does, and tell `nodes`."""
    node_id = await enrol(nodes, name, state)
    await nodes.refresh(node_id)
    return node_id


async def enrol(nodes: Nodes, name: str, state: str = "active") -> str:
    """Store a node and tell nobody."""
    node_id = str(uuid.uuid4())
    row = insert(schema.nodes).values(id=node_id, name=name, state=state, created_at=10.0)
    await nodes.store.write(lambda connection: connection.execute(row))
    return node_id


async def restarted(nodes: Nodes) -> Nodes:
    """Load what another hub process would, from the same database."""
    again = Nodes(nodes.store, nodes.events, nodes.audit, nodes.clock)
    await again.load()
    return again


async def kinds(nodes: Nodes) -> list[str]:
    return [event.kind for event in await nodes.events.after(0, 100)]


async def test_a_node_is_found_by_name_and_id_and_listed_by_name(nodes: Nodes) -> None:
    second = await join(nodes, "web-2")
    await join(nodes, "web-1")
    assert [view.name for view in nodes.all()] == ["web-1", "web-2"]
    assert nodes.get("web-2") is nodes.get(second)
    assert nodes.name_of(second) == "web-2" and nodes.name_of("gone") == "gone"
    with pytest.raises(NotFound, match="web-3"):
        nodes.get("web-3")


async def test_presence_is_the_truth(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    assert (nodes.get(node).status, nodes.get(node).status_since) == (Status.NEVER, 10.0)
    await nodes.came_online(node, "192.0.2.7", 100.0)
    view = nodes.get(node)
    assert (view.status, view.status_since, view.address) == (Status.ONLINE, 100.0, "192.0.2.7")
    await nodes.went_offline(node, 160.0, "timed out\n")
    assert (nodes.get(node).status, nodes.get(node).status_since) == (Status.OFFLINE, 160.0)
    events = await nodes.events.after(0, 10)
    assert [(event.kind, event.data) for event in events] == [
        ("node.online", {"address": "192.0.2.7"}),
        ("node.offline", {"reason": "timed out"}),
    ]


async def test_after_a_crash_a_node_is_offline_since_the_hub_last_lived(nodes: Nodes) -> None:
    now = [50.0]
    nodes.clock = lambda: now[0]
    await nodes.load()
    early, late = await join(nodes, "early"), await join(nodes, "late")
    await nodes.came_online(early, "192.0.2.7", 20.0)
    await nodes.came_online(late, "192.0.2.7", 70.0)
    now[0] = 1000.0
    again = await restarted(nodes)
    assert (again.get(early).status, again.get(early).status_since) == (Status.OFFLINE, 50.0)
    assert (again.get(late).status, again.get(late).status_since) == (Status.OFFLINE, 70.0)
    assert (await restarted(nodes)).get(early).status_since == 50.0


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
async def test_a_barred_node_is_never_shown_as_online(nodes: Nodes, state: str) -> None:
    node = await join(nodes, "web-1", state)
    await nodes.came_online(node, "192.0.2.7", 20.0)
    assert nodes.get(node).status == state


async def test_a_removed_node_is_forgotten_and_its_late_end_changes_nothing(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    await nodes.came_online(node, "192.0.2.7", 20.0)
    row = schema.nodes.delete().where(schema.nodes.c.id == node)
    await nodes.store.write(lambda connection: connection.execute(row))
    nodes.forget(node)  # as the hook of the enrolment does
    await nodes.went_offline(node, 30.0, "removed")
    assert list(nodes.all()) == []
    assert await kinds(nodes) == ["node.online"]


async def test_presence_stays_true_when_the_store_fails(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node, barred = await join(nodes, "web-1"), await join(nodes, "web-2", "quarantined")
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 0)
    await nodes.came_online(node, "192.0.2.7", 100.0)
    assert (nodes.get(node).status, nodes.get(node).status_since) == (Status.ONLINE, 100.0)
    await nodes.went_offline(node, 160.0, "gone")
    assert (nodes.get(node).status, nodes.get(node).status_since) == (Status.OFFLINE, 160.0)
    await nodes.came_online(barred, "192.0.2.7", 100.0)
    assert nodes.get(barred).status is Status.QUARANTINED
    assert "is not stored" in caplog.text


async def test_many_moves_at_once_share_their_writes_and_lose_no_event(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "MOVES_AT_ONCE", 8)
    ids = [await join(nodes, f"web-{number}") for number in range(20)]
    written: list[int] = []
    write = Store.write

    async def counted(store: Store, unit: Any, **options: Any) -> Any:
        written.append(1)
        return await write(store, unit, **options)

    monkeypatch.setattr(Store, "write", counted)
    async with asyncio.TaskGroup() as tasks:
        for node in ids:
            tasks.create_task(nodes.came_online(node, "192.0.2.7", 100.0))
    assert len(written) <= 4  # 1 for who came first, 19 by eights
    assert {view.status for view in nodes.all()} == {Status.ONLINE}
    assert await kinds(nodes) == ["node.online"] * 20
    again = await restarted(nodes)
    assert {(view.connected_at, view.address) for view in again.all()} == {(100.0, "192.0.2.7")}


async def test_who_is_cancelled_while_storing_for_others_leaves_them_to_the_next(
    nodes: Nodes,
) -> None:
    ids = [await join(nodes, f"web-{number}") for number in range(3)]
    async with asyncio.TaskGroup() as tasks:
        moves = [tasks.create_task(nodes.came_online(n, "192.0.2.7", 100.0)) for n in ids]
        await asyncio.sleep(0)
        moves[0].cancel()
    assert [nodes.get(n).status for n in ids[1:]] == [Status.ONLINE] * 2


async def test_who_dials_before_its_joining_was_noticed_is_online(nodes: Nodes) -> None:
    node = await enrol(nodes, "web-1")
    await nodes.came_online(node, "192.0.2.7", 100.0)
    assert nodes.get("web-1").status is Status.ONLINE
    assert await kinds(nodes) == ["node.online"]


async def test_a_change_elsewhere_is_followed(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(nodes.run())
        row = schema.nodes.update().values(state="quarantined", state_reason="copied key")
        await nodes.store.write(lambda connection: connection.execute(row))
        nodes.note_change(node)
        while nodes.get(node).status is not Status.QUARANTINED:
            await asyncio.sleep(0)
        running.cancel()
    assert nodes.get(node).state_reason == "copied key"


async def test_an_update_is_stored_told_and_audited(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    await nodes.create_group(OLGA, "web")
    change = NodeChange(name="front-1", labels={"env": "prod"}, groups=["web"])
    view = await nodes.update(OLGA, "web-1", change)
    assert (view.name, view.labels, view.groups) == ("front-1", {"env": "prod"}, ("web",))
    assert (await restarted(nodes)).get("front-1") == view
    with pytest.raises(NotFound):
        nodes.get("web-1")
    assert nodes.get(node) is view
    [entry] = (await nodes.audit.entries(10, act="node.change")).entries
    assert (entry.subject, entry.object) == ("olga", "front-1")
    assert entry.detail == {"changed": ["groups", "labels", "name"], "was": "web-1"}
    assert (await kinds(nodes))[-1] == "node.changed"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (NodeChange(name="db-1", labels={"a": "b"}), Conflict),
        (NodeChange(name="and", labels={"a": "b"}), BadRequest),
        (NodeChange(labels={"a": "b"}, groups=["nope"]), NotFound),
        (NodeChange(labels={"a b": "c"}), BadRequest),
        (NodeChange(labels={"a": "b\n"}), BadRequest),
        (NodeChange(labels={"a": "b" * 257}), BadRequest),
        (NodeChange(labels={str(number): "" for number in range(65)}), BadRequest),
        (NodeChange(groups=[str(number) for number in range(65)]), BadRequest),
    ],
)
async def test_a_change_that_cannot_be_made_changes_nothing(
    nodes: Nodes, change: NodeChange, error: type[Exception]
) -> None:
    await join(nodes, "db-1")
    before = nodes.get(await join(nodes, "web-1"))
    with pytest.raises(error):
        await nodes.update(OLGA, "web-1", change)
    assert nodes.get("web-1") is before
    assert (await restarted(nodes)).get("web-1") == before


async def test_two_nodes_swap_names(nodes: Nodes) -> None:
    one, other = await join(nodes, "a"), await join(nodes, "b")
    for ref, name in ((one, "x"), (other, "a"), (one, "b")):
        await nodes.update(OLGA, ref, NodeChange(name=name))
    assert (nodes.get("a").id, nodes.get("b").id) == (other, one)


async def test_select_matches_or_says_why_not(nodes: Nodes) -> None:
    for name in ("web-2", "web-1", "db-1"):
        await join(nodes, name)
    await nodes.create_group(OLGA, "empty")
    assert [view.name for view in nodes.select("web-*")] == ["web-1", "web-2"]
    for target in ("x-*", "group:empty", "group:none", "web-9", "status==online"):
        with pytest.raises(NothingMatches):
            nodes.select(target)
    with pytest.raises(InvalidTarget):
        nodes.select("web-1 and")


def report(hostname: str, *versions: str) -> Report:
    packages = [InstalledPackage(name="shop", version=version) for version in versions]
    return Report(facts=Facts(hostname=hostname, cpus=4), packages=packages)


async def test_a_report_is_stored_when_it_changed(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    await nodes.take_report(node, report("h", "1.0"))
    await nodes.take_report(node, report("h", "1.0"))
    await nodes.take_report(node, report("h", "1.1"))
    view = nodes.get(node)
    assert (view.facts.hostname, view.facts.cpus) == ("h", 4)
    assert [(package.name, package.version) for package in view.packages] == [("shop", "1.1")]
    assert (await restarted(nodes)).get(node).packages == view.packages
    events = await nodes.events.after(0, 10)
    assert [event.data for event in events] == [
        {"changed": ["facts", "packages"]},
        {"changed": ["packages"]},
    ]


async def test_hostile_texts_are_cleaned(nodes: Nodes) -> None:
    node = await join(nodes, "web-1")
    facts = Facts(hostname="a\x1b[31m\u202eb\x00", disks=[Disk(mount="/" + "x" * 4000)])
    await nodes.take_report(node, Report(facts=facts))
    assert nodes.get(node).facts.hostname == "a[31mb"
    assert len(nodes.get(node).facts.disks[0].mount) == 256


async def test_of_a_flood_of_reports_the_newest_wins(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await join(nodes, "web-1")
    waits = 0

    async def sleep(_seconds: float) -> None:
        nonlocal waits
        waits += 1
        for _ in range(10):
            await real_sleep(0)

    real_sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with asyncio.TaskGroup() as tasks:
        for number in range(30):
            tasks.create_task(nodes.take_report(node, report("h", str(number))))
    assert waits > 10
    assert nodes.get(node).packages[0].version == "29"
    assert len(await nodes.events.after(0, 100)) <= 12


async def test_an_unreadable_document_in_the_database_does_not_stop_the_hub(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    node = await join(nodes, "web-1")
    row = schema.nodes.update().values(facts={"hostname": 7}, packages={"a": 1})
    await nodes.store.write(lambda connection: connection.execute(row))
    view = (await restarted(nodes)).get(node)
    assert (view.facts.hostname, view.packages) == ("", ())
    assert "not readable" in caplog.text


@pytest.fixture
async def nodes(store: Store, tmp_path: Path) -> Nodes:
    return Nodes(store, EventLog(store), Audit(store))
