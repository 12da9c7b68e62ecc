"""The live socket, spoken to as a server would: by ASGI messages."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar

from hub.app import create_app
from hub.authz import Role, Subject
from hub.core import Hub
from hub.live import fleet, live
from hub.metrics.series import checked_schema
from hub.nodes import NodeChange
from protocol.record_types import Sample, Schema, Series
from tests.hub.conftest import URL
from tests.hub.test_nodes import OLGA, join

SCHEMA = checked_schema(Schema.of([Series(name="cpu.total", unit="percent")]))


class Page:
    """A browser's side of one socket; it takes at most `room` frames before it reads them."""

    def __init__(self, room: int = 0) -> None:
        self._to_hub: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_hub: asyncio.Queue[dict[str, Any]] = asyncio.Queue(room)

    def send(self, frame: object) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self._to_hub.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self._to_hub.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            message = await self._from_hub.get()
        if message["type"] == "websocket.send":
            return cast("dict[str, Any]", json.loads(message["text"]))
        return message

    async def until(self, kind: str) -> dict[str, Any]:
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def run(self, app: Litestar, headers: dict[str, str]) -> None:
        self._to_hub.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "wss",
            "path": "/api/v1/live",
            "raw_path": b"/api/v1/live",
            "root_path": "",
            "query_string": b"",
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
            "client": ("192.0.2.9", 1),
            "server": ("hub.test", 443),
            "subprotocols": [],
            "state": {},
            "extensions": {},
        }
        await app(
            cast("Any", scope), cast("Any", self._to_hub.get), cast("Any", self._from_hub.put)
        )


class Site:
    """The hub's application and a signed-in viewer."""

    def __init__(self, hub: Hub, app: Litestar, cookie: str, subject: Subject) -> None:
        self.hub = hub
        self.app = app
        self.subject = subject
        self.headers = {"cookie": f"__Host-mooring={cookie}", "origin": URL}

    @asynccontextmanager
    async def page(
        self, room: int = 0, headers: dict[str, str] | None = None
    ) -> AsyncIterator[Page]:
        page = Page(room)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(page.run(self.app, {**self.headers, **(headers or {})}))
            yield page
            page.leave()
            async with asyncio.timeout(5):
                await asyncio.wait([running])

    @asynccontextmanager
    async def opened(self, room: int = 0) -> AsyncIterator[Page]:
        async with self.page(room) as page:
            assert (await page.next())["type"] == "websocket.accept"
            page.send({"ticket": self.hub.accounts.tickets.issue(self.subject, "live").ticket})
            assert await page.next() == {"type": "ready"}
            yield page

    def measure(self, node_id: str, at: float, cpu: int) -> None:
        """Give the store a sample, as a node's stream does."""
        metrics = self.hub.metrics
        sample = Sample(at_ms=int(at * 1000), values=[cpu])
        metrics._take(node_id, metrics._nodes[node_id], SCHEMA, sample)

    async def watched(self, *node_ids: str) -> None:
        """Wait until exactly these nodes are asked for each second."""
        async with asyncio.timeout(5):
            while {i for i in self.hub.metrics._nodes if self.hub.metrics.interval_for(i) == 1} != {
                *node_ids
            }:
                await asyncio.sleep(0)


@pytest.fixture
async def site(hub: Hub, tmp_path: Path) -> Site:
    user = await hub.accounts.users.find(Role.VIEWER.value)
    new = await hub.accounts.sessions.create(user, "192.0.2.9", "test")
    session = await hub.accounts.sessions.verify(new.cookie, "192.0.2.9")
    return Site(hub, create_app(hub, static=tmp_path / "none"), new.cookie, session.subject)


async def test_events_are_shown_as_they_happen(site: Site) -> None:
    node = await join(site.hub.nodes, "web-1")
    async with site.opened() as page:
        while not site.hub.events._subscriptions:
            await asyncio.sleep(0)
        await site.hub.nodes.came_online(node, "192.0.2.7", 100.0)
        message = await page.next()
        assert message["type"] == "event"
        assert (message["event"]["kind"], message["event"]["node"]) == ("node.online", "web-1")
        assert message["event"].keys() == {"id", "at", "kind", "node", "data"}


async def test_watched_nodes_send_a_schema_and_then_samples(site: Site) -> None:
    one, other = await join(site.hub.nodes, "web-1"), await join(site.hub.nodes, "web-2")
    now = time.time()
    async with site.opened() as page:
        page.send({"watch": ["web-1"]})
        await site.watched(one)
        site.measure(one, now, 12)
        assert await page.next() == {
            "type": "schema",
            "node": "web-1",
            "series": [{"name": "cpu.total", "unit": "percent"}],
        }
        assert await page.next() == {
            "type": "sample",
            "node": "web-1",
            "at": pytest.approx(now, abs=0.001),
            "values": [12.0],
        }
        site.measure(one, now + 1, 13)
        assert (await page.next())["values"] == [13.0]
        page.send({"watch": ["web-2", "web-9"]})
        assert (await page.next())["code"] == "not_found"
        await site.watched(other)
    await site.watched()


