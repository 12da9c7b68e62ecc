"""Peers that break the rules: what they get for it, what it may cost us, and that it is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from protocol import frames, messages
from protocol.aio import ResetCode
from protocol.counts import Counts, Death, Flood, Refusal
from protocol.errors import GoAwayCode, LocalProtocolError, RemoteProtocolError
from protocol.events import DataReceived, StreamOpened
from protocol.frames import Class, Hello
from protocol.guard import MAX_PINGS, MAX_STRAY_FRAMES, MAX_WINDOWS, Limits
from protocol.holdings import SPARE_BYTES, TUNNEL_HELD, Holding, Holdings
from protocol.session import MAX_CONTROL_FRAMES, Session, Side
from protocol.windows import INITIAL_WINDOW, Budget
from tests.protocol.conftest import Pair, violation

REPORT = messages.Report(facts=messages.Facts(hostname="web-1"))
REPORT_OPEN = frames._ENCODER.encode(REPORT)
FORWARD = messages.Forward(host="localhost", port=80)


def opens(count: int, first: int = 1) -> Iterator[bytes | bytearray]:
    for number in range(count):
        yield frames.open_stream(first + 2 * number, Class.CALL, REPORT_OPEN)


def flood(pair: Pair, hostile: Iterator[bytes | bytearray]) -> RemoteProtocolError:
    """Send to the hub, taking its answers, until it has had enough."""
    with pytest.raises(RemoteProtocolError) as caught:  # where it ends is the point
        for message in hostile:
            pair.hub.receive(message, pair.now)
            pair.hub.events()
            while pair.hub.next_frame() is not None:
                pass
    return caught.value


def forever(message: bytes | bytearray) -> Iterator[bytes | bytearray]:
    while True:
        yield message


class TestOpens:  # SPEC §4.2
    def test_beyond_the_limit_each_is_refused_and_a_flood_ends_it(self, pair: Pair) -> None:
        error = flood(pair, opens(10_000))
        assert error.code is GoAwayCode.FLOOD
        assert pair.hub.stream_count == 256
        assert pair.counts.opens_refused == {Refusal.TOO_MANY: MAX_STRAY_FRAMES + 1}
        assert pair.counts.resets_sent[ResetCode.OVERLOADED] == MAX_STRAY_FRAMES
        assert pair.counts.floods == {Flood.STRAYS: 1}

    def test_opened_and_reset_at_once_is_held_to_the_rate(self, pair: Pair) -> None:
        def rapid() -> Iterator[bytes | bytearray]:
            for number in range(10_000):
                yield frames.open_stream(1 + 2 * number, Class.CALL, REPORT_OPEN)
                yield frames.reset(1 + 2 * number, ResetCode.CANCELLED)

        assert flood(pair, rapid()).code is GoAwayCode.FLOOD
        assert pair.counts.resets_received[ResetCode.CANCELLED] == 256
        assert pair.counts.opens_refused[Refusal.TOO_FAST] > 0

    def test_what_cannot_be_read_is_refused_by_its_reason(self, pair: Pair) -> None:
        for stream, payload in ((1, b"\x81\xa1k\xa4nope"), (3, b"\xc1")):
            pair.hub.receive(frames.open_stream(stream, 1, payload), pair.now)
        assert pair.counts.opens_refused == {Refusal.UNKNOWN_KIND: 1, Refusal.MALFORMED: 1}

    def test_after_goaway_none_is_taken(self, pair: Pair) -> None:
        pair.hub.go_away(GoAwayCode.SHUTDOWN)
        pair.hub.receive(next(opens(1)), pair.now)
        assert pair.counts.opens_refused == {Refusal.CLOSING: 1}
        assert pair.counts.goaways_sent == {GoAwayCode.SHUTDOWN: 1}

    def test_we_open_nothing_for_a_peer_that_leaves_our_frames_lying(self) -> None:
        hub = Session(Side.ACCEPTED, Hello(), 0.0)
        hub.receive(frames.hello(Hello(max_streams=65_536)), 0.0)
        with pytest.raises(LocalProtocolError, match="does not read"):
            for _ in range(MAX_CONTROL_FRAMES + 1):
                hub.open(FORWARD)
        assert hub.stream_count < MAX_CONTROL_FRAMES


class TestFloods:  # SPEC §4.3, §4.4, §4.6
    def test_pings(self, pair: Pair) -> None:
        assert flood(pair, forever(frames.ping(bytes(8)))).code is GoAwayCode.FLOOD
        assert pair.counts.floods == {Flood.PINGS: 1}

    def test_pongs_that_nobody_asked_for(self, pair: Pair) -> None:
        assert flood(pair, forever(frames.pong(b"\x7f" * 8))).code is GoAwayCode.FLOOD
        assert pair.counts.floods == {Flood.STRAYS: 1}

    def test_empty_data(self, pair: Pair) -> None:
        stream = pair.agent.open(REPORT)
        pair.settle()
        empty = frames.data(stream, Class.CALL, b"")
        assert flood(pair, forever(empty)).code is GoAwayCode.FLOOD

    def test_resets_of_what_is_closed(self, pair: Pair) -> None:
        stream = pair.agent.open(REPORT)
        pair.settle()
        reset = frames.reset(stream, ResetCode.CANCELLED, "again" * 100)
        assert flood(pair, forever(reset)).code is GoAwayCode.FLOOD
        assert pair.counts.resets_received == {ResetCode.CANCELLED: 1}

    def test_credit_in_crumbs(self, pair: Pair) -> None:
        stream = pair.hub.open(FORWARD)
        pair.settle()
        crumbs = islice(forever(frames.window(stream, 1)), MAX_WINDOWS + 2)
        assert flood(pair, crumbs).code is GoAwayCode.FLOOD
        assert pair.counts.floods == {Flood.WINDOWS: 1}

    def test_credit_on_closed_streams(self, pair: Pair) -> None:
        stream = pair.agent.open(REPORT)
        pair.settle()
        pair.hub.reset(stream, ResetCode.REFUSED)
        assert flood(pair, forever(frames.window(stream, 1))).code is GoAwayCode.FLOOD

    def test_credit_for_what_we_send_is_no_flood(self, pair: Pair) -> None:
        stream = pair.hub.open(FORWARD)
        pair.settle()
        piece = 4096
        for _ in range(3 * MAX_WINDOWS):
            pair.hub.send(stream, bytes(piece))
            assert pair.hub.next_frame() is not None
            pair.hub.receive(frames.window(stream, piece), pair.now)
        assert not pair.counts.floods

    def test_what_crosses_our_own_resets_is_no_flood(self, make_pair: Callable[..., Pair]) -> None:
        pair = make_pair(Limits(opens_per_s=1e6))
        for _ in range(MAX_STRAY_FRAMES):
            stream = pair.hub.open(FORWARD)
            pair.hub.reset(stream, ResetCode.CANCELLED)
            while pair.hub.next_frame() is not None:
                pass
            for _ in range(3):
                pair.hub.receive(frames.data(stream, Class.FORWARD, b"crossed"), pair.now)
        assert not pair.counts.floods

    def test_what_comes_slowly_enough_is_no_flood(self, pair: Pair) -> None:
        for _ in range(4):
            for _ in range(MAX_PINGS):
                pair.hub.receive(frames.ping(bytes(8)), pair.now)
                pair.hub.next_frame()
            pair.now += 10.1
        assert not pair.counts.floods

    def test_the_carriers_own_pings(self, pair: Pair) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            for _ in range(MAX_STRAY_FRAMES + 1):
                pair.hub.noise(pair.now)
        assert caught.value.code is GoAwayCode.FLOOD

    def test_answers_that_are_not_read(self, pair: Pair) -> None:
        with pytest.raises(RemoteProtocolError, match="1024 control frames"):
            for message in opens(5000):
                pair.hub.receive(message, pair.now)
        assert pair.counts.floods == {Flood.UNREAD: 1}
        sent = []
        while (chosen := pair.hub.next_frame()) is not None:
            sent.append(chosen[1])
        assert sum(map(len, sent)) < 64 * 1024
        assert sent[-1][0] == frames.Type.GOAWAY


class TestCredit:  # SPEC §5.1
    def test_overruns_are_counted_and_the_second_ends_the_session(self, pair: Pair) -> None:
        first, second = pair.agent.open(REPORT), pair.agent.open(REPORT)
        pair.settle()
        for stream in (first, second):
            pair.hub.receive(frames.data(stream, 1, bytes(INITIAL_WINDOW)), pair.now)
        pair.hub.receive(frames.data(first, 1, b"x"), pair.now)
        assert violation(pair.hub, frames.data(second, 1, b"x")).code is GoAwayCode.FLOW_CONTROL
        assert pair.counts.overruns == 2
        assert pair.counts.violations == {GoAwayCode.FLOW_CONTROL: 1}
        assert pair.counts.resets_sent == {ResetCode.FLOW_CONTROL: 1}

    def test_the_largest_frames_cost_no_more_than_the_windows(self, pair: Pair) -> None:
        received = 0
        with pytest.raises(RemoteProtocolError):  # where it ends is the point
            for number, message in enumerate(opens(256)):
                pair.hub.receive(message, pair.now)
                for _ in range(2):
                    full = frames.data(1 + 2 * number, 1, bytes(frames.MAX_PAYLOAD))
                    pair.hub.receive(full, pair.now)
        for event in pair.hub.events():
            received += len(event.data) if isinstance(event, DataReceived) else 0
        assert received == 2 * INITIAL_WINDOW

    def test_a_stall_is_counted_when_it_is_over(self, pair: Pair) -> None:
        stream = pair.hub.open(messages.Exec(run="r", argv=["true"]))
        pair.settle()
        pair.hub.send(stream, bytes(INITIAL_WINDOW + 1))
        pair.settle()
        assert (pair.counts.streams_stalled, pair.counts.credit_stalls) == (1, 0)
        pair.agent.consumed(stream, INITIAL_WINDOW, pair.now)
        pair.settle()
        assert (pair.counts.streams_stalled, pair.counts.credit_stalls) == (0, 1)

    def test_the_end_of_a_session_gives_its_budget_back(self) -> None:
        budget, counts = Budget(1 << 30), Counts()
        session = Session(Side.ACCEPTED, Hello(), 0.0, budget=budget, counts=counts)
        session.receive(frames.hello(Hello()), 0.0)
        session.open(FORWARD)
        assert budget.used > 0
        assert (counts.sessions, counts.streams_open) == (1, 1)
        received = counts.bytes_received
        session.end()
        session.end()
        assert budget.used == 0
        assert (counts.sessions, counts.streams_open) == (0, 0)
        assert counts.bytes_received == received > 0


class TestDeadlines:  # SPEC §4.1, §4.6
    def test_who_says_nothing_and_who_falls_silent_is_counted(self, pair: Pair) -> None:
        counts = Counts()
        silent = Session(Side.ACCEPTED, Hello(), 0.0, counts=counts)
        silent.tick(10.0)
        pair.hub.tick(pair.now + 35)
        assert counts.deaths == {Death.NO_HELLO: 1}
        assert pair.counts.deaths == {Death.SILENT: 1}

    def test_garbage_after_hello_is_answered_by_goaway(self, pair: Pair) -> None:
        violation(pair.hub, b"\xff" * 40)
        chosen = pair.hub.next_frame()
        assert chosen is not None
        assert chosen[1][0] == frames.Type.GOAWAY
        assert pair.counts.violations == {GoAwayCode.PROTOCOL: 1}

    def test_a_stream_refused_is_no_event(self, pair: Pair) -> None:
        pair.hub.receive(frames.open_stream(1, 1, b"\xc1"), pair.now)
        assert not any(isinstance(event, StreamOpened) for event in pair.hub.events())


class TestHoldings:  # SPEC §5.2
    @staticmethod
    def tunnel(process: Holdings, sheds: list[str], name: str) -> Holding:
        holding = Holding(process)

        def shed() -> bool:
            if not holding.held:
                return False
            sheds.append(name)
            holding.remove(min(holding.held, INITIAL_WINDOW))
            return True

        holding.shed = shed
        return holding

    def test_the_tunnel_that_holds_most_gives_way(self) -> None:
        process, sheds = Holdings(4 * INITIAL_WINDOW), list[str]()
        greedy, modest = (self.tunnel(process, sheds, name) for name in ("greedy", "modest"))
        modest.add(INITIAL_WINDOW)
        for _ in range(10):
            greedy.add(INITIAL_WINDOW)
        assert set(sheds) == {"greedy"}
        assert modest.held == INITIAL_WINDOW
        assert process.held <= process.limit

    def test_a_full_process_still_serves_what_is_small(self) -> None:
        process, sheds = Holdings(INITIAL_WINDOW), list[str]()
        greedy, echo = (self.tunnel(process, sheds, name) for name in ("greedy", "echo"))
        greedy.add(INITIAL_WINDOW + SPARE_BYTES)
        assert process.crowded
        assert greedy.must_not_open
        echo.add(64)
        assert not echo.must_not_open
        assert sheds == []

    def test_everything_given_back_leaves_nothing(self) -> None:
        process, sheds = Holdings(1 << 30), list[str]()
        tunnel = self.tunnel(process, sheds, "t")
        for size in (1, SPARE_BYTES, 3, 100_000):
            tunnel.add(size)
        assert process.held == 100_004 - SPARE_BYTES + SPARE_BYTES
        for size in (100_000, 4, SPARE_BYTES):
            tunnel.remove(size)
        assert (tunnel.held, process.held) == (0, 0)
        assert not process._heavy

    def test_one_tunnel_alone_is_bounded_too(self) -> None:
        sheds: list[str] = []
        tunnel = self.tunnel(Holdings(1 << 40), sheds, "t")
        for _ in range(1000):
            tunnel.add(INITIAL_WINDOW)
        assert tunnel.held <= TUNNEL_HELD
        assert sheds

    def test_a_heavy_tunnel_may_not_open_while_the_process_is_crowded(
        self, make_pair: Callable[..., Pair]
    ) -> None:
        budget, counts = Budget(INITIAL_WINDOW), Counts()
        session = Session(
            Side.ACCEPTED, Hello(), 0.0, accepts=messages.AgentOpen, budget=budget, counts=counts
        )
        session.receive(frames.hello(Hello()), 0.0)
        session.holding.add(INITIAL_WINDOW + SPARE_BYTES)
        session.receive(next(opens(1)), 0.0)
        assert counts.opens_refused == {Refusal.OVERLOADED: 1}
        session.holding.remove(INITIAL_WINDOW)
        session.receive(next(opens(1, first=3)), 0.0)
        assert session.stream_ids == [3]
