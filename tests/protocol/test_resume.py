"""A session that outlives its connection (SPEC §4.9): what was under way arrives once, in order."""

from __future__ import annotations

import pytest

from protocol import frames, messages
from protocol.continuity import ACK_BYTES
from protocol.errors import GoAwayCode, LocalProtocolError, ResetCode
from protocol.events import DataReceived, PeerReady, StreamFinished, StreamOpened, StreamWasReset
from protocol.frames import Hello, Type
from protocol.guard import MAX_STRAY_FRAMES
from protocol.liveness import EARLY_PINGS
from protocol.replay import ENTRY_BYTES, MARKS_BUDGET, REPLAY_BUDGET, Replay
from protocol.session import MAX_CONTROL_FRAMES, Session, Side
from protocol.windows import Budget
from tests.protocol.conftest import NAME, Wire, violation

FORWARD = messages.Forward(host="localhost", port=80)


@pytest.fixture
def wire() -> Wire:
    return Wire()


class TestAgreement:
    def test_both_sides_know_the_session_by_the_name_of_the_accepting_one(self, wire: Wire) -> None:
        assert wire.agent.name == wire.hub.name == NAME

    @pytest.mark.parametrize("names", [(None, NAME), (b"", None), (b"", b"")])
    def test_a_side_that_can_not_leaves_the_session_without(
        self, names: tuple[bytes | None, bytes | None]
    ) -> None:
        agent = Session(Side.DIALLED, Hello(), 0.0, name=names[0])
        hub = Session(Side.ACCEPTED, Hello(), 0.0, name=names[1])
        for sender, receiver in ((agent, hub), (hub, agent)):
            chosen = sender.next_frame()
            assert chosen is not None
            receiver.receive(chosen[1], 0.0)
        assert agent.name == hub.name == b""

    def test_a_session_that_said_goodbye_is_not_resumed(self, wire: Wire) -> None:
        wire.hub.go_away(GoAwayCode.SHUTDOWN)
        wire.settle()
        assert wire.hub.name == wire.agent.name == b""


