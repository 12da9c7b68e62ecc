"""Any order of calls, any split of the wire: bytes arrive once, in order, within the credit."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol import messages, record_types, records
from protocol.errors import RemoteProtocolError, ResetCode
from protocol.events import DataReceived, StreamFinished, StreamOpened, StreamWasReset
from protocol.frames import Hello
from protocol.messages import AgentOpen, HubOpen
from protocol.session import Session, Side
from protocol.windows import MAX_WINDOW
from tests.protocol.conftest import Wire


class TwoSessions(RuleBasedStateMachine):
    """Model: per stream and direction, the bytes sent and the bytes received."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Wire()
        self.sent: dict[tuple[str, int], bytearray] = {}
        self.received: dict[tuple[str, int], bytearray] = {}
        self.unread: dict[tuple[str, int], int] = {}
        self.finished: set[tuple[str, int]] = set()
        self.reset: set[int] = set()
        self.counter = 0

    def sessions(self) -> dict[str, Session]:
        return {"agent": self.pair.agent, "hub": self.pair.hub}

    def observe(self) -> None:
        for name in ("agent", "hub"):
            for event in self.pair.take(name):
                match event:
                    case DataReceived(stream, data):
                        self.received.setdefault((name, stream), bytearray()).extend(data)
                        key = (name, stream)
                        self.unread[key] = self.unread.get(key, 0) + len(data)
                    case StreamWasReset(stream):
                        assert stream in self.reset
                    case StreamFinished(stream):
                        other = "hub" if name == "agent" else "agent"
                        assert (other, stream) in self.finished
                        assert self.received.get((name, stream), b"") == self.sent.get(
                            (other, stream), b""
                        )
                    case StreamOpened():
                        pass

    @rule(side=st.sampled_from(["agent", "hub"]))
    def open(self, side: str) -> None:
        session = self.sessions()[side]
        if len(session.stream_ids) < 50:
            session.open(
                messages.Forward(host="h", port=1)
                if side == "hub"
                else messages.Report(facts=messages.Facts(hostname="h"))
            )

    def pick(self, side: str, number: int) -> int | None:
        ids = [
            stream
            for stream in self.sessions()[side].stream_ids
            if (side, stream) not in self.finished
        ]
        return ids[number % len(ids)] if ids else None

    @rule(
        side=st.sampled_from(["agent", "hub"]),
        number=st.integers(0, 100),
        size=st.sampled_from([0, 1, 100, 16_384, 70_000, 300_000]),
    )
    def send(self, side: str, number: int, size: int) -> None:
        stream = self.pick(side, number)
        if stream is not None:
            self.counter = (self.counter + 1) % 251
            data = bytes([self.counter]) * size
            self.sessions()[side].send(stream, data)
            self.sent.setdefault((side, stream), bytearray()).extend(data)

    @rule(side=st.sampled_from(["agent", "hub"]), number=st.integers(0, 100))
    def finish(self, side: str, number: int) -> None:
        stream = self.pick(side, number)
        if stream is not None:
            self.finished.add((side, stream))
            self.sessions()[side].finish(stream)

    @rule(side=st.sampled_from(["agent", "hub"]), number=st.integers(0, 100))
    def reset_stream(self, side: str, number: int) -> None:
        stream = self.pick(side, number)
        if stream is not None:
            self.reset.add(stream)
            self.sessions()[side].reset(stream, ResetCode.CANCELLED)

    @rule(side=st.sampled_from(["agent", "hub"]), frames=st.integers(1, 20))
    def carry(self, side: str, frames: int) -> None:
        self.pair.carry(self.sessions()[side], frames)
        self.observe()

    @rule(lost=st.tuples(st.integers(0, 5), st.integers(0, 5)), again=st.integers(0, 3))
    def cut(self, lost: tuple[int, int], again: int) -> None:
        """Lose frames each way, then the connection; a part arrives and it is cut once more."""
        agent, hub = self.pair.agent, self.pair.hub
        self.pair.lose(agent, lost[0]), self.pair.lose(hub, lost[1])
        for session in (agent, hub):
            session.suspend()
            session.resume(self.pair.now)
        self.pair.carry(agent, again), self.pair.carry(hub, again)
        self.pair.reconnect()
        self.observe()

    @precondition(lambda self: self.unread)
    @rule(number=st.integers(0, 100), part=st.sampled_from([1.0, 0.5]))
    def read(self, number: int, part: float) -> None:
        keys = sorted(self.unread)
        key = keys[number % len(keys)]
        size = max(1, int(self.unread[key] * part))
        self.unread[key] -= size
        if not self.unread[key]:
            del self.unread[key]
        self.sessions()[key[0]].consumed(key[1], size, self.pair.now)

    @rule(seconds=st.sampled_from([0.01, 1.0, 14.0]))
    def time_passes(self, seconds: float) -> None:
        self.pair.now += seconds
        for session in self.sessions().values():
            session.tick(self.pair.now)
        self.pair.settle()
        self.observe()

    @invariant()
    def what_arrived_is_a_prefix_of_what_was_sent(self) -> None:
        for (name, stream), received in self.received.items():
            other = "hub" if name == "agent" else "agent"
            assert self.sent[other, stream].startswith(received)

    @invariant()
    def nobody_holds_more_than_a_window_unread(self) -> None:
        for unread in self.unread.values():
            assert unread <= MAX_WINDOW

    def teardown(self) -> None:
        """Read everything: whatever was not reset arrives in full."""
        while True:
            self.pair.settle()
            self.observe()
            if not self.unread:
                break
            for (name, stream), size in list(self.unread.items()):
                self.sessions()[name].consumed(stream, size, self.pair.now)
            self.unread.clear()
        for (name, stream), sent in self.sent.items():
            if stream not in self.reset:
                other = "hub" if name == "agent" else "agent"
                assert self.received.get((other, stream), b"") == sent


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@given(st.lists(st.binary(max_size=200), max_size=50), st.booleans())
def test_garbage_ends_in_events_or_a_protocol_error(chunks: list[bytes], greeted: bool) -> None:
    session = Session(Side.ACCEPTED, Hello(), 0.0, accepts=AgentOpen)
    if greeted:
        pair = Wire()
        session = pair.hub
    for chunk in chunks:
        try:
            session.receive(chunk, 100.0)
        except RemoteProtocolError:
            return
        session.events()


