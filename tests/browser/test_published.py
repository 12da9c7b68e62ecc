"""Published services in chromium: what a hostile page cannot do, and what an honest one can."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import urllib.request
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.browser.conftest import TIMEOUT_MS, sign_in
from tests.e2e.mesh import Mesh, wait_for

pytestmark = pytest.mark.browser

SCRIPT = """
const socketAt = new URL('echo', location.href.replace('http', 'ws'))
const tries = {
  origin: () => self.origin,
  storage: () => { localStorage.setItem('a', 'kept'); return localStorage.getItem('a') },
  cookie: () => document.cookie,
  worker: async () => { await navigator.serviceWorker.register('worker.js'); return 'registered' },
  session: async () => (await fetch(HUB + '/api/v1/session', { credentials: 'include' })).status,
  nodes: async () => (await fetch(HUB + '/api/v1/nodes', { credentials: 'include' })).text(),
  enter: async () => (await fetch(HUB + '/published/app/', { credentials: 'include' })).url,
  own: async () => (await fetch('data.json')).json(),
  put: async () => (await fetch('data.json', { headers: { 'X-Own': '1' } })).status,
  popup: async () => {
    const opened = open(HUB + '/api/v1/session')
    for (let left = 400; left && !opened.document.body?.innerText; left--)
      await new Promise((done) => setTimeout(done, 25))
    return opened.document.body.innerText
  },
  socket: () => new Promise((done, fail) => {
    const socket = new WebSocket(socketAt)
    socket.onopen = () => socket.send('hello')
    socket.onmessage = (event) => done(event.data)
    socket.onerror = () => fail(new Error('no socket'))
  }),
  live: () => new Promise((done) => {
    const socket = new WebSocket(HUB.replace('http', 'ws') + '/api/v1/live')
    socket.onopen = () => done('open')
    socket.onerror = () => done('refused')
  }),
}
const found = {}
for (const [name, attempt] of Object.entries(tries)) {
  try { found[name] = await attempt() } catch (error) { found[name] = error.name }
}
document.body.textContent = JSON.stringify(found)
document.body.id = 'done'
"""
PAGE = '<!doctype html><title>App</title><script type="module" src="app.js"></script>'


class Service:
    """A page that tries everything, and a WebSocket that echoes."""

    def __init__(self, hub: str) -> None:
        self.script = f"const HUB = {json.dumps(hub)}\n{SCRIPT}"
        self.server = serve(self._echo, "127.0.0.1", 0, process_request=self._answer)
        self.port: int = self.server.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()

    def _echo(self, page: ServerConnection) -> None:
        for message in page:
            page.send(message)

    def _answer(self, _page: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if path == "/echo":
            return None
        kind, text = {
            "/app.js": ("text/javascript", self.script),
            "/worker.js": ("text/javascript", ""),
            "/data.json": ("application/json", '"own data"'),
        }.get(path, ("text/html", PAGE))
        body = text.encode()
        headers = Headers({"Content-Type": kind, "Content-Length": str(len(body))})
        return Response(HTTPStatus.OK, "OK", headers, body)


@pytest.fixture
def service(url: str) -> Iterator[Service]:
    service = Service(url)
    yield service
    service.close()


def call(mesh: Mesh, method: str, path: str, body: Any = None) -> None:
    context = ssl.create_default_context(cafile=mesh.env["MOORING_CA"])
    request = urllib.request.Request(
        mesh.env["MOORING_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {mesh.env['MOORING_TOKEN']}",
            "Content-Type": "application/json",
        },
    )
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        assert answer.status in (201, 204)


@pytest.fixture
def published(mesh: Mesh, service: Service, request: pytest.FixtureRequest) -> Iterator[None]:
    body = {"name": "app", "node": "web-1", "port": service.port, **request.param}
    call(mesh, "POST", "/api/v1/published", body)
    yield
    call(mesh, "DELETE", "/api/v1/published/app")


def tried(page: Page) -> dict[str, Any]:
    expect(page.locator("#done")).to_be_attached()
    found: dict[str, Any] = json.loads(page.locator("#done").inner_text())
    return found


@pytest.mark.parametrize("published", [{}], indirect=True)
@pytest.mark.usefixtures("published")
def test_a_page_below_the_hub_reaches_its_own_service_and_nothing_of_the_hub(
    visitor: Page, url: str
) -> None:
    visitor.goto(f"{url}/published/app/")
    found = tried(visitor)
    assert visitor.url.startswith(f"{url}/published/app/~")
    assert {name: found[name] for name in ("own", "put", "socket")} == {
        "own": "own data", "put": 200, "socket": "hello",
    }  # fmt: skip
    assert found["origin"] == "null"
    for name in ("storage", "cookie"):
        assert found[name] == "SecurityError", name
    for name in ("session", "nodes", "enter", "worker", "popup"):
        assert found[name] in ("TypeError", "SecurityError"), (name, found[name])
    assert found["live"] == "refused"


@pytest.mark.parametrize("published", [{"host_name": "app.localhost"}], indirect=True)
@pytest.mark.usefixtures("published")
def test_a_page_at_its_own_host_works_as_a_page_does_and_reaches_nothing_of_the_hub(
    visitor: Page, url: str
) -> None:
    site = f"https://app.localhost:{urlsplit(url).port}"
    visitor.goto(f"{site}/?a=b")
    found = tried(visitor)
    assert visitor.url == f"{site}/?a=b"
    assert {name: found[name] for name in ("origin", "storage", "own", "socket", "cookie")} == {
        "origin": site, "storage": "kept", "own": "own data", "socket": "hello", "cookie": "",
    }  # fmt: skip
    for name in ("session", "nodes", "enter", "worker", "popup"):
        assert found[name] in ("TypeError", "SecurityError"), (name, found[name])
    assert found["live"] == "refused"


@pytest.mark.parametrize("published", [{"host_name": "app.localhost"}], indirect=True)
@pytest.mark.usefixtures("published")
def test_a_stranger_signs_in_and_comes_back_to_the_service(
    browser: Browser, url: str, password: str
) -> None:
    context = browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    site = f"https://app.localhost:{urlsplit(url).port}"
    page.goto(f"{site}/deep?a=b")
    page.wait_for_url(lambda address: "/sign-in" in address)
    sign_in(page, password)
    page.wait_for_url(f"{site}/deep?a=b")
    context.close()


@pytest.mark.parametrize("published", [{"host_name": "app.localhost"}], indirect=True)
@pytest.mark.usefixtures("published")
def test_the_hubs_own_certificate_covers_a_name_that_was_published(mesh: Mesh, url: str) -> None:
    context = ssl.create_default_context(cafile=mesh.env["MOORING_CA"])

    def covers() -> bool:
        address = ("127.0.0.1", urlsplit(url).port or 443)
        try:
            with socket.create_connection(address, timeout=5) as plain:
                context.wrap_socket(plain, server_hostname="app.localhost").close()
        except ssl.SSLCertVerificationError:
            return False
        return True

    assert wait_for(covers)
