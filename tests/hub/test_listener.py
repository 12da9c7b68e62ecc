"""The one port: routing by ALPN over real sockets, and connections that are not what they seem."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from certs.authority import Authority
from certs.servers import Role, keep_current
from hub import admission
from hub import listener as module
from hub.admission import Lane
from hub.listener import Listener, Route, bind, plain_answer
from hub.tls import Faces, make_faces


class Greeter(asyncio.Protocol):
    def __init__(self, greeting: bytes) -> None:
        self.greeting = greeting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        writable = cast(asyncio.Transport, transport)  # aiofastnet's is one in all but name
        writable.write(self.greeting)
        writable.close()


@pytest.fixture
def faces(tmp_path: Path) -> Faces:
    now = time.time()
    authority = Authority.open(tmp_path / "ca", now)
    mesh, _ = keep_current(tmp_path, Role.HUB, authority, ["localhost"], now)
    pages, _ = keep_current(tmp_path, Role.PAGES, authority, ["localhost"], now)
    return make_faces(mesh, pages, authority.trust_pem)


@asynccontextmanager
async def serving(
    faces: Faces, errors: list[str], tunnels: Lane | None = None
) -> AsyncIterator[int]:
    people = Lane()
    routes = {
        b"mooring/1": Route(
            faces.tunnel,
            lambda: Greeter(b"tunnel"),
            tunnels or Lane(),
            fast=True,
            on_tls_error=lambda address, error: errors.append(f"{address} {error.reason}"),
        ),
        b"mooring-join/1": Route(faces.join, lambda: Greeter(b"join"), Lane()),
        b"mooring-client/1": Route(faces.client, lambda: Greeter(b"client"), people, fast=True),
    }
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    server = Listener(routes, Route(faces.pages, lambda: Greeter(b"pages"), people))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets))
        yield port
        serving.cancel()


async def greeting(port: int, alpn: list[str]) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(alpn)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("alpn", "part"),
    [
        (["mooring-join/1"], b"join"),
        (["mooring-client/1"], b"client"),
        (["h2", "http/1.1"], b"pages"),
        (["something/9"], b"pages"),
        ([], b"pages"),
    ],
)
async def test_alpn_chooses_the_part(faces: Faces, alpn: list[str], part: bytes) -> None:
    async with serving(faces, []) as port:
        if alpn == ["something/9"]:  # nothing in common: the handshake itself may say so
            try:
                assert await greeting(port, alpn) == part
            except ssl.SSLError as error:
                assert "NO_APPLICATION_PROTOCOL" in str(error)
        else:
            assert await greeting(port, alpn) == part


async def test_a_tunnel_without_a_certificate_is_refused_and_named(faces: Faces) -> None:
    errors: list[str] = []
    async with serving(faces, errors) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert await greeting(port, ["mooring/1"]) == b""
            raise ConnectionError
    assert errors == ["127.0.0.1 PEER_DID_NOT_RETURN_A_CERTIFICATE"]


async def test_plain_http_is_redirected(faces: Faces) -> None:
    async with serving(faces, []) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /nodes?a=1 HTTP/1.1\r\nHost: hub.example:8443\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"Location: https://hub.example:8443/nodes?a=1\r\n" in answer


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"SSH-2.0-OpenSSH\r\n", b"\xff\xfe"])
async def test_binary_garbage_is_closed_at_once(faces: Faces, garbage: bytes) -> None:
    async with serving(faces, []) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(garbage)
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_a_silent_connection_is_dropped_after_the_deadline(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_TIMEOUT_S", 0.2)
    async with serving(faces, []) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01")  # the beginning of a hello, and then nothing
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_silent_connections_do_not_keep_others_out(faces: Faces) -> None:
    async with serving(faces, []) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        try:
            assert await greeting(port, ["http/1.1"]) == b"pages"
        finally:
            for connection in silent:
                connection.close()


def hello(alpn: str) -> bytes:
    """A ClientHello, for somebody who says nothing more."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([alpn])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


async def test_agents_in_line_do_not_delay_people_and_past_its_end_are_closed_at_once(
    faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "IN_LINE", 6)  # three for one address
    lane = Lane(in_flight=1)
    async with serving(faces, [], lane) as port:
        stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for _, writer in stalled:
            writer.write(hello("mooring/1"))
        async with asyncio.timeout(5):
            while not lane.turned_away.value:
                await asyncio.sleep(0.01)
        assert (lane.waiting, lane.admitted.value, lane.turned_away.value) == (3, 1, 1)
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in stalled]  # noqa: TID251
        done, _ = await asyncio.wait(ends, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert await greeting(port, ["http/1.1"]) == b"pages"
        assert await greeting(port, ["mooring-join/1"]) == b"join"
        for end in ends:
            end.cancel()
        await asyncio.wait(ends)
        for _, writer in stalled:
            writer.close()


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil\r\nX: y\x00\r\n\r\n"[:20],
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST",
    ],
)
def test_requests_that_name_no_clean_host_get_a_clear_400(request_head: bytes) -> None:
    answer = plain_answer(request_head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"use https://" in answer


def test_a_taken_port_is_an_error() -> None:
    (first,) = bind("127.0.0.1", 0)
    with first, pytest.raises(OSError, match="in use"):
        bind("127.0.0.1", first.getsockname()[1])
