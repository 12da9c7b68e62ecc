"""Signing in by cookie: Origin, CSRF, tickets, the end of a session."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httpx

from hub.api.guards import COOKIE
from hub.app import create_app
from hub.authz import Role
from hub.core import Hub
from tests.hub.conftest import PASSWORD, URL, ClientFor

OWN = {"Origin": URL}


async def sign_in(browser: httpx.AsyncClient, name: str = "operator") -> str:
    """Sign the browser in; return the CSRF token."""
    answer = await browser.post(
        "/api/v1/session", json={"username": name, "password": PASSWORD}, headers=OWN
    )
    assert answer.status_code == 200, answer.text
    csrf: str = answer.json()["csrf"]
    return csrf


async def test_signing_in_sets_a_host_cookie_that_scripts_cannot_read(client: ClientFor) -> None:
    browser = await client(None)
    answer = await browser.post(
        "/api/v1/session", json={"username": "operator", "password": PASSWORD}, headers=OWN
    )
    assert answer.json()["user"]["name"] == "operator"
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("__host-mooring=")
    for attribute in ("secure", "httponly", "samesite=strict", "path=/"):
        assert attribute in cookie
    assert "domain" not in cookie
    session = (await browser.get("/api/v1/session")).json()
    assert session["user"]["role"] == "operator"
    assert session["csrf"] == answer.json()["csrf"]


async def test_wrong_credentials_say_nothing_and_are_audited(hub: Hub, client: ClientFor) -> None:
    browser = await client(None)
    answers = [
        await browser.post("/api/v1/session", json={"username": name, "password": "wrong"})
        for name in ("operator", "nobody")
    ]
    assert [answer.json()["code"] for answer in answers] == ["wrong_credentials"] * 2
    assert answers[0].json() == answers[1].json()
    entries = (await hub.audit.entries(10, act="session.create")).entries
    assert [(entry.object, entry.outcome) for entry in entries] == [
        ("nobody", "failed"), ("operator", "failed"),
    ]  # fmt: skip


async def test_guessing_is_throttled_with_retry_after(client: ClientFor) -> None:
    browser = await client(None)
    for _ in range(6):
        answer = await browser.post(
            "/api/v1/session", json={"username": "admin", "password": "wrong"}
        )
    assert (answer.status_code, answer.json()["code"]) == (429, "throttled")
    assert answer.headers["retry-after"] == "60"


async def test_mutating_with_a_cookie_needs_own_origin_and_csrf_token(client: ClientFor) -> None:
    browser = await client(None)
    csrf = await sign_in(browser)
    body = {"purpose": "live"}
    for headers in (
        {},
        {"X-CSRF-Token": csrf},
        {**OWN},
        {**OWN, "X-CSRF-Token": "wrong"},
        {"Origin": "https://evil.test", "X-CSRF-Token": csrf},
        {"Origin": "null", "X-CSRF-Token": csrf},
    ):
        answer = await browser.post("/api/v1/tickets", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf"), headers
    answer = await browser.post("/api/v1/tickets", json=body, headers={**OWN, "X-CSRF-Token": csrf})
    assert answer.status_code == 201


async def test_a_foreign_page_cannot_sign_in(client: ClientFor) -> None:
    browser = await client(None)
    answer = await browser.post(
        "/api/v1/session",
        json={"username": "admin", "password": PASSWORD},
        headers={"Origin": "https://evil.test"},
    )
    assert answer.json()["code"] == "csrf"


async def test_signing_out_ends_the_session(hub: Hub, client: ClientFor) -> None:
    browser = await client(None)
    csrf = await sign_in(browser)
    cookie = browser.cookies[COOKIE]
    answer = await browser.delete("/api/v1/session", headers={**OWN, "X-CSRF-Token": csrf})
    assert answer.status_code == 204
    assert COOKIE not in browser.cookies
    browser.cookies.set(COOKIE, cookie)
    assert (await browser.get("/api/v1/session")).status_code == 401


async def test_the_own_password_is_changed(client: ClientFor) -> None:
    browser, other = await client(None), await client(None)
    csrf = await sign_in(browser)
    await sign_in(other)
    headers = {**OWN, "X-CSRF-Token": csrf}
    body = {"current": "wrong", "new": "battery staple"}
    answer = await browser.post("/api/v1/session/password", json=body, headers=headers)
    assert answer.json()["code"] == "wrong_credentials"
    body["current"] = PASSWORD
    answer = await browser.post("/api/v1/session/password", json=body, headers=headers)
    assert answer.status_code == 204
    assert (await browser.get("/api/v1/session")).status_code == 200
    assert (await other.get("/api/v1/session")).status_code == 401


async def test_a_token_is_no_session(client: ClientFor) -> None:
    program = await client(Role.VIEWER)
    session = (await program.get("/api/v1/session")).json()
    assert (session["user"]["name"], session["csrf"]) == ("viewer", None)
    assert (await program.delete("/api/v1/session")).json()["code"] == "bad_request"


async def test_tickets_are_given_for_what_the_role_allows(client: ClientFor) -> None:
    viewer, operator = await client(Role.VIEWER), await client(Role.OPERATOR)
    shell = {"purpose": "shell", "node": "web-1"}
    refused = await viewer.post("/api/v1/tickets", json=shell)
    assert (refused.json()["code"], refused.json()["verb"]) == ("forbidden", "shell")
    assert (await operator.post("/api/v1/tickets", json=shell)).status_code == 201
    for body in ({"purpose": "shell"}, {"purpose": "live", "node": "x"}, {"purpose": "x"}, {}):
        answer = await operator.post("/api/v1/tickets", json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_bad_bearer_tokens_are_refused(client: ClientFor) -> None:
    caller = await client(None)
    for value in ("Bearer nonsense", "Bearer ", "Basic YTpi", "Bearer " + "x" * 100_000):
        answer = await caller.get("/api/v1/session", headers={"Authorization": value})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_signed_in")
        assert answer.headers["www-authenticate"] == "Bearer"


async def handshake(hub: Hub, path: str, **headers: str) -> str:
    """Open a browser socket; return the type of the application's first answer."""
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    answered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asked.put_nowait({"type": "websocket.connect"})
    scope: dict[str, Any] = {
        "type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"",
        "http_version": "1.1", "scheme": "wss", "root_path": "", "subprotocols": [],
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("::1", 1), "server": ("hub.test", 443), "extensions": {}, "state": {},
    }  # fmt: skip
    app = cast("Any", create_app(hub))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(app(scope, asked.get, answered.put))
        first = await answered.get()
        asked.put_nowait({"type": "websocket.disconnect", "code": 1001})
        await asyncio.wait([running])
    kind: str = first["type"]
    return kind


async def test_a_socket_needs_the_cookie_and_exactly_the_hubs_origin(
    hub: Hub, client: ClientFor
) -> None:
    browser = await client(None)
    await sign_in(browser)
    cookie = f"{COOKIE}={browser.cookies[COOKIE]}"
    for path in ("/api/v1/live", "/api/v1/shell"):
        refused: list[dict[str, str]] = [
            {"origin": URL},
            {"cookie": cookie},
            {"cookie": cookie, "origin": "https://evil.test"},
            {"cookie": cookie, "origin": f"{URL}.evil.test"},
            {"cookie": f"{COOKIE}=nonsense", "origin": URL},
        ]
        for headers in refused:
            assert await handshake(hub, path, **headers) == "websocket.close", headers
        accepted = await handshake(hub, path, cookie=cookie, origin=URL)
        assert accepted == "websocket.accept"