class TestContinuing:
    def test_what_the_cut_swallowed_arrives_once_and_in_order(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.hub.send(stream, b"one")
        wire.settle()
        wire.hub.send(stream, b"two")
        assert wire.lose(wire.hub) == 1
        wire.hub.send(stream, b"three")
        wire.reconnect()
        assert wire.data("agent", stream) == b"onetwothree"

    def test_both_directions_and_the_end_of_the_stream(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        wire.take("agent")
        wire.hub.send(stream, b"up")
        wire.hub.finish(stream)
        wire.agent.send(stream, b"down")
        wire.agent.finish(stream)
        wire.lose(wire.hub), wire.lose(wire.agent)
        wire.reconnect()
        agent, hub = wire.take("agent"), wire.take("hub")
        assert DataReceived(stream, b"up") in agent and StreamFinished(stream) in agent
        assert DataReceived(stream, b"down") in hub and StreamFinished(stream) in hub
        assert wire.hub.stream_ids == wire.agent.stream_ids == []

    def test_a_stream_opened_or_reset_into_the_cut(self, wire: Wire) -> None:
        old = wire.hub.open(FORWARD)
        wire.settle()
        wire.take("agent")
        wire.hub.reset(old, ResetCode.CANCELLED, "enough")
        new = wire.hub.open(FORWARD)
        wire.lose(wire.hub)
        wire.reconnect()
        assert [event for event in wire.take("agent") if not isinstance(event, PeerReady)][:2] == [
            StreamWasReset(old, ResetCode.CANCELLED, "enough"),
            StreamOpened(new, FORWARD),
        ]

    def test_credit_that_was_under_way_is_not_lost(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        for _ in range(40):
            wire.hub.send(stream, bytes(32 * 1024))
            wire.settle()
            size = len(wire.data("agent", stream))
            wire.agent.consumed(stream, size, wire.now)
            wire.lose(wire.agent)
            wire.reconnect()
        assert wire.hub.pending(stream) == 0

    def test_a_second_cut_while_frames_are_sent_again(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        sent = b""
        for number in range(8):
            piece = bytes([number]) * 1000
            sent += piece
            wire.hub.send(stream, piece)
        wire.lose(wire.hub)
        for session in (wire.agent, wire.hub):
            session.suspend()
            session.resume(wire.now)
        wire.carry(wire.agent)
        wire.carry(wire.hub, 4)  # HELLO and three of the eight arrive
        wire.lose(wire.hub, 2)  # two more don't
        wire.reconnect()
        assert wire.data("agent", stream) == sent

    def test_a_cut_before_the_peer_said_hello_again(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        wire.hub.send(stream, b"late")
        wire.lose(wire.hub)
        for session in (wire.agent, wire.hub):
            session.suspend()
            session.resume(wire.now)
        wire.carry(wire.agent)
        wire.lose(wire.hub, 1)
        wire.reconnect()
        assert wire.data("agent", stream) == b"late"

    def test_nothing_but_the_greeting_is_sent_before_the_peers(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        wire.hub.send(stream, b"late")
        wire.lose(wire.hub)
        wire.hub.suspend()
        wire.hub.resume(wire.now)
        first, second = wire.hub.next_frame(), wire.hub.next_frame()
        assert first is not None and first[1][0] == Type.HELLO
        assert second is None

    def test_a_peer_that_does_not_greet_again_is_dead(self, wire: Wire) -> None:
        wire.hub.suspend()
        wire.hub.resume(wire.now)
        assert wire.hub.deadline() == wire.now + 10.0


class TestAcknowledging:
    def test_what_is_acknowledged_is_not_kept(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        for _ in range(3 * ACK_BYTES // 32768):
            wire.hub.send(stream, bytes(32 * 1024))
            wire.settle()
            wire.agent.consumed(stream, len(wire.data("agent", stream)), wire.now)
            wire.settle()
        assert wire.hub.replay_bytes < 2 * ACK_BYTES
        wire.now += 20
        wire.agent.tick(wire.now)
        wire.settle()
        assert wire.hub.replay_bytes == 0

    def test_a_side_that_leaves_its_ping_out_still_acknowledges(self, wire: Wire) -> None:
        for _ in range(EARLY_PINGS):
            wire.now += 20
            wire.agent.tick(wire.now)
            wire.settle()
        stream = wire.hub.open(FORWARD)
        wire.hub.send(stream, b"news")
        wire.settle()
        assert wire.hub.replay_bytes
        wire.now += 15
        wire.hub.tick(wire.now)
        wire.settle()
        assert wire.hub.replay_bytes == 0

    def test_one_that_can_not_be_is_a_violation(self, wire: Wire) -> None:
        assert "was acknowledged" in violation(wire.hub, frames.ack(99)).reason

    def test_a_greeting_that_can_not_be_is_a_violation(self, wire: Wire) -> None:
        wire.hub.suspend()
        wire.hub.resume(wire.now)
        error = violation(wire.hub, frames.hello(Hello(received=99)))
        assert "was acknowledged" in error.reason


class TestBounds:
    def test_a_stream_with_more_under_way_than_is_kept_is_lost_and_others_live(
        self, wire: Wire
    ) -> None:
        bulk, small = wire.hub.open(FORWARD), wire.hub.open(FORWARD)
        wire.settle()
        wire.agent._streams[bulk].receive.credit = 2 * REPLAY_BUDGET
        wire.hub._streams[bulk].send.credit = 2 * REPLAY_BUDGET
        wire.take("agent")
        wire.hub.send(small, b"key")
        for _ in range(REPLAY_BUDGET // 65536 + 1):
            wire.hub.send(bulk, bytes(65536))
        wire.lose(wire.hub)
        assert wire.hub.replay_bytes < REPLAY_BUDGET
        wire.reconnect()
        events = wire.take("agent")
        assert DataReceived(small, b"key") in events
        lost = [event for event in events if isinstance(event, StreamWasReset)]
        assert [(event.stream, event.code) for event in lost] == [(bulk, ResetCode.LOST)]
        assert [e.code for e in wire.take("hub") if isinstance(e, StreamWasReset)] == [
            ResetCode.LOST
        ]
        assert wire.hub.stream_ids == wire.agent.stream_ids == [small]

    def test_a_lost_stream_of_which_the_peer_never_heard_is_not_told(self) -> None:
        replay = Replay(Budget(1000))
        replay.sent(2, frames.open_stream(2, 4, b"x"))
        replay.sent(2, frames.data(2, 4, bytes(2000)))
        resumption = replay.resume(0)
        assert resumption.broken == {2} and not resumption.told and not resumption.again

    def test_a_lost_stream_that_was_reset_is_told_once(self) -> None:
        replay = Replay(Budget(1000))
        replay.sent(2, frames.data(2, 4, bytes(2000)))
        reset = frames.reset(2, ResetCode.CANCELLED)
        replay.sent(2, reset)
        resumption = replay.resume(0)
        assert resumption.again == [(2, reset)] and not resumption.told

    def test_a_stream_continues_once_the_peer_caught_up(self) -> None:
        replay = Replay(Budget(1000))
        replay.sent(2, frames.data(2, 4, bytes(2000)))
        replay.sent(2, frames.data(2, 4, b"more"))
        replay.acknowledged(2)
        last = frames.data(2, 4, b"last")
        replay.sent(2, last)
        assert replay.resume(2).again == [(2, last)]

    def test_a_peer_that_acknowledges_no_reset_can_not_resume_until_it_has(self) -> None:
        budget = Budget(REPLAY_BUDGET)
        replay, reset = Replay(budget), frames.reset(1, ResetCode.REFUSED)
        room = MARKS_BUDGET // (len(reset) + ENTRY_BYTES)
        possible = []
        for _ in range(room):
            replay.sent(1, reset)
        possible.append(replay.is_possible)
        assert budget.used <= MARKS_BUDGET
        replay.sent(1, reset)
        replay.sent(3, frames.data(3, 4, b"x"))
        possible.append(replay.is_possible)
        assert budget.used == 0
        replay.acknowledged(room + 1)
        possible.append(replay.is_possible)  # not yet: the data behind the reset is missing too
        replay.acknowledged(room + 2)
        possible.append(replay.is_possible)
        assert possible == [True, False, False, True]
        again = frames.data(3, 4, b"y")
        replay.sent(3, again)
        assert replay.resume(room + 2).again == [(3, again)]

    def test_what_is_left_for_a_stream_of_which_the_peer_never_heard_is_not_sent(self) -> None:
        process = Budget(0)  # others use it up: no data is kept
        wire = Wire(budget=process)
        stream = wire.hub.open(FORWARD)
        wire.hub.send(stream, b"lost")
        wire.lose(wire.hub)
        wire.hub.suspend()
        wire.hub.reset(stream, ResetCode.CANCELLED, "enough")
        wire.reconnect()
        assert wire.agent.stream_ids == wire.hub.stream_ids == []
        other = wire.hub.open(FORWARD)
        wire.settle()
        assert wire.agent.stream_ids == [other]

    def test_what_is_done_without_a_connection_is_no_flood(self, wire: Wire) -> None:
        streams = [wire.hub.open(FORWARD) for _ in range(200)]
        wire.settle()
        for stream in streams:
            wire.agent.send(stream, bytes(60_000))
        wire.settle()
        wire.hub.suspend()
        while len(wire.hub._control) < MAX_CONTROL_FRAMES:
            wire.hub.reset(wire.hub.open(FORWARD), ResetCode.CANCELLED, "")
        with pytest.raises(LocalProtocolError):
            wire.hub.open(FORWARD)
        for stream in streams:
            wire.hub.reset(stream, ResetCode.CANCELLED, "enough")
        wire.reconnect()
        assert wire.agent.stream_ids == wire.hub.stream_ids == []

    def test_crumbs_sent_again_for_a_stream_that_was_reset_are_no_flood(self, wire: Wire) -> None:
        stream = wire.hub.open(FORWARD)
        wire.settle()
        for _ in range(2 * MAX_STRAY_FRAMES):
            wire.hub.send(stream, b"x")
            wire.lose(wire.hub)
        wire.agent.suspend()
        wire.agent.reset(stream, ResetCode.CANCELLED, "closed")
        wire.reconnect()
        assert wire.agent.stream_ids == wire.hub.stream_ids == []
        assert not wire.agent.closing

    def test_the_budget_of_the_process_holds_too(self) -> None:
        process = Budget(1000)
        first, second = Replay(Budget(5000, process)), Replay(Budget(5000, process))
        first.sent(2, frames.data(2, 4, bytes(700)))
        second.sent(4, frames.data(4, 4, bytes(700)))
        assert process.used <= process.limit
        assert second.resume(0).broken == {4}
        first.clear()
        assert process.used == 0

    def test_a_session_that_ends_gives_all_budgets_back(self) -> None:
        process = Budget(100 * 1024 * 1024)
        wire = Wire(budget=process)
        for _ in range(10):
            wire.hub.send(wire.hub.open(FORWARD), bytes(1000))
        wire.settle()
        assert process.used > 0
        wire.hub.end()
        assert process.used == 0
