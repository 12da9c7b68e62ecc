"""The page of forwards: what is open is shown and closed, links and services are made and ended."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import TIMEOUT_MS, sign_in
from tests.e2e.mesh import Mesh, Process, wait_for

pytestmark = pytest.mark.browser


class Hello(BaseHTTPRequestHandler):
    """Says hello, and keeps the connection open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = b"<!doctype html><title>Hello</title><h1>Hello from a node</h1>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a web server on loopback, which every node here shares."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hello) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def forward(mesh: Mesh, port: int, tmp_path: Path) -> Iterator[tuple[Process, int]]:
    """A client that forwards to the web server through web-1, and its port."""
    argv = mesh.command("forward", "web-1", f"0:127.0.0.1:{port}")
    client = Process(argv, tmp_path / "forward.log", mesh.env)
    found = wait_for(lambda: re.findall(r"forwarding 127\.0\.0\.1:(\d+) ->", client.text()))
    yield client, int(found[0])
    client.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def get(connection: socket.socket) -> bytes:
    """What answers an HTTP request; nothing when the connection is reset."""
    answer = b""
    with suppress(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
        while b"</h1>" not in answer and (piece := connection.recv(65536)):
            answer += piece
    return answer


def choose_node(page: Page, label: str, node: str) -> None:
    page.fill(label, node)
    page.get_by_role("option", name=node, exact=True).click()


def confirm(page: Page, action: str) -> None:
    page.get_by_role("dialog").get_by_role("button", name=action).click()


def test_a_forward_is_listed_with_its_connections_and_closed_and_its_client_told(
    page: Page, url: str, forward: tuple[Process, int], port: int
) -> None:
    client, local = forward
    with socket.create_connection(("127.0.0.1", local), 20) as connection:
        assert b"Hello" in get(connection)
        page.goto(f"{url}/forwards")
        row = page.locator("[data-forward]", has_text=f"127.0.0.1:{port}")
        expect(row).to_contain_text("Local port")
        expect(row).to_contain_text("1 / 1")
        row.get_by_role("button", expanded=False).press("Enter")
        inside = page.locator("[data-connection]", has_text=f"127.0.0.1:{port}")
        expect(inside).to_have_count(1)
        row.get_by_role("button", name="Close").click()
        expect(page.get_by_role("dialog")).to_contain_text("What admin opened through web-1")
        confirm(page, "Close forward")
        expect(row).to_have_count(0)
        assert get(connection) == b""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", local), 20) as again:
        assert get(again) == b""
    wait_for(lambda: "the forward was closed by admin" in client.text())
    expect(page.get_by_text("mooring forward web-1 8080:localhost:80")).to_be_visible()


def test_a_link_is_made_shown_up_filtered_disabled_and_deleted(
    page: Page, url: str, port: int
) -> None:
    listens = free_port()
    page.goto(f"{url}/forwards")
    page.get_by_role("button", name="New link").click()
    create = page.get_by_role("button", name="Create")
    expect(create).to_be_disabled()
    page.fill("#link-name", "hello page")
    expect(page.get_by_text("Up to 64 letters")).to_be_visible()
    page.fill("#link-name", "hello")
    choose_node(page, "#link-from-node", "web-1")
    page.fill("#link-from-port", str(listens))
    choose_node(page, "#link-to-node", "web-2")
    page.fill("#link-to-port", str(port))
    page.keyboard.press("Tab")
    create.click()

    row = page.locator("[data-link=hello]")
    expect(row.locator("[data-state=up]")).to_be_visible()
    with socket.create_connection(("127.0.0.1", listens), 20) as connection:
        assert b"Hello" in get(connection)

    page.goto(f"{url}/nodes/web-2")
    page.locator("[data-node-forwards]").click()
    expect(page).to_have_url(f"{url}/forwards?node=web-2")
    way = page.locator("[data-forward]", has_text=f"web-2 127.0.0.1:{port}")
    expect(way.get_by_role("button", name="Close")).to_have_count(0)
    way.get_by_role("link", name="Disable the link").click()

    row.get_by_role("button", name="Disable").click()
    confirm(page, "Disable")
    expect(row.locator("[data-state=disabled]")).to_be_visible()
    row.get_by_role("button", name="Enable").click()
    expect(row.locator("[data-state=up]")).to_be_visible()
    row.get_by_label("Delete link").click()
    confirm(page, "Delete link")
    expect(row).to_have_count(0)


def test_what_the_hub_says_about_a_form_is_shown(page: Page, url: str) -> None:
    page.goto(f"{url}/forwards/links?node=web-1")
    page.get_by_role("button", name="New link").click()
    page.fill("#link-name", "loop")
    page.fill("#link-from-port", "2000")
    choose_node(page, "#link-to-node", "web-1")
    page.fill("#link-to-port", "2000")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("would lead back to its own port")


def test_a_service_is_published_opened_and_withdrawn(visitor: Page, url: str, port: int) -> None:
    visitor.goto(f"{url}/forwards/published")
    visitor.get_by_role("button", name="Publish a service").click()
    visitor.fill("#service-name", "hello")
    choose_node(visitor, "#service-node", "web-1")
    visitor.fill("#service-port", str(port))
    visitor.fill("#service-host-name", "hello.localhost")
    visitor.get_by_role("dialog").get_by_role("button", name="Publish a service").click()

    row = visitor.locator("[data-service=hello]")
    with visitor.context.expect_page() as opened:
        row.get_by_role("link", name="https://hello.localhost").click()
    expect(opened.value.get_by_role("heading", name="Hello from a node")).to_be_visible()
    opened.value.close()
    row.get_by_label("Withdraw service").click()
    confirm(visitor, "Withdraw service")
    expect(row).to_have_count(0)


def test_a_viewer_is_shown_everything_and_offered_nothing(
    browser: Browser, mesh: Mesh, url: str, forward: tuple[Process, int], port: int
) -> None:
    user = {"name": "vi", "password": "a long pass phrase", "role": "viewer"}
    mesh.call("POST", "/api/v1/users", user)
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    context.set_default_timeout(TIMEOUT_MS)
    try:
        with socket.create_connection(("127.0.0.1", forward[1]), 20) as connection:
            assert b"Hello" in get(connection)
            page = context.new_page()
            page.goto(f"{url}/forwards")
            sign_in(page, user["password"], user["name"])
            row = page.locator("[data-forward]", has_text=f"127.0.0.1:{port}")
            expect(row).to_be_visible()
            for name in ("Close", "New link", "Publish a service"):
                expect(page.get_by_role("button", name=name)).to_have_count(0)
    finally:
        context.close()
        mesh.call("DELETE", "/api/v1/users/vi")
