from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mooring.sdk import reverse, waits
from mooring.sdk.reverse import Reverse
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel
from protocol.messages import ClientArrival, ClientListen, Message, Open
from protocol.record_types import Listening
from tests.mooring.memory import memory_link


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long between attempts."""
    monkeypatch.setattr(waits, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(waits, "LONGEST_WAIT_S", 0.002)


@dataclass
class Hub:
    """The other side: answers one `ClientListen` after the other as the test says."""

    asked: asyncio.Queue[ClientListen] = field(default_factory=asyncio.Queue)
    answers: asyncio.Queue[int | ResetCode] = field(default_factory=asyncio.Queue)
    ends: asyncio.Queue[ResetCode] = field(default_factory=asyncio.Queue)

    async def serve(self, message: Open, stream: Stream) -> None:
        assert isinstance(message, ClientListen)
        self.asked.put_nowait(message)
        answer = await self.answers.get()
        if isinstance(answer, ResetCode):
            stream.reset(answer, "not now")
            return
        await Channel[Listening, Message](stream, Message).send(Listening(port=answer))
        stream.reset(await self.ends.get(), "no more")


@dataclass
class Kept:
    """A `Reverse` that runs towards `hub`."""

    hub: Hub
    tunnel: Tunnel
    outcome: asyncio.Task[StreamReset]
    opened: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    failures: list[Exception] = field(default_factory=list)

    async def is_open(self, port: int) -> str:
        """Wait until the port is said to be open; returns the listener's name."""
        async with asyncio.timeout(10):
            asked = await self.hub.asked.get()
            assert await self.opened.get() == port
        return asked.listener


@asynccontextmanager
async def kept(*answers: int | ResetCode, target: int = 1, port: int = 0) -> AsyncIterator[Kept]:
    hub = Hub()
    for answer in answers:
        hub.answers.put_nowait(answer)
    async with memory_link(hub.serve) as (link, tunnel), asyncio.TaskGroup() as tasks:

        async def run() -> StreamReset:
            made = Reverse(
                link, "web-1", "127.0.0.1", target, lambda _, error: one.failures.append(error)
            )
            try:
                await made.run("127.0.0.1", port, one.opened.put_nowait)
            except StreamReset as error:
                return error

        one = Kept(hub, tunnel, tasks.create_task(run()))
        yield one
        one.outcome.cancel()
        hub.ends.put_nowait(ResetCode.CANCELLED)


@asynccontextmanager
async def echo_here() -> AsyncIterator[int]:
    """A server on this machine that answers when its client has finished."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(-1))
        writer.write_eof()
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_connections_to_the_nodes_port_come_out_here_and_a_half_close_arrives() -> None:
    async with echo_here() as target, kept(4000, target=target) as one:
        listener = await one.is_open(4000)
        stream = await one.tunnel.open(ClientArrival(listener=listener, peer="10.0.0.9:1"))
        payload = bytes(range(256)) * 512
        await stream.write(payload)
        stream.finish()
        received = b""
        while data := await stream.read():
            received += data
        assert received == payload
        assert one.failures == []


async def test_a_place_here_that_does_not_answer_is_said_at_both_ends() -> None:
    async with echo_here() as closed:
        pass
    async with kept(4000, target=closed) as one:
        listener = await one.is_open(4000)
        stream = await one.tunnel.open(ClientArrival(listener=listener, peer="10.0.0.9:1"))
        with pytest.raises(StreamReset, match="refused") as reset:
            await stream.read()
        assert reset.value.code is ResetCode.UNREACHABLE
        assert len(one.failures) == 1


async def test_a_port_that_is_lost_is_asked_for_again_the_same_one() -> None:
    away = (ResetCode.UNREACHABLE, ResetCode.TIMEOUT, ResetCode.OVERLOADED)
    async with kept(4000, *away, 4000) as one:
        await one.is_open(4000)
        one.hub.ends.put_nowait(ResetCode.UNREACHABLE)
        ports = [(await one.hub.asked.get()).port for _ in away]
        await one.is_open(4000)
        assert ports == [4000] * len(away)


async def test_a_hub_that_answers_with_something_else_is_asked_again() -> None:
    async with kept(4000) as one:
        await one.is_open(4000)
        one.hub.ends.put_nowait(ResetCode.UNREACHABLE)
        one.hub.answers.put_nowait(0)  # no port: a violation of the record
        assert (await one.hub.asked.get()).port == 4000
        one.hub.ends.put_nowait(ResetCode.INTERNAL)
        one.hub.answers.put_nowait(4000)
        await one.is_open(4000)


@pytest.mark.parametrize("code", sorted(reverse.FOR_GOOD))
async def test_a_port_that_somebody_closed_is_given_up(code: ResetCode) -> None:
    async with kept(4000) as one:
        await one.is_open(4000)
        one.hub.ends.put_nowait(code)
        assert str(await one.outcome) == "no more"


@pytest.mark.parametrize("code", [ResetCode.UNREACHABLE, ResetCode.REFUSED])
async def test_a_port_that_can_not_be_opened_at_first_is_an_error(code: ResetCode) -> None:
    async with kept(code, port=80) as one:
        assert str(await one.outcome) == "not now"
    assert one.opened.empty()


async def test_connections_beyond_the_limit_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse, "MAX_CONNECTIONS", 1)
    async with echo_here() as target, kept(4000, target=target) as one:
        listener = await one.is_open(4000)
        first = await one.tunnel.open(ClientArrival(listener=listener))
        second = await one.tunnel.open(ClientArrival(listener=listener))
        for stream in (second, first):
            await stream.write(b"x")
        second.finish()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await second.read()
        first.finish()
        assert (await first.read(), await second.read()) == (b"x", b"x")