@given(
    st.lists(
        st.tuples(
            st.integers(1, 8), st.integers(0, 255), st.integers(0, 12), st.binary(max_size=64)
        ),
        max_size=60,
    )
)
def test_frames_of_any_kind_in_any_order_never_crash(
    sent: list[tuple[int, int, int, bytes]],
) -> None:
    pair = Wire()
    pair.hub.open(messages.Forward(host="h", port=1))
    for kind, flags, stream, payload in sent:
        message = bytes([kind, flags, 0, 0]) + stream.to_bytes(4, "big") + payload
        try:
            pair.hub.receive(message, pair.now)
        except RemoteProtocolError:
            return
        pair.hub.events()
        pair.hub.next_frame()


@given(st.binary(max_size=300))
def test_any_open_payload_is_decoded_or_reset(payload: bytes) -> None:
    session = Wire().agent
    session.receive(bytes([2, 0, 0, 0]) + (2).to_bytes(4, "big") + payload, 100.0)
    assert session.events() or session.next_frame()


RECORDS = [
    record_types.Output(stream=1, offset=0, data=b"x" * 100),
    record_types.Exited(exit_code=0),
    record_types.Started(pid=1, started_at=0.5),
    record_types.Output(stream=2, offset=7, data=b""),
]


@given(st.lists(st.integers(1, 60), max_size=20))
def test_records_survive_any_split(cuts: list[int]) -> None:
    wire = b"".join(records.encode(record) for record in RECORDS)
    reader: records.RecordReader[record_types.ExecFromNode] = records.RecordReader(
        record_types.ExecFromNode
    )
    got, at = [], 0
    for cut in [*cuts, len(wire)]:
        got += list(reader.feed(wire[at : at + cut]))
        at += cut
    assert got == RECORDS
    assert not reader.mid_record


@given(st.binary(max_size=400))
def test_any_bytes_are_records_or_a_violation(data: bytes) -> None:
    reader: records.RecordReader[record_types.Input] = records.RecordReader(record_types.Input)
    try:
        list(reader.feed(data))
    except RemoteProtocolError:
        return


def test_every_open_kind_has_a_class() -> None:
    from protocol.opens import CLASS_OF

    kinds = {
        *HubOpen.__args__,
        *AgentOpen.__args__,
        *messages.ClientOpen.__args__,
        messages.HubOpenAtClient,
    }
    assert CLASS_OF.keys() == kinds
