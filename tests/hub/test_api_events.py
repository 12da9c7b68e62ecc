"""`GET /events`: a stream that resumes by id and ends with the caller's rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from hub.app import create_app
from hub.authz import Role
from hub.core import Hub
from hub.events import Event
from tests.hub.conftest import ClientFor


class Listening:
    """One request to the application whose answer is read as it comes."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.text = ""

    async def until(self, part: str) -> str:
        """Read until a part of the text has come; return all of it."""
        while part not in self.text:
            message = await self.messages.get()
            assert message["type"] == "http.response.body", message
            self.text += message["body"].decode()
            assert message.get("more_body"), "the stream has ended"
        return self.text

    async def until_end(self) -> None:
        while (await self.messages.get()).get("more_body", True):
            pass


@asynccontextmanager
async def listen(hub: Hub, query: str = "", **headers: str) -> AsyncIterator[Listening]:
    user = await hub.accounts.users.find(Role.VIEWER)
    new = await hub.accounts.tokens.create(user.id, user.name, "test", Role.VIEWER)
    headers["authorization"] = f"Bearer {new.secret}"
    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/api/v1/events", "raw_path": b"/api/v1/events",
        "query_string": query.encode(), "http_version": "1.1", "scheme": "https", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("::1", 1), "server": ("hub.test", 443), "extensions": {}, "state": {},
    }  # fmt: skip
    listening, gone = Listening(), asyncio.Event()
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    app = cast("Any", create_app(hub))
    async with asyncio.TaskGroup() as group:
        group.create_task(app(scope, receive, listening.messages.put))
        start = await listening.messages.get()
        if start["status"] == 200:
            assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
        listening.text = str(start["status"])
        yield listening
        gone.set()


async def test_events_come_as_they_happen(hub: Hub) -> None:
    async with listen(hub) as listening:
        await listening.until(": connected\n\n")
        event = await hub.events.publish("node.online", node="web-1")
        text = await listening.until('"web-1"')
        assert f"id: {event.id}\nevent: node.online\ndata: " in text
        data = (await listening.until("}\n\n")).partition("data: ")[2]
        assert msgspec.json.decode(data.strip(), type=Event) == event


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_stream_resumes_after_an_id(hub: Hub, by_header: bool) -> None:
    first = await hub.events.publish("node.online", node="web-1")
    await hub.events.publish("node.offline", node="web-2")
    resumed = (
        listen(hub, "after=0", **{"last-event-id": str(first.id)})
        if by_header
        else listen(hub, f"after={first.id}")
    )
    async with resumed as listening:
        assert "web-1" not in await listening.until("web-2")


async def test_a_stream_ends_with_the_rights_of_its_caller(hub: Hub) -> None:
    async with listen(hub) as listening:
        await listening.until(": connected")
        await hub.accounts.users.change("viewer", disabled=True)
        await listening.until_end()
    assert not hub.events._subscriptions


async def test_a_client_that_leaves_is_forgotten(hub: Hub) -> None:
    async with listen(hub) as listening:
        await listening.until(": connected")
    assert not hub.events._subscriptions


async def test_a_last_event_id_that_is_none_is_refused(hub: Hub) -> None:
    async with listen(hub, **{"last-event-id": "x"}) as listening:
        assert listening.text == "400"


async def test_an_id_that_cannot_be_is_refused(client: ClientFor) -> None:
    viewer = await client(Role.VIEWER)
    for after in (-1, 2**63):
        answer = await viewer.get(f"/api/v1/events?after={after}")
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
