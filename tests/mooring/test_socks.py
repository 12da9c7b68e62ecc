from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from mooring.sdk import socks
from mooring.sdk.socks import SocksProxy
from mooring.sdk.socks5 import Reply, reply
from protocol.aio import Handler, ResetCode, Stream
from protocol.messages import CONFIRMED, ClientForward, Open
from tests.mooring.memory import echo, memory_link

GREETING, WELCOME = b"\x05\x01\x00", b"\x05\x00"
REQUEST = b"\x05\x01\x00\x03\x0bdb.internal\x15\x38"
SUCCEEDED = reply(Reply.SUCCEEDED)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The command runs on uvloop, programs that use the SDK often don't."""
    return ("asyncio", {"use_uvloop": request.param})


class Program:
    """What connects to the proxy, and what the proxy said of it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, failures: list[Exception]
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.failures = failures

    async def says(self, sent: bytes, answer: bytes) -> None:
        self.writer.write(sent)
        async with asyncio.timeout(10):
            assert await self.reader.readexactly(len(answer)) == answer

    async def is_left(self) -> None:
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await self.reader.read() == b""


@asynccontextmanager
async def program(handler: Handler) -> AsyncIterator[Program]:
    """A connection to a proxy whose streams `handler` serves."""
    failures: list[Exception] = []
    async with memory_link(handler) as (link, _):
        proxy = SocksProxy(link, "web-1", lambda _peer, error: failures.append(error))
        async with proxy.listen("127.0.0.1", 0) as (address,):
            reader, writer = await asyncio.open_connection(*address)
            try:
                yield Program(reader, writer, failures)
            finally:
                writer.close()


async def connected(message: Open, stream: Stream) -> None:
    await stream.write(CONFIRMED)
    await echo(message, stream)


async def test_a_program_reaches_the_place_that_it_names() -> None:
    opened: list[Open] = []

    async def handler(message: Open, stream: Stream) -> None:
        opened.append(message)
        await connected(message, stream)

    async with program(handler) as at:
        await at.says(GREETING, WELCOME)
        await at.says(REQUEST, SUCCEEDED)
        await at.says(b"hello", b"hello")
        at.writer.write_eof()
        await at.is_left()
    assert opened == [
        ClientForward(node="web-1", host="db.internal", port=5432, via="socks", confirm=True)
    ]
    assert at.failures == []


async def test_success_is_said_when_the_node_is_connected_and_not_before() -> None:
    reached, may_connect = asyncio.Event(), asyncio.Event()

    async def handler(message: Open, stream: Stream) -> None:
        reached.set()
        await may_connect.wait()
        await connected(message, stream)

    async with program(handler) as at:
        await at.says(GREETING + REQUEST, WELCOME)
        await reached.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await at.reader.readexactly(1)
        may_connect.set()
        await at.says(b"", SUCCEEDED)


async def test_what_is_sent_without_waiting_arrives_first() -> None:
    async with program(connected) as at:
        await at.says(GREETING + REQUEST + b"early ", WELCOME + SUCCEEDED + b"early ")
        await at.says(b"late", b"late")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (ResetCode.REFUSED, Reply.NOT_ALLOWED),
        (ResetCode.UNREACHABLE, Reply.HOST_UNREACHABLE),
        (ResetCode.NOT_FOUND, Reply.HOST_UNREACHABLE),
        (ResetCode.TIMEOUT, Reply.TTL_EXPIRED),
        (ResetCode.OVERLOADED, Reply.FAILED),
        (ResetCode.INTERNAL, Reply.FAILED),
    ],
)
async def test_why_it_can_not_be_reached_is_said_in_the_words_of_socks(
    code: ResetCode, said: Reply
) -> None:
    async def handler(_message: Open, stream: Stream) -> None:
        stream.reset(code, "no way")

    async with program(handler) as at:
        await at.says(GREETING + REQUEST, WELCOME + reply(said))
        await at.is_left()
    assert [str(error) for error in at.failures] == ["no way"]


async def test_a_node_that_answers_without_confirming_is_a_failure() -> None:
    async def odd(_message: Open, stream: Stream) -> None:
        await stream.write(b"HTTP/1.1 200 OK\r\n")

    async with program(odd) as at:
        await at.says(GREETING + REQUEST, WELCOME + reply(Reply.FAILED))
        await at.is_left()


async def test_a_node_that_stays_silent_has_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socks, "CONFIRM_S", 0.05)
    async with program(echo) as at:
        await at.says(GREETING + REQUEST, WELCOME + reply(Reply.TTL_EXPIRED))
        await at.is_left()


async def test_a_program_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socks, "HANDSHAKE_S", 0.05)
    async with program(connected) as at:
        await at.says(GREETING, WELCOME)
        await at.is_left()


async def test_a_program_that_speaks_something_else_is_closed_and_named() -> None:
    async with program(connected) as at:
        at.writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await at.is_left()
    assert [str(error) for error in at.failures] == ["the program does not speak SOCKS5"]


async def test_a_target_that_breaks_off_later_breaks_off_the_program() -> None:
    async def handler(_message: Open, stream: Stream) -> None:
        await stream.write(CONFIRMED)
        await stream.read()
        stream.reset(ResetCode.UNREACHABLE, "the target broke off")

    async with program(handler) as at:
        await at.says(GREETING + REQUEST, WELCOME + SUCCEEDED)
        at.writer.write(b"x")
        await at.is_left()
    assert [str(error) for error in at.failures] == ["the target broke off"]
