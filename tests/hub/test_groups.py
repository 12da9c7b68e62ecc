"""Groups: named sets of nodes; a node may be in many."""

from __future__ import annotations

import pytest

from hub.audit import Audit
from hub.errors import BadRequest, Conflict, NotFound
from hub.events import EventLog
from hub.nodes import NodeChange, Nodes
from hub.store.engine import Store
from tests.hub.test_nodes import OLGA, join, kinds, restarted


@pytest.fixture
async def nodes(store: Store) -> Nodes:
    nodes = Nodes(store, EventLog(store), Audit(store))
    for name in ("web-1", "web-2", "db-1"):
        await join(nodes, name)
    return nodes


async def test_members_come_and_go(nodes: Nodes) -> None:
    await nodes.create_group(OLGA, "web", "the front")
    await nodes.create_group(OLGA, "eu")
    await nodes.add_to_group(OLGA, "web", "web-2")
    await nodes.add_to_group(OLGA, "web", "web-1")
    await nodes.add_to_group(OLGA, "web", "web-1")
    group = await nodes.add_to_group(OLGA, "eu", "web-1")
    assert group.nodes == ("web-1",)
    assert nodes.get("web-1").groups == ("eu", "web")
    assert [(group.name, group.nodes) for group in nodes.groups()] == [
        ("eu", ("web-1",)),
        ("web", ("web-1", "web-2")),
    ]
    assert (await nodes.remove_from_group(OLGA, "web", "web-1")).nodes == ("web-2",)
    assert (await restarted(nodes)).groups() == nodes.groups()
    assert set(await kinds(nodes)) == {"group.changed"}


async def test_a_deleted_group_leaves_its_members(nodes: Nodes) -> None:
    await nodes.create_group(OLGA, "web")
    await nodes.create_group(OLGA, "eu")
    await nodes.update(OLGA, "web-1", NodeChange(groups=["web", "eu"]))
    await nodes.delete_group(OLGA, "web")
    assert nodes.get("web-1").groups == ("eu",)
    assert [group.name for group in nodes.groups()] == ["eu"]
    again = await restarted(nodes)
    assert (again.groups(), again.get("web-1")) == (nodes.groups(), nodes.get("web-1"))


@pytest.mark.parametrize("name", ["", "Web", "a b", "-a", "a" * 65, "ä"])
async def test_a_name_that_targets_cannot_hold_is_refused(nodes: Nodes, name: str) -> None:
    with pytest.raises(BadRequest, match="group's name"):
        await nodes.create_group(OLGA, name)
    assert nodes.groups() == []


async def test_mistakes_are_told(nodes: Nodes) -> None:
    await nodes.create_group(OLGA, "web")
    with pytest.raises(Conflict):
        await nodes.create_group(OLGA, "web")
    with pytest.raises(BadRequest):
        await nodes.create_group(OLGA, "eu", "x" * 1025)
    with pytest.raises(NotFound):
        await nodes.delete_group(OLGA, "eu")
    with pytest.raises(NotFound):
        await nodes.add_to_group(OLGA, "eu", "web-1")
    with pytest.raises(NotFound):
        await nodes.remove_from_group(OLGA, "web", "web-9")
    with pytest.raises(NotFound):
        nodes.group("eu")
