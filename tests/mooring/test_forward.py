from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from mooring.sdk.forwarding import Forwarder
from protocol.aio import Handler, ResetCode, Stream
from protocol.messages import Open
from tests.mooring.memory import echo, memory_link


@asynccontextmanager
async def forwarding(handler: Handler) -> AsyncIterator[tuple[tuple[str, int], list[Exception]]]:
    """The address of a forward whose streams `handler` serves, and what failed."""
    failures: list[Exception] = []
    async with memory_link(handler) as (link, _):
        forwarder = Forwarder(link, "n", "h", 1, lambda _peer, error: failures.append(error))
        async with forwarder.listen("127.0.0.1", 0) as bound:
            yield bound[0], failures


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


async def test_a_port_that_is_taken_is_an_error_of_the_system() -> None:
    async with forwarding(echo) as (address, _), memory_link(echo) as (link, _):
        with pytest.raises(OSError, match="in use"):
            async with Forwarder(link, "n", "h", 1).listen(*address):
                raise AssertionError("listened twice")


async def test_what_the_listening_block_raises_comes_out_as_it_is() -> None:
    async with memory_link(echo) as (link, _):
        with pytest.raises(ZeroDivisionError):
            async with Forwarder(link, "n", "h", 1).listen("127.0.0.1", 0):
                raise ZeroDivisionError
