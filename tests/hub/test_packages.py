"""The repository through its API: what it takes, and that what it refuses leaves nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from hub.authz import Role
from hub.core import Hub
from hub.errors import BadRequest
from hub.packages.manifest import identify, parse_manifest
from hub.store import schema
from protocol.messages import InstalledPackage
from tests.archives import make_tar, make_zip
from tests.hub.conftest import ClientFor


def manifest(**fields: object) -> bytes:
    return json.dumps(fields).encode()


@pytest.fixture
async def api(client: ClientFor) -> httpx.AsyncClient:
    return await client(Role.DEPLOYER)


async def push(api: httpx.AsyncClient, data: bytes, **query: str) -> httpx.Response:
    return await api.post("/api/v1/packages", params=query, content=data)


def artifacts(hub: Hub) -> list[str]:
    return [path.name for path in (hub.config.state_dir / "artifacts").rglob("*") if path.is_file()]


async def refused(hub: Hub, response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert reason in response.json()["detail"]
    assert artifacts(hub) == []
    assert (await hub.packages.page(None, 10, None))[2] == 0


async def test_a_package_with_a_manifest_is_stored_and_shown(api: httpx.AsyncClient) -> None:
    fields = {"name": "web", "version": "1.2.0", "description": "Pages", "command": ["run"]}
    data = make_zip({"service.json": manifest(**fields), "bin/run": b"#!"})
    response = await push(api, data)
    assert response.status_code == 201
    package = response.json()
    assert package.pop("created_at") > 0
    assert package == {
        "name": "web",
        "version": "1.2.0",
        "format": "zip",
        "description": "Pages",
        "manifest": fields,
        "digest": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "created_by": "deployer",
        "nodes": [],
    }
    shown = (await api.get("/api/v1/packages/web/1.2.0")).json()
    assert shown["digest"] == package["digest"]
    content = await api.get("/api/v1/packages/web/1.2.0/content")
    assert content.content == data
    assert content.headers["content-length"] == str(len(data))


@pytest.mark.parametrize(
    ("files", "query", "expected"),
    [
        ({"a": b""}, {"name": "n", "version": "1"}, ("n", "1")),
        ({"a": b""}, {"filename": "my-app-1.0-rc1.tar.gz"}, ("my-app", "1.0-rc1")),
        ({"a": b""}, {"filename": "app-v2.tgz", "version": "3"}, ("app", "3")),
        (
            {"top/service.json": b'{"name":"t","version":"2"}', "top/b/x": b""},
            {},
            ("t", "2"),
        ),
        (
            {"service.json": b'{"name":"r","version":"3"}', "x/service.json": b"no json"},
            {},
            ("r", "3"),
        ),
        (
            {"x/service.json": b'{"name":"x"}', "y/service.json": b"no json"},
            {"filename": "two-4.zip"},
            ("two", "4"),
        ),
    ],
)
async def test_where_name_and_version_come_from(
    api: httpx.AsyncClient,
    files: dict[str, bytes],
    query: dict[str, str],
    expected: tuple[str, str],
) -> None:
    for make in (make_tar, make_zip):
        package = (await push(api, make(files), **query)).json()
        assert (package["name"], package["version"]) == expected
        deleted = await api.delete(f"/api/v1/packages/{expected[0]}/{expected[1]}")
        assert deleted.status_code == 204


async def test_a_name_and_version_are_taken_once(hub: Hub, api: httpx.AsyncClient) -> None:
    first = make_tar({"a": b"1"})
    await push(api, first, name="web", version="1")
    for query in ({"name": "web", "version": "1"}, {"filename": "web-1.zip"}):
        again = await push(api, make_zip({"a": b"2"}), **query)
        assert again.status_code == 409
        assert "exists already" in again.json()["detail"]
    assert artifacts(hub) == [hashlib.sha256(first).hexdigest()]


async def test_equal_bytes_under_two_names_share_a_file(hub: Hub, api: httpx.AsyncClient) -> None:
    data = make_tar({"a": b"1"})
    for version in ("1", "2"):
        assert (await push(api, data, name="web", version=version)).status_code == 201
    assert len(artifacts(hub)) == 1
    await api.delete("/api/v1/packages/web/1")
    assert len(artifacts(hub)) == 1
    await api.delete("/api/v1/packages/web/2")
    assert artifacts(hub) == []


async def test_versions_are_listed_newest_first_in_pages(api: httpx.AsyncClient) -> None:
    for name, version in (("b", "1"), ("a", "1"), ("b", "2"), ("b", "3")):
        await push(api, make_tar({"x": version.encode()}), name=name, version=version)
    seen = []
    cursor: str | None = None
    while True:
        query = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = (await api.get("/api/v1/packages", params=query)).json()
        assert page["total"] == 4
        seen += [(one["name"], one["version"]) for one in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [("a", "1"), ("b", "3"), ("b", "2"), ("b", "1")]
    versions = (await api.get("/api/v1/packages/b")).json()
    assert [one["version"] for one in versions["items"]] == ["3", "2", "1"]
    assert (await api.get("/api/v1/packages", params={"cursor": "x"})).status_code == 400
    assert (await api.get("/api/v1/packages/none")).status_code == 404
    assert (await api.get("/api/v1/packages/b/9")).status_code == 404


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_tar({"a": b"", "../evil": b""}), "leaves the archive"),
        (make_zip({"a": b"", "../evil": b""}), "leaves the archive"),
        (make_tar({"zeros": bytes(40 * 1024**2)}), "200 times"),
        (make_tar({"a": b"x" * 9000})[:-20], "cut short"),
        (make_zip({"a": b"x"})[:-5], "cut short"),
        (b"\x1f\x8bgarbage", "damaged"),
        (b"#!/bin/sh", "neither a zip nor a tar.gz"),
        (b"", "empty"),
        (make_tar({}), "no file"),
        (make_tar({"service.json": b"{"}), "service.json"),
        (make_tar({"service.json": b"[]"}), "service.json"),
        (make_tar({"service.json": b'{"name": 3}'}), "service.json"),
        (make_tar({"service.json": b"[" * 200_000}), "service.json"),
        (make_tar({"service.json": b'{"name": "\xff"}'}), "service.json"),
        (make_tar({"service.json": b'"' + bytes(300_000)}), "262,144"),
        (make_tar({"service.json": b'{"name": "other"}'}), "leave one out"),
        (make_tar({"service.json": b'{"name": "../x"}'}), "leave one out"),
    ],
)
async def test_bad_archives_are_refused_and_leave_nothing(
    hub: Hub, api: httpx.AsyncClient, data: bytes, reason: str
) -> None:
    await refused(hub, await push(api, data, name="web", version="1"), 400, reason)


async def test_bad_names_are_refused(hub: Hub, api: httpx.AsyncClient) -> None:
    data = make_tar({"a": b""})
    for name in ("..", "a b", "-x", "é"):
        await refused(hub, await push(api, data, name=name, version="1"), 400, "does not match")
    await refused(hub, await push(api, data, filename="latest.tar.gz"), 400, "has no name")


async def test_wrong_declarations_are_refused(hub: Hub, api: httpx.AsyncClient) -> None:
    data = make_tar({"a": b"1"})
    url = "/api/v1/packages?name=web&version=1"
    large = await api.post(url, content=data, headers={"Content-Length": str(5 * 1024**3)})
    await refused(hub, large, 413, "4294967296")
    wrong = await api.post(url, content=data, headers={"X-Checksum-SHA256": "0" * 64})
    await refused(hub, wrong, 400, "SHA-256")
    longer = await api.post(url, content=data, headers={"Content-Length": str(len(data) + 1)})
    await refused(hub, longer, 400, "announced")

    async def cut() -> AsyncIterator[bytes]:
        yield data

    unknown_length = await api.post(url, content=cut())
    assert unknown_length.status_code == 201


async def test_a_caller_that_goes_away_leaves_nothing(hub: Hub, api: httpx.AsyncClient) -> None:
    data = make_tar({"a": b"1" * 100_000})
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/api/v1/packages",
        "raw_path": b"/api/v1/packages",
        "query_string": b"name=web&version=1",
        "root_path": "",
        "scheme": "https",
        "server": ("hub.test", 443),
        "client": ("192.0.2.1", 1),
        "headers": [
            (b"authorization", api.headers["authorization"].encode()),
            (b"content-length", str(len(data)).encode()),
        ],
    }
    messages = [
        {"type": "http.request", "body": data[:50], "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    app = api._transport.app  # type: ignore[attr-defined]
    await app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"cut short" in sent[1]["body"]
    assert artifacts(hub) == []


async def test_a_package_in_use_is_not_removed(hub: Hub, api: httpx.AsyncClient) -> None:
    await push(api, make_tar({"a": b"1"}), name="web", version="1")
    await add_node(hub, "shop-1")
    await hub.nodes.set_packages("id-shop-1", [InstalledPackage(name="web", version="1")])
    assert (await api.get("/api/v1/packages/web/1")).json()["nodes"] == ["shop-1"]
    response = await api.delete("/api/v1/packages/web/1")
    assert response.status_code == 409
    assert "shop-1" in response.json()["detail"]
    await hub.nodes.set_packages("id-shop-1", [])
    assert (await api.delete("/api/v1/packages/web/1")).status_code == 204
    assert artifacts(hub) == []


async def add_node(hub: Hub, name: str) -> None:
    row = insert(schema.nodes).values(id=f"id-{name}", name=name, created_at=0.0)
    await hub.store.write(lambda connection: connection.execute(row))
    await hub.nodes.refresh(f"id-{name}")


async def test_files_without_a_package_are_swept(hub: Hub, api: httpx.AsyncClient) -> None:
    await push(api, make_tar({"a": b"1"}), name="web", version="1")
    kept = artifacts(hub)
    (hub.config.state_dir / "artifacts" / ("0" * 64)).write_bytes(b"orphan")
    await hub.packages.sweep()
    assert artifacts(hub) == kept


async def test_only_deployers_may_change_the_repository(client: ClientFor) -> None:
    for role, allowed in ((Role.VIEWER, False), (Role.OPERATOR, False), (Role.DEPLOYER, True)):
        api = await client(role)
        response = await push(api, make_tar({"a": b"1"}), name="web", version=role.value)
        assert response.status_code == (201 if allowed else 403)
        assert (await api.get("/api/v1/packages")).status_code == 200


async def test_uploads_and_removals_are_audited_and_told(hub: Hub, api: httpx.AsyncClient) -> None:
    await push(api, make_tar({"a": b"1"}), name="web", version="1")
    await api.delete("/api/v1/packages/web/1")
    kinds = [event.kind for event in await hub.events.after(0, 100)]
    assert kinds[-2:] == ["package.added", "package.removed"]
    page = await hub.audit.entries(2)
    assert [entry.act for entry in page.entries] == ["package.delete", "package.create"]


def test_descriptions_and_unknown_fields() -> None:
    document = parse_manifest(b'{"description": "d", "hooks": {"x": [1]}}')
    assert document == {"description": "d", "hooks": {"x": [1]}}
    found = identify(document, name="a", version="1", description=None, filename="")
    assert found.description == "d"
    found = identify(document, name="a", version="1", description="mine", filename="")
    assert found.description == "mine"
    with pytest.raises(BadRequest):
        parse_manifest(b'{"description": 1}')


def test_a_path_as_file_name_counts_by_its_last_part(tmp_path: Path) -> None:
    for filename in ("C:\\tmp\\web-1.zip", "/tmp/x-9/web-1.zip"):
        found = identify({}, name=None, version=None, description=None, filename=filename)
        assert (found.name, found.version) == ("web", "1")
