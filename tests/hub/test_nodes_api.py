"""`/nodes`, `/groups` and a node's metrics, over HTTP."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from hub.authz import Role
from hub.core import Hub
from hub.metrics.series import checked_schema
from protocol.messages import Facts, InstalledPackage, Report
from protocol.record_types import Sample, Schema, Series
from tests.hub.conftest import ClientFor
from tests.hub.test_nodes import join


@pytest.fixture
async def viewer(client: ClientFor) -> httpx.AsyncClient:
    return await client(Role.VIEWER)


@pytest.fixture
async def admin(client: ClientFor) -> httpx.AsyncClient:
    return await client(Role.ADMIN)


def names(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [node["name"] for node in response.json()["items"]]


async def test_a_node_is_shown_with_all_that_is_known(hub: Hub, viewer: httpx.AsyncClient) -> None:
    node_id = await join(hub.nodes, "web-1")
    packages = [InstalledPackage(name="shop", version="1.0")]
    await hub.nodes.take_report(node_id, Report(facts=Facts(hostname="h"), packages=packages))
    await hub.nodes.came_online(node_id, "192.0.2.7", 100.0)
    for ref in ("web-1", node_id):
        node = (await viewer.get(f"/api/v1/nodes/{ref}")).json()
        assert (node["id"], node["status"], node["status_since"]) == (node_id, "online", 100.0)
        assert node["packages"][0]["version"] == "1.0"
        assert node["facts"].keys() == set(Facts.__struct_fields__)
        assert len(node["spark"]["cpu"]) == len(node["spark"]["memory"]) == 60
        assert (node["rtt_ms"], node["groups"], node["labels"]) == (None, [], {})


async def test_nodes_are_listed_by_name_page_by_page(hub: Hub, viewer: httpx.AsyncClient) -> None:
    for number in (3, 1, 2, 5, 4):
        await join(hub.nodes, f"n{number}")
    pages, cursor = [], None
    while True:
        query: dict[str, str | int] = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = await viewer.get("/api/v1/nodes", params=query)
        pages.append(names(page))
        assert page.json()["total"] == 5
        if (cursor := page.json()["next_cursor"]) is None:
            break
    assert pages == [["n1", "n2"], ["n3", "n4"], ["n5"]]


async def test_a_target_filters_or_says_what_is_wrong(hub: Hub, viewer: httpx.AsyncClient) -> None:
    for name in ("web-1", "web-2", "db-1"):
        await join(hub.nodes, name)
    matching = await viewer.get("/api/v1/nodes", params={"target": "web-*"})
    assert names(matching) == ["web-1", "web-2"]
    wrong = await viewer.get("/api/v1/nodes", params={"target": "web-* and"})
    problem = wrong.json()
    assert (wrong.status_code, problem["code"], problem["column"]) == (400, "invalid_target", 10)
    none = await viewer.get("/api/v1/nodes", params={"target": "x-*"})
    assert (none.status_code, none.json()["code"]) == (404, "nothing_matches")
    unknown = await viewer.get("/api/v1/nodes/web-9")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert names(await viewer.get("/api/v1/nodes")) == ["db-1", "web-1", "web-2"]


async def test_labels_are_an_operators_names_an_administrators(hub: Hub, client: ClientFor) -> None:
    await join(hub.nodes, "web-1")
    operator = await client(Role.OPERATOR)
    labelled = await operator.patch("/api/v1/nodes/web-1", json={"labels": {"env": "prod"}})
    assert labelled.json()["labels"] == {"env": "prod"}
    renaming = {"name": "front", "labels": {}}
    refused = await operator.patch("/api/v1/nodes/web-1", json=renaming)
    assert (refused.status_code, refused.json()["verb"]) == (403, "admin")
    assert hub.nodes.get("web-1").labels == {"env": "prod"}
    viewer = await client(Role.VIEWER)
    assert (await viewer.patch("/api/v1/nodes/web-1", json={})).status_code == 403
    admin = await client(Role.ADMIN)
    assert (await admin.patch("/api/v1/nodes/web-1", json=renaming)).json()["name"] == "front"
    bad = await admin.patch("/api/v1/nodes/front", json={"colour": "red"})
    assert (bad.status_code, bad.json()["code"]) == (400, "bad_request")


async def test_revoke_shows_at_once_and_remove_forgets(hub: Hub, admin: httpx.AsyncClient) -> None:
    node_id = await join(hub.nodes, "web-1")
    await hub.enrolment.load()
    revoked = await admin.post("/api/v1/nodes/web-1/revoke", json={"reason": "stolen"})
    assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")
    assert revoked.json()["status_reason"] == "stolen"
    events = (await admin.get("/api/v1/nodes/web-1/events")).json()
    assert [event["kind"] for event in events["items"]] == ["node.revoked"]
    assert (await admin.delete(f"/api/v1/nodes/{node_id}")).status_code == 204
    assert (await admin.get("/api/v1/nodes/web-1")).status_code == 404


async def test_a_quarantined_node_is_released(hub: Hub, admin: httpx.AsyncClient) -> None:
    node_id = await join(hub.nodes, "web-1")
    await hub.enrolment.load()
    await hub.enrolment.quarantine(node_id, "copied key")
    await hub.nodes.refresh(node_id)
    assert (await admin.get("/api/v1/nodes/web-1")).json()["status"] == "quarantined"
    released = await admin.post("/api/v1/nodes/web-1/release")
    assert (released.status_code, released.json()["status"]) == (200, "never")
    assert (await admin.post("/api/v1/nodes/web-1/release")).status_code == 409


async def test_groups_over_http(hub: Hub, client: ClientFor) -> None:
    await join(hub.nodes, "web-1")
    operator = await client(Role.OPERATOR)
    created = await operator.post("/api/v1/groups", json={"name": "web", "description": "front"})
    assert (created.status_code, created.json()["nodes"]) == (201, [])
    assert (await operator.post("/api/v1/groups", json={"name": "web"})).status_code == 409
    assert (await operator.post("/api/v1/groups", json={"name": "A b"})).status_code == 400
    added = await operator.put("/api/v1/groups/web/nodes/web-1")
    assert (added.status_code, added.json()["nodes"]) == (200, ["web-1"])
    assert names(await operator.get("/api/v1/nodes", params={"target": "group:web"})) == ["web-1"]
    listed = (await operator.get("/api/v1/groups")).json()
    assert listed["total"] == 1
    assert listed["items"][0].keys() == {"name", "description", "nodes", "created_at"}
    dropped = await operator.delete("/api/v1/groups/web/nodes/web-1")
    assert (dropped.status_code, dropped.json()["nodes"]) == (200, [])
    assert (await operator.delete("/api/v1/groups/web")).status_code == 204
    assert (await operator.delete("/api/v1/groups/web")).status_code == 404
    viewer = await client(Role.VIEWER)
    assert (await viewer.post("/api/v1/groups", json={"name": "x"})).status_code == 403


async def test_history_is_by_series(hub: Hub, viewer: httpx.AsyncClient) -> None:
    node_id = await join(hub.nodes, "web-1")
    now = [1_800_000_000.0]
    hub.metrics.clock = lambda: now[0]
    schema = checked_schema(Schema.of([Series(name="cpu.total", unit="percent", scale=0.5)]))
    with hub.metrics.feed() as feed:
        feed.watch([node_id])
        for value in (3, None):
            sample = Sample(at_ms=int(now[0] * 1000), values=[value])
            hub.metrics._take(node_id, hub.metrics._nodes[node_id], schema, sample)
            now[0] += 1
        answer = await viewer.get("/api/v1/nodes/web-1/metrics", params={"since_s": 60})
    assert msgspec.json.decode(answer.content) == {
        "series": [{"name": "cpu.total", "unit": "percent"}],
        "at": [1_800_000_000.0, 1_800_000_001.0],
        "values": [[1.5, None]],
    }
    too_long = await viewer.get("/api/v1/nodes/web-1/metrics", params={"since_s": 7200})
    assert too_long.status_code == 400
