"""The pages' server: who sends his request slowly or without an end is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from litestar import Litestar, Request, get, post

from hub import pages_server
from hub.api.guards import public
from hub.pages_server import serve_pages


@get("/", guards=[public()])
async def hello() -> str:
    return "hello"


@post("/", guards=[public()])
async def size(request: Request[Any, Any, Any]) -> int:
    return len(await request.body())


@get("/whoami", guards=[public()])
async def caller(request: Request[Any, Any, Any]) -> str:
    assert request.client is not None
    return request.client.host


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_server, "HEAD_S", 0.2)
    monkeypatch.setattr(pages_server, "BODY_PAUSE_S", 0.2)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    app = cast("Any", Litestar([hello, size, caller], openapi_config=None, logging_config=None))
    async with serve_pages(app) as protocol:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            server.close()


async def rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(5):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    ],
)
async def test_a_request_that_does_not_come_whole_is_let_go(begun: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(begun)
        assert b"200 OK" not in await rest(reader)


async def test_a_head_without_an_end_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_server, "HEAD_S", 60.0)
    async with connected() as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for number in range(40):
            writer.write(b"X-%d: " % number + b"x" * 4096 + b"\r\n")
        assert await rest(reader) == b""


async def test_requests_in_time_are_answered_on_one_connection() -> None:
    async with connected() as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab")
            writer.write(b"c")
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 201")
                assert await reader.readexactly(1) == b"3"


async def test_a_caller_does_not_choose_its_address() -> None:
    async with connected() as (reader, writer):
        forged = b"X-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n"
        writer.write(b"GET /whoami HTTP/1.1\r\nHost: a\r\n" + forged)
        assert (await rest(reader)).endswith(b"127.0.0.1")
