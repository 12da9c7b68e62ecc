"""A hub as it is served, a node with the agent's own forwards, and a service to publish there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert
from websockets.asyncio.client import connect
from websockets.typing import Origin, Subprotocol

from edge_agent.forward import handle_forward
from edge_agent.policy import PolicyFile
from hub.app import create_site
from hub.authz import Role, Subject
from hub.core import Hub
from hub.pages_server import serve_pages
from hub.published import ServiceSpec
from hub.published.asgi import App, Receive, Scope, Send
from hub.published.headers import ENTRY_COOKIE
from hub.store import schema
from protocol.aio import Stream, Tunnel, memory_pair
from protocol.messages import Forward, Open

HUB = "hub.test"
SITE = "app.test"
NAVIGATE = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}
Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def mirror(scope: Scope, receive: Receive, send: Send) -> None:
    """A service that tells what it was asked, and echoes what a socket says."""
    if scope["type"] == "websocket":
        return await _echo(scope, receive, send)
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    told = {
        "method": scope["method"],
        "path": scope["raw_path"].decode(),
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "body": body.decode(),
    }
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "bye":
            return await send({"type": "websocket.close", "code": 4001, "reason": "as you say"})
        if message.get("text") == "headers":
            shown = json.dumps([[n.decode(), v.decode()] for n, v in scope["headers"]])
            message = {"text": shown}
        await send({**message, "type": "websocket.send"})


def says(answer: bytes) -> Raw:
    """A service that answers the first request with these bytes, and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return serve


def with_headers(*lines: str) -> Raw:
    """A service that answers `hello` with these headers."""
    head = "\r\n".join(["HTTP/1.1 200 OK", "Content-Length: 5", *lines])
    return says(f"{head}\r\n\r\nhello".encode())


@asynccontextmanager
async def listening(serve: Raw, **options: Any) -> AsyncIterator[int]:
    """Serve raw bytes; gives the port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """Serve an application; gives the port."""
    async with serve_pages(app) as protocol:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()


@dataclass
class Stage:
    """The hub on a port, without TLS, and what a browser does with it."""

    hub: Hub
    port: int
    browser: httpx.AsyncClient
    cookie: str
    subject: Subject
    tunnel: Tunnel

    @property
    def signed_in(self) -> dict[str, str]:
        """The headers of a page load by the operator."""
        return {"Host": HUB, "Cookie": f"__Host-mooring={self.cookie}", **NAVIGATE}

    async def publish(self, port: int, name: str = "app", **more: Any) -> None:
        spec = ServiceSpec(name=name, node="web-1", port=port, **more)
        await self.hub.published.services.publish(self.subject, spec)

    async def way_in(self, path: str = "/published/app/", **headers: str) -> str:
        """Go there as the signed-in operator; return where the hub sends the browser."""
        answer = await self.browser.get(path, headers={**self.signed_in, **headers})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def entered_site(self) -> dict[str, str]:
        """Enter the service at `SITE`; return the headers of its pages' own requests."""
        location = httpx.URL(await self.way_in())
        assert location.host == SITE
        path = location.raw_path.decode()
        answer = await self.browser.get(path, headers={"Host": SITE, **NAVIGATE})
        assert answer.status_code == 303, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith(f"{ENTRY_COOKIE}=")
        return {"Host": SITE, "Cookie": cookie, "Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def make_stage(hub: Hub, directory: Path, rules: list[str]) -> AsyncIterator[Stage]:
    """Run it all; the node's policy allows forwards by `rules`."""
    policy = directory / "policy.json"
    policy.write_text(json.dumps({"verbs": ["forward"], "users": [], "forward": rules}))
    policy.chmod(0o600)
    file = PolicyFile(policy)

    async def agent(message: Open, stream: Stream) -> None:
        assert isinstance(message, Forward)
        await handle_forward(message, stream, file)

    row = insert(schema.nodes).values(id="id-web-1", name="web-1", created_at=0.0)
    await hub.store.write(lambda connection: connection.execute(row))
    await hub.nodes.refresh("id-web-1")
    user = await hub.accounts.users.find(Role.OPERATOR.value)
    new = await hub.accounts.sessions.create(user, "192.0.2.9", "test")
    async with (
        asyncio.TaskGroup() as tasks,
        memory_pair(agent) as (_, hub_end),
        serving(create_site(hub)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as browser,
    ):
        hub.registry.attach("id-web-1", hub_end, time.monotonic())
        uses = tasks.create_task(hub.published.uses.run())
        yield Stage(hub, port, browser, new.cookie, new.session.subject, hub_end)
        uses.cancel()


def socket(
    stage: Stage, path: str, headers: dict[str, str], origin: str | None, *subprotocols: str
) -> connect:
    """Open a WebSocket as a page of that origin."""
    others = {name: value for name, value in headers.items() if name != "Host"}
    return connect(
        f"ws://{headers['Host']}{path}",
        host="127.0.0.1",
        port=stage.port,
        origin=None if origin is None else Origin(origin),
        additional_headers=others,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        proxy=None,
    )


async def site_or_path(stage: Stage, port: int, mode: str) -> tuple[str, dict[str, str], str]:
    """Publish and enter in a mode: prefix, headers of the page's requests, and its origin."""
    if mode == "host":
        await stage.publish(port, host_name=SITE)
        return "", await stage.entered_site(), f"https://{SITE}"
    await stage.publish(port)
    return (await stage.way_in()).rstrip("/"), {"Host": HUB}, "null"


async def acts(stage: Stage) -> list[str]:
    """What the audit says, oldest first."""
    entries = (await stage.hub.audit.entries(20)).entries
    return [entry.act for entry in reversed(entries)]
