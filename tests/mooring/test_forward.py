from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
import typer

from mooring.cli.forward import Spec, parse
from mooring.sdk.forwarding import Forwarder, Link
from protocol.aio import Handler, ResetCode, Stream, Tunnel, memory_pair
from protocol.messages import ClientOpen, Open


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("8080:localhost:80", Spec("127.0.0.1", 8080, "localhost", 80)),
        ("0:10.0.0.7:5432", Spec("127.0.0.1", 0, "10.0.0.7", 5432)),
        ("0.0.0.0:8080:db:5432", Spec("0.0.0.0", 8080, "db", 5432)),
        ("[::1]:8080:[fe80::1]:22", Spec("::1", 8080, "fe80::1", 22)),
    ],
)
def test_a_forward_is_written_like_in_ssh(text: str, spec: Spec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize(
    "text", ["80", "80:web", "a:b:c", "80:web:0", "70000:web:80", "80:web:80:x", "::1:1:a:1"]
)
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse(text)


class MemoryLink:
    """A `Link` whose tunnel is up already."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    async def open(self, message: ClientOpen) -> Stream:
        return await self._tunnel.open(message)


@asynccontextmanager
async def forwarding(handler: Handler) -> AsyncIterator[tuple[tuple[str, int], list[Exception]]]:
    """The address of a forward whose streams `handler` serves, and what failed."""
    failures: list[Exception] = []
    async with memory_pair(accepted_handler=handler, accepted_accepts=ClientOpen) as (tunnel, _):
        link = cast(Link, MemoryLink(tunnel))
        forwarder = Forwarder(link, "n", "h", 1, lambda _peer, error: failures.append(error))
        async with forwarder.listen("127.0.0.1", 0) as bound:
            yield bound[0], failures


async def echo(_message: Open, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def test_bytes_go_both_ways_and_a_half_close_arrives() -> None:
    payload = bytes(range(256)) * 8192
    async with forwarding(echo) as (address, failures), asyncio.TaskGroup() as tasks:
        reader, writer = await asyncio.open_connection(*address)
        received = tasks.create_task(reader.read(-1))
        writer.write(payload)
        writer.write_eof()
        assert await received == payload
        writer.close()
    assert failures == []


async def test_a_refusal_ends_the_local_connection() -> None:
    async def refuse(_message: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "the policy says no")

    async with forwarding(refuse) as (address, failures):
        reader, writer = await asyncio.open_connection(*address)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert [str(error) for error in failures] == ["the policy says no"]


async def test_a_forward_that_ends_closes_its_connections() -> None:
    async with forwarding(echo) as (address, failures):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert failures == []


async def test_what_fails_inside_a_forward_comes_out_as_it_is() -> None:
    forwarder = Forwarder(cast(Link, None), "n", "h", 1)
    with pytest.raises(ZeroDivisionError):
        async with forwarder.listen("127.0.0.1", 0):
            raise ZeroDivisionError


async def test_an_address_that_is_taken_is_an_error_of_the_system() -> None:
    async with forwarding(echo) as ((_, port), _):
        forwarder = Forwarder(cast(Link, None), "n", "h", 1)
        with pytest.raises(OSError, match="in use"):
            async with forwarder.listen("127.0.0.1", port):
                pass
