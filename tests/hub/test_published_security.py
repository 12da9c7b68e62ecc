"""What a published service, its pages, and pages of others cannot do; each rule once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hub.authz import Role
from hub.core import Hub
from hub.errors import Forbidden
from hub.published import entries
from tests.hub.conftest import ClientFor
from tests.hub.publishing import (
    HUB,
    NAVIGATE,
    SITE,
    Stage,
    acts,
    listening,
    make_stage,
    mirror,
    serving,
    site_or_path,
    socket,
    with_headers,
)

SANDBOX = "sandbox allow-scripts allow-forms allow-popups allow-downloads allow-modals"
both_modes = pytest.mark.parametrize("mode", ["host", "path"])


@pytest.fixture
async def stage(hub: Hub, tmp_path: Path) -> AsyncIterator[Stage]:
    async with make_stage(hub, tmp_path, ["127.0.0.1:*"]) as stage:
        yield stage


@pytest.fixture
async def service() -> AsyncIterator[int]:
    """The port of a service that tells what it was asked."""
    async with serving(mirror) as port:
        yield port


# --- who gets in ---------------------------------------------------------------------------------


async def test_a_stranger_is_led_to_the_sign_in_and_back(stage: Stage, service: int) -> None:
    await stage.publish(service, host_name=SITE)
    answer = await stage.browser.get("/a?b=c", headers={"Host": SITE, **NAVIGATE})
    assert answer.headers["location"] == "https://hub.test/published/app/a?b=c"
    answer = await stage.browser.get("/published/app/a?b=c", headers={"Host": HUB, **NAVIGATE})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sign-in?return=%2Fpublished%2Fapp%2Fa%3Fb%3Dc"


async def test_a_browser_that_keeps_its_cookie_back_loads_the_page_again(
    stage: Stage, service: int
) -> None:
    """The hub's cookie is SameSite=Strict: it does not come along from another site."""
    await stage.publish(service)
    headers = {"Host": HUB, **NAVIGATE, "Sec-Fetch-Site": "cross-site"}
    answer = await stage.browser.get('/published/app/?a="><b>', headers=headers)
    assert answer.status_code == 200
    assert 'content="0;url=/published/app/?a=%22%3E%3Cb%3E"' in answer.text
    assert answer.headers["cache-control"] == "no-store"


@both_modes
async def test_what_is_no_page_load_is_not_led_anywhere(
    stage: Stage, service: int, mode: str
) -> None:
    await site_or_path(stage, service, mode)
    path, host = ("/", SITE) if mode == "host" else ("/published/app/~unknown/", HUB)
    answer = await stage.browser.post(path, headers={"Host": host})
    assert answer.status_code == 401
    with pytest.raises(InvalidStatus) as caught:
        async with socket(stage, path, {"Host": host}, f"https://{SITE}"):
            pass
    assert caught.value.response.status_code == 401


async def test_a_ticket_is_good_once_and_for_one_service(stage: Stage, service: int) -> None:
    await stage.publish(service, host_name=SITE)
    await stage.publish(service, "other", host_name="other.test")
    way_in = httpx.URL(await stage.way_in()).raw_path.decode()
    answers = [
        await stage.browser.get(way_in, headers={"Host": host, **NAVIGATE})
        for host in ("other.test", SITE)
    ]
    assert ["set-cookie" in answer.headers for answer in answers] == [False, False]
    way_in = httpx.URL(await stage.way_in()).raw_path.decode()
    answers = [
        await stage.browser.get(way_in, headers={"Host": SITE, **NAVIGATE}) for _ in range(2)
    ]
    assert ["set-cookie" in answer.headers for answer in answers] == [True, False]
    cookie = answers[0].headers["set-cookie"]
    assert cookie.startswith("__Host-mooring-published=")
    for attribute in ("; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"):
        assert attribute in cookie
    assert answers[0].headers["cache-control"] == "no-store"
    assert answers[0].headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("to", ["//evil.test/", "https://evil.test/", "/\\evil.test", "", "/a b"])
async def test_entering_leads_to_no_other_host(stage: Stage, service: int, to: str) -> None:
    await stage.publish(service, host_name=SITE)
    url = httpx.URL(await stage.way_in()).copy_set_param("to", to)
    answer = await stage.browser.get(url.raw_path.decode(), headers={"Host": SITE, **NAVIGATE})
    assert answer.headers["location"] == "/"


