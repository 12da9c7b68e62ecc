"""The browser's shell socket, spoken to as a server would: by ASGI messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from litestar import Litestar
from sqlalchemy import insert

from hub.app import create_app
from hub.authz import Role, Subject
from hub.core import Hub
from hub.live.shell import UNACKNOWLEDGED_BYTES
from hub.store import schema
from protocol.aio import Channel, Handler, Stream, memory_pair
from protocol.messages import Open
from protocol.record_types import Exited, PtyFromHub, PtyFromNode, Resize, Screen
from tests.hub.conftest import URL
from tests.hub.test_shells import Terminals


class Page:
    """A browser's side of one socket."""

    def __init__(self) -> None:
        self._to_hub: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_hub: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    def send(self, frame: bytes | dict[str, Any]) -> None:
        key = "bytes" if isinstance(frame, bytes) else "text"
        content = frame if isinstance(frame, bytes) else json.dumps(frame)
        self._to_hub.put_nowait({"type": "websocket.receive", key: content})

    def leave(self) -> None:
        self._to_hub.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self._from_hub.get()

    async def text(self) -> dict[str, Any]:
        message = await self.next()
        assert message["type"] == "websocket.send", message
        return cast("dict[str, Any]", json.loads(message["text"]))

    async def data(self) -> bytes:
        return cast("bytes", (await self.next())["bytes"])

    def waiting(self) -> int:
        return self._from_hub.qsize()

    async def run(self, app: Litestar, headers: dict[str, str]) -> None:
        self._to_hub.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "wss",
            "path": "/api/v1/shell",
            "raw_path": b"/api/v1/shell",
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
    """The hub's application, a signed-in operator, and a node called web-1."""

    def __init__(self, hub: Hub, app: Litestar, cookie: str, subject: Subject) -> None:
        self.hub = hub
        self.app = app
        self.subject = subject
        self.headers = {"cookie": f"__Host-mooring={cookie}", "origin": URL}

    def hello(self, node: str = "web-1", **more: Any) -> dict[str, Any]:
        ticket = self.hub.accounts.tickets.issue(self.subject, "shell", node).ticket
        return {"ticket": ticket, "node": node, "rows": 30, "columns": 100, **more}

    @asynccontextmanager
    async def page(self, **headers: str) -> AsyncIterator[Page]:
        page = Page()
        async with asyncio.TaskGroup() as group:
            group.create_task(page.run(self.app, {**self.headers, **headers}))
            yield page
            page.leave()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Page, str]]:
        async with self.page() as page:
            assert (await page.next())["type"] == "websocket.accept"
            page.send(self.hello())
            opened = await page.text()
            assert opened["type"] == "opened"
            yield page, opened["session"]

    @asynccontextmanager
    async def node(self, handler: Handler) -> AsyncIterator[None]:
        async with memory_pair(handler) as (_, hub_end):
            self.hub.registry.attach("id-web-1", hub_end, time.monotonic())
            yield


@pytest.fixture
async def site(hub: Hub, tmp_path: Path) -> Site:
    static = tmp_path / "static"
    static.mkdir()
    row = insert(schema.nodes).values(id="id-web-1", name="web-1", created_at=0.0)
    await hub.store.write(lambda connection: connection.execute(row))
    await hub.nodes.refresh("id-web-1")
    user = await hub.accounts.users.find(Role.OPERATOR.value)
    new = await hub.accounts.sessions.create(user, "192.0.2.9", "test")
    session = await hub.accounts.sessions.verify(new.cookie, "192.0.2.9")
    return Site(hub, create_app(hub, static=static), new.cookie, session.subject)


