"""Published services in use: entering, requests, streams, sockets, in both modes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from certs.servers import Role as CertificateOf
from certs.servers import keep_current
from hub.core import Hub
from hub.errors import Conflict
from hub.published import services, sockets, uses
from hub.published.asgi import Message, Receive, Scope, Send
from tests.hub.publishing import (
    HUB,
    NAVIGATE,
    SITE,
    Stage,
    acts,
    listening,
    make_stage,
    mirror,
    says,
    serving,
    site_or_path,
    socket,
    with_headers,
)


@pytest.fixture
async def stage(hub: Hub, tmp_path: Path) -> AsyncIterator[Stage]:
    async with make_stage(hub, tmp_path, ["127.0.0.1:*"]) as stage:
        yield stage


async def test_a_page_below_the_hub_is_found_by_a_secret_path(stage: Stage) -> None:
    async with serving(mirror) as port:
        await stage.publish(port)
        page = await stage.way_in("/published/app/a%20b?c=d")
        assert page.startswith("/published/app/~") and page.endswith("/a%20b?c=d")
        answer = await stage.browser.get(page, headers={"Host": HUB, **NAVIGATE})
    told = answer.json()
    assert (told["method"], told["path"], told["query"]) == ("GET", "/a%20b", "c=d")
    assert dict(told["headers"])["host"] == f"127.0.0.1:{port}"


async def test_a_service_with_a_host_name_is_entered_by_a_ticket(stage: Stage) -> None:
    async with serving(mirror) as port:
        await stage.publish(port, host_name=SITE)
        page = await stage.entered_site()
        answer = await stage.browser.post("/a/b?c", headers=page, content=b"some text")
    told = answer.json()
    assert (told["method"], told["path"], told["query"]) == ("POST", "/a/b", "c")
    assert told["body"] == "some text"


both_modes = pytest.mark.parametrize("mode", ["host", "path"])


@both_modes
async def test_a_large_upload_and_its_answer_pass_whole(stage: Stage, mode: str) -> None:
    async def count(scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(size // 65_536):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(256):
            yield bytes(65_536)

    async with serving(count) as port:
        prefix, headers, _ = await site_or_path(stage, port, mode)
        answer = await stage.browser.post(f"{prefix}/", headers=headers, content=pieces())
    assert len(answer.content) == 256 * 65_536
    (service,) = stage.hub.published.services.all()
    assert min(service.sent_bytes, service.received_bytes) > 256 * 65_536


async def test_a_browser_that_stops_reading_stops_the_service(stage: Stage) -> None:
    sent = 0
    stalled = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        try:
            while True:
                async with asyncio.timeout(0.5):
                    writer.write(bytes(65_536))
                    await writer.drain()
                sent += 65_536
        except TimeoutError:
            stalled.set()
            writer.transport.abort()

    async with listening(flood) as port, asyncio.timeout(30):
        prefix, headers, _ = await site_or_path(stage, port, "path")
        async with stage.browser.stream("GET", f"{prefix}/", headers=headers):
            await stalled.wait()
            assert sent < 64 * 1024 * 1024


@both_modes
async def test_events_pass_as_they_come_and_the_service_hears_that_the_browser_left(
    stage: Stage, mode: str
) -> None:
    gone = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n")
        await reader.read()
        writer.close()
        gone.set()

    async with listening(events) as port, asyncio.timeout(20):
        prefix, headers, _ = await site_or_path(stage, port, mode)
        async with stage.browser.stream("GET", f"{prefix}/", headers=headers) as answer:
            assert await anext(answer.aiter_bytes()) == b"data: one\n\n"
        await gone.wait()


async def test_an_answer_that_comes_before_the_request_ends_is_passed(stage: Stage) -> None:
    async def impatient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 6\r\n\r\nenough")
        await reader.read()
        writer.close()

    async with listening(impatient) as port, asyncio.timeout(20):
        prefix, _, _ = await site_or_path(stage, port, "path")
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        head = f"POST {prefix}/ HTTP/1.1\r\nHost: {HUB}\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head.encode() + b"x" * 1000)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        assert await reader.readexactly(6) == b"enough"
        writer.close()


@both_modes
async def test_a_socket_passes_text_bytes_subprotocol_and_its_end(stage: Stage, mode: str) -> None:
    async with serving(mirror) as port:
        prefix, headers, origin = await site_or_path(stage, port, mode)
        async with socket(stage, f"{prefix}/ws", headers, origin, "a", "b") as page:
            assert page.subprotocol == "b"
            for message in ("text", b"bytes", "x" * 200_000):
                await page.send(message)
                assert await page.recv() == message
            await page.send("bye")
            with pytest.raises(ConnectionClosed):
                await page.recv()
    assert (page.close_code, page.close_reason) == (4001, "as you say")


async def test_the_service_hears_how_the_page_closed_a_socket(stage: Stage) -> None:
    heard: asyncio.Queue[Message] = asyncio.Queue()

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        heard.put_nowait(await receive())

    async with serving(listen) as port, asyncio.timeout(20):
        prefix, headers, origin = await site_or_path(stage, port, "path")
        async with socket(stage, f"{prefix}/", headers, origin) as page:
            await page.close(3456, "had enough")
        message = await heard.get()
    assert (message["code"], message["reason"]) == (3456, "had enough")


async def test_a_socket_that_the_service_refuses_is_refused(stage: Stage) -> None:
    async with listening(says(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")) as port:
        prefix, headers, origin = await site_or_path(stage, port, "path")
        with pytest.raises(InvalidStatus) as caught:
            async with socket(stage, f"{prefix}/", headers, origin):
                pass
    assert caught.value.response.status_code == 502


async def test_a_message_of_the_service_beyond_the_limit_ends_the_socket(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MESSAGE_BYTES", 1000)
    async with serving(mirror) as port:
        prefix, headers, origin = await site_or_path(stage, port, "path")
        async with socket(stage, f"{prefix}/", headers, origin) as page:
            await page.send("x" * 1001)
            with pytest.raises(ConnectionClosed):
                await page.recv()
    assert page.close_code == 1009


async def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(stage: Stage) -> None:
    async with listening(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as port:
        prefix, headers, _ = await site_or_path(stage, port, "path")
        with pytest.raises(httpx.RemoteProtocolError):
            await stage.browser.get(f"{prefix}/", headers=headers)


BROKEN = {
    "not http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a line break in a name": b"HTTP/1.1 200 OK\r\nA\nB: c\r\n\r\n",
    "an upgrade nobody asked for": b"HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_a_service_that_does_not_speak_http_is_a_bad_gateway(
    stage: Stage, answer: bytes
) -> None:
    async with listening(says(answer)) as port:
        prefix, headers, _ = await site_or_path(stage, port, "path")
        shown = await stage.browser.get(f"{prefix}/", headers={**headers, **NAVIGATE})
    assert shown.status_code == 502
    assert "does not answer" in shown.text


async def test_what_keeps_a_service_from_answering_is_said(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr("hub.published.exchange.HEAD_S", 0.2)
    async with listening(silent) as port:
        await stage.publish(port, "slow")
        await stage.publish(1, "nobody")
        await stage.publish(80, "forbidden", host="192.0.2.1")
        answers = {}
        for name in ("slow", "nobody", "forbidden"):
            page = await stage.way_in(f"/published/{name}/")
            answers[name] = await stage.browser.get(page, headers={"Host": HUB})
        stage.hub.registry.detach("id-web-1", stage.tunnel)
        answers["offline"] = await stage.browser.get(page, headers={"Host": HUB, **NAVIGATE})
    said = {name: (answer.status_code, answer.text) for name, answer in answers.items()}
    assert said["slow"][0] == 504 and "did not answer within" in said["slow"][1]
    assert said["nobody"] == (
        502, "web-1 127.0.0.1:1 cannot be reached. Is the service running?\n",
    )  # fmt: skip
    assert said["forbidden"][0] == 502 and "web-1 refused" in said["forbidden"][1]
    assert said["offline"][0] == 503 and "web-1, which serves this, is not" in said["offline"][1]


HEADS = {
    "page": "GET {0} HTTP/1.1\r\nHost: {1}\r\n\r\n",
    "upload": "POST {0} HTTP/1.1\r\nHost: {1}\r\nContent-Length: {2}\r\n\r\n",
    "socket": "GET {0} HTTP/1.1\r\nHost: {1}\r\nOrigin: null\r\nConnection: Upgrade\r\n"
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
}


@pytest.mark.parametrize(
    ("limit", "scheme", "kind"),
    [
        ("connect.HANDSHAKE_S", "https", "page"),
        ("connect.WRITE_S", "http", "upload"),
        ("sockets.HANDSHAKE_S", "http", "socket"),
    ],
)
async def test_a_service_that_stalls_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: str, scheme: str, kind: str
) -> None:
    given_up = asyncio.Event()

    async def stall(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await given_up.wait()
        writer.transport.abort()

    monkeypatch.setattr(f"hub.published.{limit}", 0.2)
    async with listening(stall) as port, asyncio.timeout(20):
        await stage.publish(port, scheme=scheme)
        head, body = HEADS[kind], bytes(32 * 1024 * 1024 if kind == "upload" else 0)
        head = head.format(await stage.way_in(), HUB, len(body))
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(head.encode() + body)
        answer = await reader.readline()
        writer.transport.abort()
        given_up.set()
    assert answer.startswith(b"HTTP/1.1 504")


@pytest.mark.parametrize("limit", ["LIMIT", "HOST_NAMES_LIMIT"])
async def test_so_many_services_are_published(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(services, limit, 1)
    await stage.publish(80, host_name=SITE)
    with pytest.raises(Conflict, match="remove one first"):
        await stage.publish(81, "other", host_name="other.test")


@pytest.mark.parametrize(("verify", "status"), [(False, 200), (True, 502)])
async def test_https_to_a_service_whose_certificate_is_its_own(
    stage: Stage, tmp_path: Path, verify: bool, status: int
) -> None:
    hub = stage.hub
    files, _ = keep_current(
        tmp_path, CertificateOf.PAGES, hub.authority, ["127.0.0.1"], time.time()
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    async with listening(with_headers(), ssl=context) as port:
        await stage.publish(port, scheme="https", verify=verify)
        answer = await stage.browser.get(await stage.way_in(), headers={"Host": HUB})
    assert answer.status_code == status
    assert ("hello" if status == 200 else "certificate is not valid") in answer.text


async def test_a_use_is_one_forward_however_many_requests_it_has(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(mirror) as port, asyncio.timeout(20):
        prefix, headers, _ = await site_or_path(stage, port, "path")
        for _ in range(3):
            assert (await stage.browser.get(f"{prefix}/", headers=headers)).status_code == 200
        (forward,) = stage.hub.forwards.list()
        assert (forward.node, forward.subject, forward.port) == ("web-1", "operator", port)
        assert forward.received_bytes > 3 * 100
        assert await acts(stage) == ["published.create", "forward.open"]
        (service,) = stage.hub.published.services.all()
        assert (service.requests, service.active) == (3, 0)
        monkeypatch.setattr(uses, "IDLE_S", 0.0)
        await stage.browser.get(f"{prefix}/", headers=headers)
        while stage.hub.forwards.list():
            await asyncio.sleep(0)
        monkeypatch.setattr(uses, "IDLE_S", 60.0)
        await stage.browser.get(f"{prefix}/", headers=headers)
    assert await acts(stage) == [
        "published.create", "forward.open", "forward.close", "forward.open",
    ]  # fmt: skip


async def test_a_closed_forward_ends_what_it_carries_and_the_entry(stage: Stage) -> None:
    async with serving(mirror) as port:
        prefix, headers, origin = await site_or_path(stage, port, "path")
        async with socket(stage, f"{prefix}/", headers, origin) as page:
            (forward,) = stage.hub.forwards.list()
            assert (forward.kind, forward.name, forward.connections) == ("published", "app", 1)
            await stage.hub.forwards.close(stage.subject, forward.id)
            with pytest.raises(ConnectionClosed):
                await page.recv()
        answer = await stage.browser.get(f"{prefix}/", headers=headers)
    assert answer.status_code == 401


async def test_one_browser_has_so_many_requests_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "AT_ONCE", 1)
    async with serving(mirror) as port:
        prefix, headers, origin = await site_or_path(stage, port, "path")
        async with socket(stage, f"{prefix}/", headers, origin):
            answer = await stage.browser.get(f"{prefix}/", headers=headers)
            assert (answer.status_code, "close some pages" in answer.text) == (503, True)
        (service,) = stage.hub.published.services.all()
        async with asyncio.timeout(10):
            while service.active:
                await asyncio.sleep(0)
        assert (await stage.browser.get(f"{prefix}/", headers=headers)).status_code == 200


async def test_a_withdrawn_service_cuts_who_uses_it(stage: Stage) -> None:
    async with serving(mirror) as port:
        prefix, headers, origin = await site_or_path(stage, port, "path")
        async with socket(stage, f"{prefix}/", headers, origin) as page:
            await stage.hub.published.services.withdraw(stage.subject, "app")
            with pytest.raises(ConnectionClosed):
                await page.recv()
        answer = await stage.browser.get(f"{prefix}/", headers=headers)
    assert answer.status_code == 404


async def test_one_request_stays_one(stage: Stage) -> None:
    """What is written into a request's body or head never becomes a second one."""
    asked: list[bytes] = []

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(28))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nmore")
        await reader.read()
        writer.close()

    async with listening(collect) as port:
        prefix, headers, _ = await site_or_path(stage, port, "path")
        hidden = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = await stage.browser.post(f"{prefix}/", headers=headers, content=hidden)
    assert answer.content == b"ok", "what follows the answer is nobody's"
    assert len(asked) == 1 and asked[0].endswith(hidden)
    assert b"content-length: 28\r\n" in asked[0] and b"connection: close\r\n" in asked[0]


async def test_a_chunked_request_with_a_length_is_not_passed(stage: Stage) -> None:
    async with serving(mirror) as port, asyncio.timeout(20):
        prefix, _, _ = await site_or_path(stage, port, "path")
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        head = f"POST {prefix}/ HTTP/1.1\r\nHost: {HUB}\r\nContent-Length: 5\r\n"
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
    (service,) = stage.hub.published.services.all()
    assert service.requests == 0
