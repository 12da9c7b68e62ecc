from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import typer

from mooring.cli.forward import Spec, parse
from mooring.sdk.forwarding import join
from protocol.aio import ResetCode, Stream, StreamReset, memory_pair
from protocol.messages import ClientForward, ClientOpen, Open


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


OPEN = ClientForward(node="n", host="h", port=1)


@asynccontextmanager
async def joined(
    handler: object,
) -> AsyncIterator[
    tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.Future[BaseException | None]]
]:
    """A local connection that is joined to a stream served by `handler`."""
    outcome: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    async with memory_pair(accepted_handler=handler, accepted_accepts=ClientOpen) as (tunnel, _):  # type: ignore[arg-type]

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with await tunnel.open(OPEN) as stream:
                    await join(reader, writer, stream)
                outcome.set_result(None)
            except Exception as error:
                outcome.set_result(error)
            finally:
                writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                yield reader, writer, outcome
            finally:
                writer.close()
                await outcome


async def echo(_message: Open, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


async def test_bytes_go_both_ways_and_a_half_close_arrives() -> None:
    payload = bytes(range(256)) * 8192
    async with joined(echo) as (reader, writer, outcome), asyncio.TaskGroup() as tasks:
        received = tasks.create_task(reader.read(-1))
        writer.write(payload)
        writer.write_eof()
        assert await received == payload
        assert await outcome is None


async def test_a_refusal_ends_the_local_connection() -> None:
    async def refuse(_message: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "the policy says no")

    async with joined(refuse) as (reader, _writer, outcome):
        assert await reader.read() == b""
        error = await outcome
    assert isinstance(error, StreamReset)
    assert str(error) == "the policy says no"