async def test_keys_go_to_the_node_and_its_screen_comes_back(site: Site) -> None:
    node = Terminals()
    async with site.node(node), site.opened() as (page, session):
        page.send({"resize": [10, 20]})
        page.send(b"hi")
        assert await page.data() == b"hi"
        page.send({"ack": 2})
        page.send(b"q")
        assert await page.text() == {"type": "exited", "exit_code": 3, "signal": None, "reason": ""}
        assert (await page.next())["type"] == "websocket.close"
    (pty,) = node.opened
    assert (pty.session, pty.rows, pty.columns, pty.subject) == (session, 30, 100, "operator")


async def test_the_hub_stops_reading_while_256_kib_are_unacknowledged(site: Site) -> None:
    stopped = asyncio.Event()

    async def flood(_message: Open, stream: Stream) -> None:
        channel: Channel[PtyFromNode, PtyFromHub] = Channel(stream, PtyFromHub)
        try:
            async with asyncio.timeout(2) as limit:
                while True:
                    await channel.send(Screen(data=bytes(32_768)))
                    limit.reschedule(asyncio.get_running_loop().time() + 0.3)
        except TimeoutError:
            stopped.set()
        assert isinstance(await channel.receive(), Resize)
        await channel.send(Exited(exit_code=0))

    async with site.node(flood), site.opened() as (page, _):
        async with asyncio.timeout(5):
            await stopped.wait()
        shown = page.waiting() * 32_768
        assert shown == UNACKNOWLEDGED_BYTES
        while page.waiting():
            await page.data()
        page.send({"ack": shown})
        assert len(await page.data()) == 32_768, "an acknowledgement opens the window again"
        page.send({"resize": [5, 5]})


async def test_a_page_that_leaves_ends_the_terminal(site: Site) -> None:
    node = Terminals()
    async with site.node(node):
        async with site.opened() as (page, _):
            page.leave()
        async with asyncio.timeout(5):
            assert (await node.resets.get()).reason == "the browser left"


async def test_a_killed_session_tells_the_page_why(site: Site) -> None:
    async with site.node(Terminals()), site.opened() as (page, session):
        await site.hub.shells.kill(site.subject, session)
        assert (await page.text())["reason"] == "ended by operator"


async def test_signing_out_ends_the_shell(site: Site) -> None:
    async with site.node(Terminals()), site.opened() as (page, _):
        await site.hub.accounts.sessions.end(site.subject)
        assert (await page.text())["reason"] == "the sign-in ended or its rights changed"


def _without_ticket(site: Site) -> dict[str, Any]:
    return {**site.hello(), "ticket": "x" * 32}


def _for_another_node(site: Site) -> dict[str, Any]:
    return {**site.hello("web-2"), "node": "web-1"}


def _offline(site: Site) -> dict[str, Any]:
    return site.hello()


def _nonsense(_site: Site) -> dict[str, Any]:
    return {"rows": -1}


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (_without_ticket, "not_signed_in"),
        (_for_another_node, "not_signed_in"),
        (_offline, "node_offline"),
        (_nonsense, "bad_request"),
    ],
)
async def test_what_cannot_be_opened_is_an_error_frame(
    site: Site, first: Callable[[Site], dict[str, Any]], code: str
) -> None:
    async with site.page() as page:
        await page.next()
        page.send(first(site))
        answer = await page.text()
        assert (answer["type"], answer["code"]) == ("error", code)
        assert (await page.next())["type"] == "websocket.close"


@pytest.mark.parametrize("frame", [{"ack": 5}, {"ack": -1}, {"resize": [0, 1]}, {"resize": "x"}])
async def test_a_page_that_breaks_a_rule_is_cut_off(site: Site, frame: dict[str, Any]) -> None:
    async with site.node(Terminals()), site.opened() as (page, _):
        page.send(frame)
        assert (await page.text())["code"] == "bad_request"


@pytest.mark.parametrize("headers", [{"origin": "https://evil.test"}, {"cookie": "x=y"}])
async def test_a_foreign_page_is_not_let_in(site: Site, headers: dict[str, str]) -> None:
    async with site.page(**headers) as page:
        assert (await page.next())["type"] == "websocket.close"
