"""Two sessions on a fake wire with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol.errors import RemoteProtocolError
from protocol.events import Event
from protocol.frames import Hello
from protocol.guard import DEFAULT_LIMITS, Limits
from protocol.messages import AgentOpen, HubOpen
from protocol.session import Session, Side


class Pair:
    """An agent's session and a hub's; `settle` carries frames until none wait."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.now = 100.0
        self.agent = Session(
            Side.DIALLED, Hello(software="agent"), self.now, accepts=HubOpen, limits=limits
        )
        self.hub = Session(
            Side.ACCEPTED, Hello(software="hub"), self.now, accepts=AgentOpen, limits=limits
        )
        self.wire: list[tuple[str, bytes | bytearray]] = []
        self.seen: dict[str, list[Event]] = {"agent": [], "hub": []}
        self.settle()
        self.take("agent"), self.take("hub")

    def peer_of(self, session: Session) -> Session:
        return self.hub if session is self.agent else self.agent

    def name_of(self, session: Session) -> str:
        return "agent" if session is self.agent else "hub"

    def carry(self, sender: Session, most: int = 1_000_000) -> int:
        """Carry up to `most` frames from `sender` to its peer; return how many."""
        receiver = self.peer_of(sender)
        for count in range(most):
            chosen = sender.next_frame()
            if chosen is None:
                return count
            self.wire.append((self.name_of(sender), chosen[1]))
            receiver.receive(chosen[1], self.now)
            self.seen[self.name_of(receiver)] += receiver.events()
        return most

    def settle(self) -> None:
        while self.carry(self.agent) + self.carry(self.hub):
            pass

    def take(self, name: str) -> list[Event]:
        """The events of one side since the last call."""
        session = self.agent if name == "agent" else self.hub
        happened = self.seen[name] + session.events()
        self.seen[name] = []
        return happened


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    return Pair


def violation(
    session: Session, message: bytes | bytearray, now: float = 100.0
) -> RemoteProtocolError:
    """The error that `message` is answered with."""
    with pytest.raises(RemoteProtocolError) as caught:
        session.receive(message, now)
    return caught.value