@pytest.mark.parametrize("kind", ["script", "image", "iframe", "empty"])
async def test_the_way_in_is_for_pages_only(stage: Stage, service: int, kind: str) -> None:
    await stage.publish(service)
    headers = {**stage.signed_in, "Sec-Fetch-Dest": kind}
    answer = await stage.browser.get("/published/app/", headers=headers)
    assert answer.status_code == 400


async def test_who_may_not_forward_may_not_enter(stage: Stage, service: int) -> None:
    await stage.publish(service)
    hub = stage.hub
    user = await hub.accounts.users.find(Role.VIEWER.value)
    new = await hub.accounts.sessions.create(user, "192.0.2.9", "test")
    headers = {"Host": HUB, "Cookie": f"__Host-mooring={new.cookie}", **NAVIGATE}
    answer = await stage.browser.get("/published/app/", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    (entry,) = (await hub.audit.entries(1)).entries
    assert (entry.subject, entry.act, entry.outcome) == ("viewer", "published.enter", "denied")


async def test_a_program_with_a_token_does_not_enter(
    stage: Stage, service: int, client: ClientFor
) -> None:
    await stage.publish(service)
    program = await client(Role.OPERATOR)
    assert (await program.get("/published/app/")).status_code == 400


async def test_an_entry_is_for_one_service(stage: Stage, service: int) -> None:
    await stage.publish(service, "other")
    prefix, _, _ = await site_or_path(stage, service, "path")
    elsewhere = prefix.replace("/app/", "/other/")
    assert (await stage.browser.get(f"{elsewhere}/", headers={"Host": HUB})).status_code == 401


async def test_a_dead_path_leads_to_a_new_one(stage: Stage, service: int) -> None:
    await stage.publish(service)
    answer = await stage.browser.get("/published/app/~dead/a?b", headers={"Host": HUB, **NAVIGATE})
    assert answer.headers["location"] == "https://hub.test/published/app/a?b"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"


# --- how long ------------------------------------------------------------------------------------


@both_modes
async def test_signing_out_ends_requests_and_sockets(stage: Stage, service: int, mode: str) -> None:
    prefix, headers, origin = await site_or_path(stage, service, mode)
    async with socket(stage, f"{prefix}/", headers, origin) as page:
        await stage.hub.accounts.sessions.end(stage.subject)
        with pytest.raises(ConnectionClosed):
            await page.recv()
    assert page.close_code == 1008
    assert (await stage.browser.get(f"{prefix}/", headers=headers)).status_code == 401


async def test_rights_that_change_end_an_answer_under_way(stage: Stage) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nfirst")
        await reader.read()
        writer.close()

    async with listening(endless) as port, asyncio.timeout(20):
        prefix, headers, _ = await site_or_path(stage, port, "path")
        async with stage.browser.stream("GET", f"{prefix}/", headers=headers) as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"first"
            await stage.hub.accounts.users.change("operator", role=Role.VIEWER)
            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)


async def test_an_entry_ends_by_itself(
    stage: Stage, service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "LIFE_S", 0.5)
    prefix, headers, origin = await site_or_path(stage, service, "path")
    async with socket(stage, f"{prefix}/", headers, origin) as page, asyncio.timeout(10):
        with pytest.raises(ConnectionClosed):
            await page.recv()
    assert (await stage.browser.get(f"{prefix}/", headers=headers)).status_code == 401


async def test_the_oldest_of_too_many_entries_ends(
    stage: Stage, service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "PER_USER", 2)
    await stage.publish(service)
    pages = [await stage.way_in() for _ in range(3)]
    answers = [await stage.browser.get(page, headers={"Host": HUB}) for page in pages]
    assert [answer.status_code for answer in answers] == [401, 200, 200]


