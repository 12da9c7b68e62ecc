"""Pages, security headers, health, metrics, the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from hub.app import create_app
from hub.authz import Role
from hub.core import Hub
from hub.errors import Unavailable
from hub.store.engine import Store
from tests.hub.conftest import URL, ClientFor


@pytest.fixture
def static(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Mooring</title>")
    (folder / "assets" / "app-1a2b.js").write_text("console.log('hello');" * 100)
    (folder / "favicon.svg").write_text("<svg/>")
    return folder


@pytest.fixture
def browser(hub: Hub, static: Path) -> httpx.AsyncClient:
    app = cast("Any", create_app(hub, static=static))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)


async def test_page_routes_get_the_index_and_assets_live_for_ever(
    browser: httpx.AsyncClient,
) -> None:
    async with browser:
        for path in ("/", "/nodes", "/nodes/web-1/terminal", "/nodes/metrics"):
            page = await browser.get(path)
            assert (page.status_code, page.headers["cache-control"]) == (200, "no-cache"), path
            assert page.headers["content-type"] == "text/html; charset=utf-8"
        asset = await browser.get("/assets/app-1a2b.js")
        assert asset.headers["content-encoding"] == "gzip"
        assert asset.text.startswith("console.log")
        assert "immutable" in asset.headers["cache-control"]
        assert "javascript" in asset.headers["content-type"]
        again = await browser.get(
            "/assets/app-1a2b.js", headers={"If-None-Match": asset.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        plain = await browser.get("/assets/app-1a2b.js", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert (await browser.head("/")).status_code == 200


async def test_what_is_not_a_page_is_not_found(browser: httpx.AsyncClient) -> None:
    async with browser:
        for path in ("/assets/gone-1.js", "/api/v1/x", "/schema/x", "/assets/../../secret"):
            assert (await browser.get(path)).status_code in (200, 404)
        for path in ("/assets/gone-1.js", "/api/v1/x", "/assets/%2e%2e/%2e%2e/etc/passwd"):
            assert (await browser.get(path)).status_code == 404, path


async def test_without_a_build_the_pages_say_so(client: ClientFor) -> None:
    answer = await (await client(None)).get("/nodes")
    assert (answer.status_code, answer.headers["content-type"]) == (
        503, "text/plain; charset=utf-8",
    )  # fmt: skip
    assert "make ui" in answer.text


async def test_every_answer_carries_the_security_headers(
    hub: Hub, browser: httpx.AsyncClient
) -> None:
    hub.accounts.origins.listening("127.0.0.1", 8443)
    async with browser:
        for path in ("/", "/api/v1/about", "/api/v1/nodes", "/api/v1/x", "/healthz", "/schema"):
            answer = await browser.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            sources = re.search(r"connect-src ([^;]*)", policy)
            assert sources is not None
            assert {"'self'", "wss://hub.test", "wss://localhost:8443"} <= set(sources[1].split())
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
            assert (answer.headers.get("cache-control") == "no-store") == path.startswith("/api/")


async def test_health_and_readiness(
    hub: Hub, client: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = await client(None)
    assert (await caller.get("/healthz")).text == "ok\n"
    assert (await caller.get("/readyz")).status_code == 503
    hub.readiness.listening = True
    assert (await caller.get("/readyz")).status_code == 200

    async def refuse(_store: Store) -> None:
        raise Unavailable("full")

    monkeypatch.setattr(Store, "check", refuse)
    assert (await caller.get("/readyz")).status_code == 503


async def test_metrics_are_prometheus_text(client: ClientFor) -> None:
    caller = await client(None)
    await caller.get("/healthz")
    answer = await caller.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.split(" ") for line in answer.text.splitlines() if line[0] != "#")
    assert float(values["mooring_http_requests_total"]) == 1
    assert float(values["mooring_nodes_connected"]) == 0
    assert float(values["mooring_uptime_seconds"]) > 0
    families = re.findall(r"^# TYPE (\w+) ", answer.text, re.MULTILINE)
    assert len(families) == len(set(families))
    assert all(any(name.startswith(family) for name in values) for family in families)


async def test_about_names_the_hub(hub: Hub, client: ClientFor) -> None:
    about = (await (await client(None)).get("/api/v1/about")).json()
    assert about["name"] == "mooring"
    assert about["mesh_id"] == hub.authority.mesh_id
    assert re.fullmatch(r"[0-9a-f]{64}", about["ca_fingerprint"])


async def test_the_schema_describes_the_routes_and_its_page_loads_nothing(
    client: ClientFor,
) -> None:
    caller = await client(Role.VIEWER)
    schema = (await caller.get("/schema/openapi.json")).json()
    assert "/api/v1/users/{name}" in schema["paths"]
    assert "/healthz" not in schema["paths"]
    page = await caller.get("/schema")
    assert "POST /api/v1/tickets" in page.text
    assert page.headers["content-type"].startswith("text/html")
    assert not re.search(r"<script|<style|<link|https?://", page.text)
