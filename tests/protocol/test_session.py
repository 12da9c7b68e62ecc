"""Transcripts: what one side does, what the other sees. Sections of SPEC name the classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from protocol import frames, messages
from protocol.errors import GoAwayCode, LocalProtocolError, ResetCode
from protocol.events import (
    DataReceived,
    PeerDead,
    PeerGoesAway,
    PeerReady,
    RoundTrip,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from protocol.frames import Class, Flag, Hello
from protocol.guard import MAX_PINGS, MAX_STRAY_FRAMES, STRAYS_PER_RESET, Limits
from protocol.opens import LARGE_WINDOW
from protocol.session import Session, Side
from protocol.windows import INITIAL_WINDOW, NEAR_S
from tests.protocol.conftest import Pair, violation

COMMAND = messages.Exec(run="r1", argv=["true"])
REPORT = messages.Report(facts=messages.Facts(hostname="web-1"))
LARGE = messages.Forward(host="localhost", port=80)


class TestHello:  # SPEC §4.1
    def test_both_sides_learn_of_each_other_and_of_the_round_trip(self) -> None:
        agent = Session(Side.DIALLED, Hello(software="a"), 0.0)
        hub = Session(Side.ACCEPTED, Hello(software="h"), 0.0)
        chosen = agent.next_frame()
        assert chosen is not None
        hub.receive(chosen[1], 0.0)
        assert hub.events() == [PeerReady(Hello(software="a"))]
        assert hub.next_frame() is not None  # its own HELLO
        hub.tick(0.0)
        ping = hub.next_frame()
        assert ping is not None
        with pytest.raises(LocalProtocolError):
            agent.open(REPORT)

    def test_another_frame_before_it_is_a_violation(self) -> None:
        session = Session(Side.ACCEPTED, Hello(), 0.0)
        assert "before HELLO" in violation(session, frames.ping(bytes(8))).reason

    def test_a_second_one_is_a_violation(self, pair: Pair) -> None:
        assert "second HELLO" in violation(pair.hub, frames.hello(Hello())).reason

    def test_its_absence_ends_the_session(self) -> None:
        session = Session(Side.ACCEPTED, Hello(), 0.0)
        assert session.deadline() == 10.0
        session.tick(10.0)
        assert session.events() == [PeerDead("no HELLO within 10 s")]

    def test_a_malformed_one_is_a_violation(self) -> None:
        session = Session(Side.ACCEPTED, Hello(), 0.0)
        message = frames.HEADER.pack(frames.Type.HELLO, 0, 0, 0) + b"\xc1"
        assert "malformed HELLO" in violation(session, message).reason


class TestStreams:  # SPEC §4.2, §4.3
    def test_a_call_from_open_to_fin(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.hub.send(stream, b"in")
        pair.hub.finish(stream)
        pair.settle()
        assert pair.take("agent") == [
            StreamOpened(stream, COMMAND),
            DataReceived(stream, b"in"),
            StreamFinished(stream),
        ]
        pair.agent.send(stream, b"out")
        pair.agent.finish(stream)
        pair.settle()
        assert pair.take("hub") == [DataReceived(stream, b"out"), StreamFinished(stream)]
        assert pair.hub.stream_ids == pair.agent.stream_ids == []

    def test_the_dialling_side_opens_odd_ids_the_other_even_ones(self, pair: Pair) -> None:
        assert [pair.agent.open(REPORT) for _ in range(2)] == [1, 3]
        assert [pair.hub.open(COMMAND) for _ in range(2)] == [2, 4]

    def test_fin_goes_out_behind_what_waits(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.hub.send(stream, bytes(3 * INITIAL_WINDOW))
        pair.hub.finish(stream)
        pair.settle()
        happened = pair.take("agent")
        received = [event for event in happened if isinstance(event, DataReceived)]
        assert sum(len(event.data) for event in received) == INITIAL_WINDOW
        while received:
            for event in received:
                pair.agent.consumed(stream, len(event.data), pair.now)
            pair.settle()
            fresh = pair.take("agent")
            received = [event for event in fresh if isinstance(event, DataReceived)]
            happened += fresh
        assert happened[-1] == StreamFinished(stream)
        sizes = [len(event.data) for event in happened if isinstance(event, DataReceived)]
        assert sum(sizes) == 3 * INITIAL_WINDOW

    def test_ids_out_of_order_are_a_violation(self, pair: Pair) -> None:
        opened = frames.open_stream(5, Class.CALL, frames._ENCODER.encode(REPORT))
        pair.hub.receive(opened, pair.now)
        assert "out of order" in violation(pair.hub, opened).reason

    def test_an_id_of_our_own_side_is_a_violation(self, pair: Pair) -> None:
        opened = frames.open_stream(2, Class.CALL, frames._ENCODER.encode(REPORT))
        assert "out of order" in violation(pair.hub, opened).reason

    def test_a_kind_this_side_does_not_accept_is_reset(self, pair: Pair) -> None:
        stream = pair.agent.open(COMMAND)  # only hubs open commands
        pair.settle()
        assert pair.take("agent") == [
            StreamWasReset(stream, ResetCode.UNKNOWN_KIND, "unknown kind 'exec'")
        ]
        assert pair.take("hub") == []

    def test_malformed_arguments_are_reset_not_fatal(self, pair: Pair) -> None:
        stream = pair.hub.open(messages.Forward(host="h", port=0))  # not validated when made
        pair.settle()
        (event,) = pair.take("hub")
        assert isinstance(event, StreamWasReset)
        assert (event.stream, event.code) == (stream, ResetCode.PROTOCOL)
        assert "port" in event.reason

    def test_arguments_too_large_for_a_frame_are_refused_here(self, pair: Pair) -> None:
        with pytest.raises(LocalProtocolError, match="at most 65536"):
            pair.hub.open(messages.Exec(run="r", argv=["x" * 70_000]))
        assert pair.hub.next_frame() is None

    def test_data_after_fin_is_a_violation(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.hub.finish(stream)
        pair.settle()
        late = frames.data(stream, Class.COMMAND, b"late")
        assert "receive_data" in violation(pair.agent, late).reason

    def test_sending_after_finish_is_our_own_error(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.hub.finish(stream)
        with pytest.raises(LocalProtocolError):
            pair.hub.send(stream, b"x")

    def test_reset_drops_what_waits_and_both_sides_forget(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.hub.send(stream, bytes(10))
        pair.hub.reset(stream, ResetCode.CANCELLED, "no longer")
        pair.settle()
        assert pair.take("agent") == [
            StreamOpened(stream, COMMAND),
            StreamWasReset(stream, ResetCode.CANCELLED, "no longer"),
        ]
        assert pair.hub.pending(stream) is None
        assert pair.hub.stream_ids == pair.agent.stream_ids == []

    def test_frames_that_crossed_a_reset_are_ignored(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.settle()
        pair.agent.send(stream, b"crossing")
        pair.hub.reset(stream, ResetCode.CANCELLED)
        pair.carry(pair.agent)
        pair.settle()
        assert pair.take("hub") == []

    def test_a_frame_on_a_stream_never_opened_is_a_violation(self, pair: Pair) -> None:
        message = frames.data(9, Class.CALL, b"x")
        assert "never opened" in violation(pair.hub, message).reason

    def test_nesting_without_end_is_malformed_not_fatal(self, pair: Pair) -> None:
        deep = b"\x82\xa1k\xa7forward\xa1x" + b"\x91" * 50_000 + b"\xc0"
        pair.agent.receive(frames.open_stream(2, Class.FORWARD, deep), pair.now)
        chosen = pair.agent.next_frame()
        assert chosen is not None
        assert chosen[1].startswith(frames.reset(2, ResetCode.PROTOCOL))


class TestBounds:  # SPEC §4.2, §5.4
    def test_streams_beyond_the_peers_limit_are_refused_here(
        self, make_pair: Callable[..., Pair]
    ) -> None:
        pair = make_pair(Limits(max_streams=2))
        for _ in range(2):
            pair.hub.open(COMMAND)
        with pytest.raises(LocalProtocolError, match="2 streams are open"):
            pair.hub.open(COMMAND)

    def test_a_peer_that_ignores_the_limit_is_reset(self, make_pair: Callable[..., Pair]) -> None:
        pair = make_pair(Limits(max_streams=2))
        payload = frames._ENCODER.encode(REPORT)
        for stream in (1, 3, 5):
            pair.hub.receive(frames.open_stream(stream, Class.CALL, payload), pair.now)
        assert pair.hub.next_frame() == (
            0,
            frames.reset(5, ResetCode.OVERLOADED, "too many streams"),
        )

    def test_opens_are_limited_per_second(self, make_pair: Callable[..., Pair]) -> None:
        pair = make_pair(Limits(opens_per_s=2, opens_burst=2))
        outcomes = []
        for at in (0.0, 0.0, 0.0, 0.5):
            pair.now = 100.0 + at
            stream = pair.agent.open(REPORT)
            pair.settle()
            outcomes.append(StreamOpened(stream, REPORT) in pair.take("hub"))
        assert outcomes == [True, True, False, True]

    def test_data_beyond_the_credit_resets_once_and_then_ends_the_session(self, pair: Pair) -> None:
        streams = [pair.hub.open(COMMAND) for _ in range(2)]
        pair.settle()
        full = frames.data(streams[0], Class.COMMAND, bytes(INITIAL_WINDOW))
        pair.agent.receive(full, pair.now)
        pair.agent.receive(frames.data(streams[0], Class.COMMAND, b"x"), pair.now)
        assert StreamWasReset(
            streams[0], ResetCode.FLOW_CONTROL, "data beyond the credit"
        ) in pair.take("agent")
        pair.agent.receive(frames.data(streams[1], Class.COMMAND, bytes(INITIAL_WINDOW)), pair.now)
        error = violation(pair.agent, frames.data(streams[1], Class.COMMAND, b"x"))
        assert error.code is GoAwayCode.FLOW_CONTROL

    def test_a_flood_of_pings_ends_the_session(self, pair: Pair) -> None:
        for _ in range(MAX_PINGS):
            pair.hub.receive(frames.ping(bytes(8)), pair.now)
            pair.hub.next_frame()
        assert violation(pair.hub, frames.ping(bytes(8)), pair.now).code is GoAwayCode.FLOOD

    def test_a_peer_that_never_reads_its_answers_is_cut(self, pair: Pair) -> None:
        payload = frames._ENCODER.encode(REPORT)
        with pytest.raises(Exception, match=r"frames wait|to no effect"):
            for number in range(10_000):
                pair.hub.receive(frames.open_stream(2 * number + 1, 0, payload), pair.now)
                pair.hub.reset(2 * number + 1, ResetCode.REFUSED)

    def test_stray_frames_are_bounded(self, pair: Pair) -> None:
        stream = pair.agent.open(REPORT)
        pair.settle()
        pair.hub.reset(stream, ResetCode.REFUSED)
        stray = frames.window(stream, 1)
        for _ in range(MAX_STRAY_FRAMES + STRAYS_PER_RESET):
            pair.hub.receive(stray, pair.now)
        assert violation(pair.hub, stray, pair.now).code is GoAwayCode.FLOOD

    def test_credit_above_the_maximum_is_a_violation(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.settle()
        assert "add up" in violation(pair.agent, frames.window(stream, 2**31 - 1)).reason


class TestFrames:  # SPEC §3
    def test_an_unknown_type_is_a_violation_unless_optional(self, pair: Pair) -> None:
        pair.hub.receive(frames.HEADER.pack(0x7F, Flag.OPTIONAL, 0, 0), pair.now)
        assert pair.hub.events() == []
        assert "0x7f" in violation(pair.hub, frames.HEADER.pack(0x7F, 0, 0, 0)).reason

    @pytest.mark.parametrize("message", [b"", b"\x03\x00\x00\x00\x00\x00\x00"])
    def test_a_message_shorter_than_a_header_is_a_violation(
        self, pair: Pair, message: bytes
    ) -> None:
        assert "shorter" in violation(pair.hub, message).reason

    def test_a_message_longer_than_a_frame_is_a_violation(self, pair: Pair) -> None:
        assert "longer" in violation(pair.hub, bytes(frames.MAX_FRAME + 1)).reason

    def test_after_a_violation_a_goaway_waits(self, pair: Pair) -> None:
        violation(pair.hub, b"")
        chosen = pair.hub.next_frame()
        assert chosen is not None
        pair.agent.receive(chosen[1], pair.now)
        (event,) = pair.agent.events()
        assert isinstance(event, PeerGoesAway)
        assert event.code is GoAwayCode.PROTOCOL


class TestTime:  # SPEC §4.6, §4.8
    def test_pings_measure_the_round_trip(self, pair: Pair) -> None:
        pair.now = pair.hub.deadline()
        pair.hub.tick(pair.now)
        pair.carry(pair.hub)
        pair.now += 0.25
        pair.carry(pair.agent)
        assert pair.take("hub") == [RoundTrip(0.25)]
        assert pair.hub.rtt_s == 0.25

    def test_a_window_grows_only_after_four_round_trips_were_measured_at_once(
        self, pair: Pair
    ) -> None:
        stream = pair.hub.open(LARGE)
        pair.settle()

        def read_for_a_second() -> int:
            for _ in range(50):
                pair.hub.send(stream, bytes(INITIAL_WINDOW))
                pair.settle()
                pair.now += 0.02
                pair.agent.consumed(stream, INITIAL_WINDOW, pair.now)
            return pair.agent._streams[stream].receive.size

        assert read_for_a_second() == LARGE_WINDOW[Class.FORWARD]
        started = pair.now
        for _ in range(4):
            pair.now = max(pair.now, pair.agent.deadline())
            pair.agent.tick(pair.now)
            pair.carry(pair.agent)
            pair.now += 0.1
            pair.carry(pair.hub)
        assert pair.now - started < 1.0
        assert pair.agent.deadline() > pair.now + 10
        assert read_for_a_second() > LARGE_WINDOW[Class.FORWARD]

    def test_silence_is_death(self, pair: Pair) -> None:
        start = pair.now
        while pair.now < start + 35:
            pair.now = min(pair.hub.deadline(), start + 35)
            pair.hub.tick(pair.now)
        assert pair.hub.events() == [PeerDead("nothing received for 35 s")]

    def test_any_frame_shows_life(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.settle()
        pair.now += 34
        pair.agent.send(stream, b"x")
        pair.carry(pair.agent)
        pair.now += 34
        pair.hub.tick(pair.now)
        assert not any(isinstance(event, PeerDead) for event in pair.take("hub"))

    def test_pings_are_spread(self) -> None:
        intervals = []
        for drawn in (0.0, 0.999):
            session = Session(Side.DIALLED, Hello(), 0.0, jitter=partial(float, drawn))
            session.receive(frames.hello(Hello()), 0.0)
            session.tick(0.0)
            intervals.append(session.deadline())
        assert intervals == pytest.approx([12.0, 18.0], abs=0.1)

    def test_the_side_that_dialled_is_silent_while_the_peer_pings_and_not_longer(
        self, pair: Pair
    ) -> None:
        pings: list[tuple[str, float]] = []

        def live(*sides: str, until: float) -> None:
            while (at := min(getattr(pair, side).deadline() for side in sides)) < until:
                pair.now = at
                for side in sides:
                    session = getattr(pair, side)
                    due = session._liveness._next_ping <= pair.now
                    session.tick(pair.now)
                    pings.extend([(side, pair.now)] if due else [])
                pair.settle()

        start = pair.now
        live("hub", "agent", until=start + 300)
        measured = [at for side, at in pings if side == "agent"]
        assert len(measured) in (4, 5)
        assert len([1 for side, _ in pings if side == "hub"]) >= 20
        last = max(at for side, at in pings if side == "hub")
        live("agent", until=start + 340)
        assert min(at for side, at in pings if at > last) == pytest.approx(last + 18)

    def test_goaway_stops_new_streams_both_ways(self, pair: Pair) -> None:
        pair.hub.go_away(GoAwayCode.SHUTDOWN, "restart", 30.0)
        pair.settle()
        assert pair.take("agent") == [PeerGoesAway(GoAwayCode.SHUTDOWN, "restart", 30.0)]
        for session, message in ((pair.hub, COMMAND), (pair.agent, REPORT)):
            with pytest.raises(LocalProtocolError, match="closing"):
                session.open(message)


class TestOrder:  # SPEC §5.3
    def test_a_keystroke_overtakes_a_backlog(self, pair: Pair) -> None:
        bulk, keys = pair.hub.open(LARGE), pair.hub.open(LARGE)
        pair.settle()
        pair.hub.send(bulk, bytes(INITIAL_WINDOW))
        pair.carry(pair.hub, 2)
        pair.hub.send(keys, b"k")
        pair.carry(pair.hub, 1)
        assert pair.take("agent")[-1] == DataReceived(keys, b"k")

    def test_frames_shrink_while_another_stream_waits(self, pair: Pair) -> None:
        first = pair.hub.open(LARGE)
        pair.settle()
        pair.hub.send(first, bytes(INITIAL_WINDOW))
        pair.carry(pair.hub, 1)
        second = pair.hub.open(LARGE)
        pair.settle()
        pair.take("agent")
        for stream in (first, second):
            pair.hub.send(stream, bytes(INITIAL_WINDOW))
        pair.settle()
        sizes = [len(e.data) for e in pair.take("agent") if isinstance(e, DataReceived)]
        assert set(sizes[:4]) == {16 * 1024}

    def test_transfers_yield_to_forwards_by_weight(self, pair: Pair) -> None:
        transfer = pair.hub.open(messages.Transfer(digest="0" * 64, size_bytes=1))
        forward = pair.hub.open(LARGE)
        pair.settle()
        pair.take("agent")
        for stream in (transfer, forward):
            pair.hub.send(stream, bytes(200_000))
        pair.carry(pair.hub, 10)
        share = {transfer: 0, forward: 0}
        for event in pair.take("agent"):
            if isinstance(event, DataReceived):
                share[event.stream] += len(event.data)
        assert share[forward] >= 3 * share[transfer] > 0

    def test_two_backlogs_share_evenly(self, pair: Pair) -> None:
        streams = [pair.hub.open(LARGE) for _ in range(2)]
        pair.settle()
        pair.take("agent")
        for stream in streams:
            pair.hub.send(stream, bytes(200_000))
        pair.carry(pair.hub, 12)
        share = dict.fromkeys(streams, 0)
        for event in pair.take("agent"):
            if isinstance(event, DataReceived):
                share[event.stream] += len(event.data)
        assert abs(share[streams[0]] - share[streams[1]]) <= 2 * 16 * 1024

    def test_a_reader_that_stalls_stops_its_own_stream_only(self, pair: Pair) -> None:
        stalled, lively = pair.hub.open(LARGE), pair.hub.open(LARGE)
        pair.settle()
        pair.hub.send(stalled, bytes(4 * LARGE_WINDOW[Class.FORWARD]))
        pair.settle()
        assert pair.hub.pending(stalled)
        pair.take("agent")
        for _ in range(100):
            pair.hub.send(lively, bytes(16 * 1024))
            pair.carry(pair.hub, 1)
            assert pair.take("agent") == [DataReceived(lively, bytes(16 * 1024))]
            pair.agent.consumed(lively, 16 * 1024, pair.now)
            pair.settle()

    def test_bulk_of_a_near_peer_has_a_large_window_until_another_stream_sends(
        self, pair: Pair
    ) -> None:
        pair.agent._liveness.shortest_rtt_s = NEAR_S / 2
        bulk, keys = pair.hub.open(LARGE), pair.hub.open(LARGE)
        pair.settle()
        window = pair.agent._streams[bulk].receive

        def push_for_a_second() -> None:
            for _ in range(1000):
                pair.hub.send(bulk, bytes(200_000))
                pair.settle()
                pair.now += 0.001
                pair.agent.consumed(bulk, 200_000, pair.now)

        push_for_a_second()
        assert window.size == 2 * LARGE_WINDOW[Class.FORWARD]
        pair.hub.send(keys, b"x")
        push_for_a_second()
        assert window.size == 2 * LARGE_WINDOW[Class.FORWARD], "one keystroke is soon forgotten"
        pair.hub.send(keys, b"x")
        pair.settle()
        pair.agent.consumed(bulk, 1, pair.now)
        assert window.size == LARGE_WINDOW[Class.FORWARD]

    def test_a_backlog_is_not_cut_to_crumbs_for_a_little_credit(self, pair: Pair) -> None:
        stream = pair.hub.open(COMMAND)
        pair.settle()
        pair.take("agent")
        pair.hub.send(stream, bytes(INITIAL_WINDOW - 100))
        pair.settle()
        pair.hub.send(stream, bytes(30_000))
        pair.settle()
        assert [len(e.data) for e in pair.take("agent") if isinstance(e, DataReceived)] == [
            INITIAL_WINDOW - 100
        ]
        pair.agent.consumed(stream, INITIAL_WINDOW // 2, pair.now)
        pair.settle()
        assert [len(e.data) for e in pair.take("agent") if isinstance(e, DataReceived)] == [30_000]


class TestBlank:  # a payload with room for its header
    def test_it_becomes_the_frame_without_a_copy(self, pair: Pair) -> None:
        stream = pair.hub.open(LARGE)
        pair.settle()
        pair.take("agent")
        blank = frames.Blank.around(b"payload")
        assert pair.hub.send(stream, blank) == 7
        chosen = pair.hub.next_frame()
        assert chosen is not None
        assert chosen[1] is blank
        pair.agent.receive(memoryview(blank), pair.now)
        assert pair.agent.events() == [DataReceived(stream, b"payload")]

    def test_one_beyond_the_limit_is_cut_and_arrives_whole(self, pair: Pair) -> None:
        stream, other = pair.hub.open(LARGE), pair.hub.open(LARGE)
        pair.settle()
        pair.take("agent")
        payload = bytes(range(256)) * 200
        pair.hub.send(stream, frames.Blank.around(payload))
        pair.hub.send(other, bytes(40_000))
        pair.settle()
        pieces = [
            bytes(event.data)
            for event in pair.take("agent")
            if isinstance(event, DataReceived) and event.stream == stream
        ]
        assert b"".join(pieces) == payload
        assert len(pieces) > 1
        assert pair.hub.pending(stream) == 0