# --- whose requests ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "origin"),
    [
        ("host", "https://hub.test"), ("host", "https://other.test"), ("host", None),
        ("path", "https://hub.test"), ("path", "https://other.test"), ("path", None),
    ],
)  # fmt: skip
async def test_a_socket_of_another_page_is_refused(
    stage: Stage, service: int, mode: str, origin: str | None
) -> None:
    prefix, headers, _ = await site_or_path(stage, service, mode)
    with pytest.raises(InvalidStatus) as caught:
        async with socket(stage, f"{prefix}/", headers, origin):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    ("method", "source", "status"),
    [
        ("GET", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATE}, 200),
        ("GET", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", {"Sec-Fetch-Site": "cross-site", **NAVIGATE, "Sec-Fetch-Dest": "iframe"}, 403),
        ("POST", {"Sec-Fetch-Site": "same-site", **NAVIGATE}, 403),
        ("POST", {}, 403),
        ("POST", {"Origin": f"https://{SITE}"}, 200),
        ("POST", {"Origin": "https://other.test"}, 403),
    ],
)
async def test_at_its_host_a_service_gets_its_own_pages_requests_only(
    stage: Stage, service: int, method: str, source: dict[str, str], status: int
) -> None:
    _, headers, _ = await site_or_path(stage, service, "host")
    cookie = {"Host": SITE, "Cookie": headers["Cookie"]}
    answer = await stage.browser.request(method, "/", headers={**cookie, **source})
    assert answer.status_code == status


async def test_below_the_hub_requests_of_other_origins_are_refused(
    stage: Stage, service: int
) -> None:
    prefix, headers, _ = await site_or_path(stage, service, "path")
    for origin, status in (("null", 200), ("https://hub.test", 403), ("https://other.test", 403)):
        answer = await stage.browser.get(f"{prefix}/", headers={**headers, "Origin": origin})
        assert answer.status_code == status


async def test_below_the_hub_a_page_may_ask_and_read_what_it_likes_of_its_service(
    stage: Stage, service: int
) -> None:
    prefix, headers, _ = await site_or_path(stage, service, "path")
    asked = {
        "Origin": "null",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "x-own",
    }
    allowed = await stage.browser.options(f"{prefix}/a", headers={**headers, **asked})
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == "null"
    assert "PUT" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == "x-own"
    answer = await stage.browser.put(f"{prefix}/a", headers={**headers, "Origin": "null"})
    assert answer.headers["access-control-allow-origin"] == "null"
    assert "access-control-allow-credentials" not in answer.headers


@both_modes
async def test_no_service_worker_is_served(stage: Stage, service: int, mode: str) -> None:
    prefix, headers, _ = await site_or_path(stage, service, mode)
    answer = await stage.browser.get(
        f"{prefix}/worker.js", headers={**headers, "Service-Worker": "script"}
    )
    assert answer.status_code == 403


# --- what the hub keeps --------------------------------------------------------------------------


async def test_every_answer_below_the_hub_is_sandboxed(stage: Stage) -> None:
    async with listening(with_headers("Content-Security-Policy: script-src *")) as port:
        await stage.publish(1, "nobody")
        prefix, headers, _ = await site_or_path(stage, port, "path")
        policies = []
        for path in (f"{prefix}/", await stage.way_in("/published/nobody/"), f"{prefix}x/", prefix):
            answer = await stage.browser.get(path, headers=headers)
            policies.append(
                (answer.status_code, answer.headers.get_list("content-security-policy"))
            )
            assert answer.headers["referrer-policy"] == "no-referrer"
    assert policies[0] == (200, ["script-src *", SANDBOX])
    assert [status for status, _ in policies[1:]] == [502, 401, 303]
    assert all("sandbox" in policy for _, (policy,) in policies[1:])


async def test_the_hubs_api_is_not_at_a_services_host(stage: Stage, service: int) -> None:
    await stage.publish(service, host_name=SITE)
    headers = {"Host": SITE, "Cookie": f"__Host-mooring={stage.cookie}"}
    assert (await stage.browser.get("/api/v1/session", headers=headers)).status_code == 401
    page = await stage.entered_site()
    answer = await stage.browser.get("/api/v1/session", headers=page)
    assert answer.json()["path"] == "/api/v1/session", "the service's own path of that name"
    answer = await stage.browser.get("/.mooring/anything", headers=page)
    assert answer.status_code == 404