async def test_the_fleet_is_sent_whole_and_then_by_change(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "TICK_S", 0.0)
    monkeypatch.setattr(fleet, "TICK_S", 0.0)
    node = await join(site.hub.nodes, "web-1")
    await join(site.hub.nodes, "web-2")
    async with site.opened() as page:
        page.send({"fleet": True})
        glance = {"status": "never", "cpu": None, "memory": None, "rtt_ms": None}
        whole = await page.next()
        assert whole == {"type": "fleet", "nodes": {"web-1": glance, "web-2": glance}}
        await site.hub.nodes.came_online(node, "192.0.2.7", 100.0)
        changed = await page.until("fleet")
        assert changed["nodes"] == {"web-1": {**glance, "status": "online"}}


async def test_viewers_share_one_look_at_the_fleet(hub: Hub) -> None:
    now = [100.0]
    hub.fleet._clock = lambda: now[0]
    await join(hub.nodes, "web-1")
    version, first = hub.fleet.since(0)
    assert hub.fleet.since(0)[1] is first
    assert hub.fleet.since(version) == (version, None)
    await join(hub.nodes, "web-2")
    assert hub.fleet.since(version) == (version, None)
    now[0] += 2.0
    newer, delta = hub.fleet.since(version)
    assert newer == version + 1 and delta is not None and "web-1" not in delta
    whole = hub.fleet.since(0)[1]
    assert whole is not None and set(json.loads(whole)["nodes"]) == {"web-1", "web-2"}
    for number in range(20):
        now[0] += 2.0
        await hub.nodes.update(OLGA, "web-2", NodeChange(name=f"x{number}"))
        await hub.nodes.update(OLGA, f"x{number}", NodeChange(name="web-2"))
        await hub.nodes.came_online(hub.nodes.get("web-2").id, "192.0.2.7", float(number))
        await join(hub.nodes, f"n{number}")
        hub.fleet.since(0)
    late = hub.fleet.since(version)[1]
    assert late is not None and "web-1" in json.loads(late)["nodes"]


@pytest.mark.parametrize(
    "frame", ["", "{}", '{"ticket": "wrong"}', '{"ticket": 7}', "x" * 20_000, "[" * 5000]
)
async def test_a_page_without_its_ticket_is_turned_away(site: Site, frame: str) -> None:
    async with site.page() as page:
        assert (await page.next())["type"] == "websocket.accept"
        page.send(frame)
        assert (await page.next())["type"] == "error"
        assert (await page.next())["code"] == 1008


@pytest.mark.parametrize("headers", [{"origin": "https://evil.test"}, {"cookie": "a=b"}])
async def test_a_foreign_page_or_a_stranger_gets_no_socket(
    site: Site, headers: dict[str, str]
) -> None:
    async with site.page(headers=headers) as page:
        assert (await page.next())["type"] == "websocket.close"


async def test_a_silent_page_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "TICKET_TIMEOUT_S", 0.01)
    async with site.page() as page:
        await page.next()
        assert (await page.next())["code"] == "bad_request"
        assert (await page.next())["type"] == "websocket.close"


@pytest.mark.parametrize(
    "frame",
    [{"watch": ["a"] * 33}, {"watch": "a"}, {"fleet": 1}, "no json", {"watch": ["a" * 300]}],
)
async def test_a_malformed_wish_ends_the_socket(site: Site, frame: object) -> None:
    async with site.opened() as page:
        page.send(frame)
        assert (await page.next())["code"] == "bad_request"
        assert (await page.next())["type"] == "websocket.close"


async def test_a_page_that_talks_too_much_is_closed(site: Site) -> None:
    async with site.opened() as page:
        for _ in range(60):
            page.send({"fleet": False})
        assert (await page.next())["code"] == "throttled"


async def test_signing_out_closes_the_socket_at_once(site: Site) -> None:
    async with site.opened() as page:
        await site.hub.accounts.sessions.end(site.subject)
        assert (await page.next())["code"] == "not_signed_in"
        assert (await page.next())["type"] == "websocket.close"


async def test_a_changed_role_closes_the_socket_at_once(site: Site) -> None:
    async with site.opened() as page:
        await site.hub.accounts.users.change("viewer", role=Role.ADMIN)
        assert (await page.until("error"))["code"] == "not_signed_in"


async def test_a_session_that_expired_is_found_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RIGHTS_CHECK_S", 0.01)
    async with site.opened() as page:
        site.hub.accounts.sessions._clock = lambda: time.time() + 8 * 86_400
        assert (await page.next())["code"] == "not_signed_in"


async def test_a_page_that_does_not_read_is_closed(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "SEND_TIMEOUT_S", 0.01)
    node = await join(site.hub.nodes, "web-1")
    async with site.opened(room=2) as page:
        page.send({"watch": ["web-1"]})
        await site.watched(node)
        now = time.time()
        for number in range(10):
            site.measure(node, now + number / 2, number)
        await site.watched()


async def test_a_node_watched_by_nobody_leaves_no_trace_of_its_viewers(site: Site) -> None:
    node = str(uuid.uuid4())
    with site.hub.metrics.feed() as feed:
        feed.watch([node])
    metrics = site.hub.metrics._nodes[node]
    metrics.history.append(SCHEMA, 1.0, array("f", [1]))
    assert not metrics.feeds
