"""The shell under peers that stall: deadlines, what is held, and who gives way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from protocol import frames, messages, record_types
from protocol.aio import (
    Channel,
    Handler,
    ResetCode,
    Stream,
    StreamReset,
    Tunnel,
    TunnelClosed,
    memory_pair,
)
from protocol.aio import tunnel as tunnel_module
from protocol.aio.memory import join
from protocol.counts import Counts, Death
from protocol.errors import LocalProtocolError, ProtocolError
from protocol.frames import Bytes, Hello
from protocol.guard import Limits
from protocol.session import Side
from protocol.windows import INITIAL_WINDOW, Budget

REPORT = messages.Report(facts=messages.Facts(hostname="web-1"))
FORWARD = messages.Forward(host="localhost", port=80)


def has_seen(tunnel: Tunnel, stream: Stream) -> bool:
    return tunnel._session._streams.highest_peer_id >= stream.id


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0)


def overdue(tunnel: Tunnel) -> None:
    """Let the tunnel look at its clocks now."""
    tunnel._tick()


async def test_who_half_closes_all_its_streams_and_stays_loses_them() -> None:
    async def answer(_: messages.Open, stream: Stream) -> None:
        await stream.write(b"done")

    async with memory_pair(None, answer) as (dialled, accepted):
        streams = [await dialled.open(REPORT) for _ in range(256)]
        for stream in streams:
            assert await stream.read() == b"done"
            assert await stream.read() == b""
            await stream.write(bytes(INITIAL_WINDOW))  # never FIN
        await until(lambda: accepted.stream_count == 256 and not accepted._serving.tasks)
        assert accepted.holding.held == 0
        for served in accepted._streams.values():
            assert served.due is not None
            served.due = 0.0
        overdue(accepted)
        assert accepted.stream_count == 0
        await until(lambda: dialled.stream_count == 0)
        with pytest.raises(StreamReset) as caught:
            await streams[0].write(b"x")
        assert caught.value.code is ResetCode.TIMEOUT


async def test_a_record_that_never_ends_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.aio.channel.HALF_DONE_S", 0.0)

    async def receive(_: messages.Open, stream: Stream) -> None:
        await Channel[messages.Message, record_types.MetricsFromAgent](
            stream, record_types.MetricsFromAgent
        ).receive()

    async with memory_pair(None, receive) as (dialled, accepted):
        stream = await dialled.open(messages.Metrics())
        await stream.write(b"\x00\x03\xff\xff" + bytes(100))
        await until(lambda: any(s.due is not None for s in accepted._streams.values()))
        overdue(accepted)
        with pytest.raises(StreamReset) as caught:
            await stream.read()
        assert caught.value.code is ResetCode.TIMEOUT


async def test_a_record_that_waits_for_us_is_not_hurried() -> None:
    received = asyncio.Event()

    async def slow(_: messages.Open, stream: Stream) -> None:
        channel = Channel[record_types.Screen, record_types.Input](stream, record_types.Input)
        await channel.receive()
        received.set()
        await asyncio.Event().wait()

    async with memory_pair(slow) as (dialled, accepted):
        stream = await accepted.open(messages.Pty(session="s"))
        whole = record_types.Input(data=b"x")
        await Channel[record_types.Input, record_types.Screen](stream, record_types.Screen).send(
            whole
        )
        await stream.write(b"\x00\x00")  # the next one has begun
        await received.wait()
        assert [served.due for served in dialled._streams.values()] == [None]
        stream.reset(ResetCode.CANCELLED)
        for task in dialled._serving.tasks:
            task.cancel()


async def test_handlers_of_streams_that_are_gone_are_bounded() -> None:
    release = asyncio.Event()

    async def stuck(_: messages.Open, stream: Stream) -> None:
        await release.wait()

    limits = Limits(max_streams=4, opens_burst=1000)
    async with memory_pair(None, stuck, limits=limits) as (dialled, accepted):
        codes = []
        for _ in range(20):
            stream = await dialled.open(REPORT)
            stream.reset(ResetCode.CANCELLED)
            await until(partial(has_seen, accepted, stream))
            await until(lambda: accepted.stream_count == 0)
            codes.append(len(accepted._serving.tasks))
        assert max(codes) == 8
        release.set()


async def test_the_stream_that_holds_most_gives_way_and_an_echo_goes_on() -> None:
    budget, counts, release = Budget(4 * INITIAL_WINDOW), Counts(), asyncio.Event()

    async def serve(opened: messages.Open, stream: Stream) -> None:
        assert isinstance(opened, messages.Forward)
        if opened.port == 1:
            await release.wait()
        while data := await stream.read():
            await stream.write(data)

    async with joined(serve, budget, counts) as good, joined(serve, budget, counts) as bad:
        echo = await good.open(FORWARD)
        stalled = [await bad.open(messages.Forward(host="h", port=1)) for _ in range(16)]
        for stream in stalled:
            await stream.write(bytes(INITIAL_WINDOW))
            await echo.write(b"still")
            assert await echo.read() == b"still"
        await until(lambda: counts.sheds >= 11)
        assert budget.holdings.held <= budget.limit
        assert counts.resets_sent[ResetCode.OVERLOADED] == counts.sheds
        release.set()


async def test_what_waited_on_a_stream_that_we_reset_is_no_longer_held() -> None:
    async def source(_: messages.Open, stream: Stream) -> None:
        await stream.write(bytes(INITIAL_WINDOW))

    async with memory_pair(source) as (_, accepted):
        stream = await accepted.open(FORWARD)
        await until(lambda: accepted.holding.held == INITIAL_WINDOW)
        stream.reset(ResetCode.CANCELLED)
        assert (accepted.holding.held, stream.held) == (0, 0)


@pytest.mark.parametrize("passed_on", [0, 1000, INITIAL_WINDOW])
async def test_only_what_a_sink_does_not_pass_on_at_once_is_held(passed_on: int) -> None:
    class Passing:
        def __init__(self, stream: Stream) -> None:
            self.stream = stream
            self.size = 0

        def received(self, data: Bytes) -> None:
            self.size += len(data)
            self.stream.consumed(min(len(data), passed_on))

        def finished(self) -> None: ...

        def drained(self, pending: int) -> None: ...

        def failed(self, error: ProtocolError) -> None: ...

    async def source(_: messages.Open, stream: Stream) -> None:
        await stream.write(bytes(INITIAL_WINDOW))

    async with memory_pair(source) as (_, accepted):
        stream = await accepted.open(FORWARD)
        sink = Passing(stream)
        stream.pipe(sink)
        await until(lambda: sink.size == INITIAL_WINDOW)
        left = INITIAL_WINDOW - passed_on
        assert (accepted.holding.held, stream.held) == (left, left)
        stream.reset(ResetCode.CANCELLED)
        assert (accepted.holding.held, stream.held) == (0, 0)


async def test_what_waits_on_a_stream_that_nobody_refers_to_is_no_longer_held() -> None:
    async def source(_: messages.Open, stream: Stream) -> None:
        await stream.write(bytes(INITIAL_WINDOW))

    async with memory_pair(source) as (_, accepted):
        stream = await accepted.open(FORWARD)
        stream.finish()
        await until(lambda: accepted.stream_count == 0)
        assert accepted.holding.held == INITIAL_WINDOW
        del stream
        assert accepted.holding.held == 0


class joined:  # reads as the context manager it is
    """A tunnel whose accepting end serves with the budget and the counts given."""

    def __init__(self, handler: Handler, budget: Budget, counts: Counts | None = None) -> None:
        self.dialled = Tunnel(Side.DIALLED, Hello())
        self.accepted = Tunnel(
            Side.ACCEPTED,
            Hello(),
            handler,
            accepts=messages.HubOpen,
            budget=budget,
            counts=counts,
        )
        self.tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Tunnel:
        await self.tasks.__aenter__()
        for tunnel in (self.dialled, self.accepted):
            self.tasks.create_task(tunnel.run())
        join(self.dialled, self.accepted)
        await self.dialled.ready()
        return self.dialled

    async def __aexit__(self, *failure: object) -> None:
        await self.dialled.close()
        await self.accepted.close()
        await self.tasks.__aexit__(None, None, None)


class Clogged:
    """A transport whose peer takes nothing, though it may send."""

    def __init__(self) -> None:
        self.waiting = 0
        self.ends: list[str] = []

    def send(self, message: bytes | bytearray) -> None:
        self.waiting += len(message)

    def buffered(self) -> int:
        return self.waiting

    def close(self) -> None:
        self.ends.append("close")

    def abort(self) -> None:
        self.ends.append("abort")


def clogged(counts: Counts | None = None) -> tuple[Tunnel, Clogged]:
    """A tunnel after HELLO whose peer takes nothing, and allows many streams."""
    transport = Clogged()
    tunnel = Tunnel(Side.ACCEPTED, Hello(), counts=counts)
    tunnel.attach(transport)
    tunnel.received(frames.hello(Hello(max_streams=65_536)))
    return tunnel, transport


class TestUnread:  # SPEC §4.6
    async def test_a_peer_that_takes_nothing_is_cut_though_it_sends(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counts = Counts()
        tunnel, transport = clogged(counts)
        overdue(tunnel)
        tunnel.received(frames.ping(bytes(8)))
        overdue(tunnel)
        assert not tunnel.closed
        monkeypatch.setattr(tunnel_module, "UNREAD_TIMEOUT_S", 0.0)
        overdue(tunnel)
        assert str(await tunnel.wait_closed()).startswith("the peer read nothing for")
        assert transport.ends == ["abort"]
        assert counts.deaths == {Death.UNREAD: 1}

    async def test_a_peer_that_takes_something_is_not(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnel_module, "UNREAD_TIMEOUT_S", 0.0)
        tunnel, transport = clogged()
        for _ in range(10):
            overdue(tunnel)
            transport.waiting -= 1
        assert not tunnel.closed
        await tunnel.close()

    async def test_what_waits_for_it_is_bounded(self) -> None:
        tunnel, transport = clogged()
        with pytest.raises(LocalProtocolError, match="does not read"):
            for _ in range(10_000):
                await tunnel.open(FORWARD)
        assert transport.waiting < tunnel_module.TRANSPORT_HIGH + frames.MAX_FRAME
        await tunnel.close()

    async def test_a_violation_by_a_peer_that_reads_nothing_leaves_no_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnel_module, "CLOSE_TIMEOUT_S", 0.0)
        tunnel, transport = clogged()
        tunnel.received(b"\xff" * 40)
        assert isinstance(await tunnel.wait_closed(), TunnelClosed)
        await until(lambda: transport.ends == ["close", "abort"])