@pytest.mark.parametrize("host", ["unknown.test", "app.test.evil.test", "127.0.0.1", HUB])
async def test_any_other_host_is_the_hub(stage: Stage, service: int, host: str) -> None:
    await stage.publish(service, host_name=SITE)
    answer = await stage.browser.get("/api/v1/about", headers={"Host": host})
    assert answer.json()["name"] == "mooring"


@pytest.mark.parametrize("host", [SITE, "APP.test", "app.test:8443", "app.test."])
async def test_a_services_host_is_known_however_it_is_written(
    stage: Stage, service: int, host: str
) -> None:
    await stage.publish(service, host_name=SITE)
    assert (await stage.browser.get("/api/v1/about", headers={"Host": host})).status_code == 401


async def test_a_service_with_a_host_name_is_not_below_the_hub(stage: Stage, service: int) -> None:
    await stage.publish(service, host_name=SITE)
    answer = await stage.browser.get("/published/app/~key/", headers={"Host": HUB})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "name", [HUB, "localhost", "127.0.0.1", "host", "UPPER.test", "a..b", "-a.test", "a.test."]
)
async def test_a_host_name_is_a_dns_name_and_not_the_hubs_own(
    stage: Stage, client: ClientFor, name: str
) -> None:
    operator = await client(Role.OPERATOR)
    body = {"name": "app", "node": "web-1", "port": 80, "host_name": name}
    answer = await operator.post("/api/v1/published", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_the_secrets_are_in_no_log(
    stage: Stage, service: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    prefix, headers, origin = await site_or_path(stage, service, "path")
    key = prefix.rpartition("~")[2]
    async with socket(stage, f"{prefix}/?a=b", headers, origin) as page:
        await page.send("x")
        await page.recv()
    await stage.browser.get(f"{prefix}/", headers=headers)
    logged = [r.getMessage() for r in caplog.records if r.name != "httpx"]
    assert [line for line in logged if line.endswith('"WebSocket /published/app/" [accepted]')]
    assert not [line for line in logged if key in line]
    assert key not in repr(stage.hub.published.entries), "only hashes are kept"


# --- the API -------------------------------------------------------------------------------------


async def test_services_are_published_listed_and_withdrawn(stage: Stage, client: ClientFor) -> None:
    operator, viewer = await client(Role.OPERATOR), await client(Role.VIEWER)
    for name in ("b", "a"):
        body = {"name": name, "node": "web-1", "port": 80, "host_name": f"{name}.test"}
        answer = await operator.post("/api/v1/published", json=body)
        assert answer.status_code == 201, answer.text
    assert answer.json()["url"] == "https://a.test/"
    for taken in ({"name": "a"}, {"name": "c", "host_name": "a.test"}):
        answer = await operator.post(
            "/api/v1/published", json={"node": "web-1", "port": 1, **taken}
        )
        assert answer.json()["code"] == "conflict"
    page = (await viewer.get("/api/v1/published?limit=1")).json()
    assert [item["name"] for item in page["items"]] == ["a"]
    assert (page["next_cursor"], page["total"]) == ("a", 2)
    assert (await viewer.delete("/api/v1/published/a")).status_code == 403
    assert (await operator.delete("/api/v1/published/a")).status_code == 204
    assert (await viewer.get("/api/v1/published/a")).status_code == 404
    assert (await viewer.get("/api/v1/published/b")).json()["host"] == "127.0.0.1"
    assert await acts(stage) == ["published.create"] * 2 + ["published.delete"]


async def test_a_viewer_publishes_nothing_and_the_attempt_is_audited(stage: Stage) -> None:
    user = await stage.hub.accounts.users.find(Role.VIEWER.value)
    new = await stage.hub.accounts.sessions.create(user, "", "")
    stage.subject = new.session.subject
    with pytest.raises(Forbidden):
        await stage.publish(80)
    (entry,) = (await stage.hub.audit.entries(1)).entries
    assert (entry.act, entry.outcome) == ("published.create", "denied")


async def test_published_services_outlive_the_hub_and_end_with_their_node(
    stage: Stage, service: int
) -> None:
    await stage.publish(service, host_name=SITE)
    services = stage.hub.published.services
    services._by_name.clear()
    services._by_host_name.clear()
    await services.load()
    assert services.host_names() == [SITE]
    services.forget_node("id-web-1")
    assert (services.all(), services.host_names()) == ([], [])
