"""What lets a session go on over another connection: its name, its counts, what to send again.

Both sides count the frames of streams; who has them says so by ACK, and at the start of a further
connection by HELLO (SPEC §4.9). A session to which one side did not agree ends with its connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from protocol import frames
from protocol.frames import Hello
from protocol.replay import REPLAY_BUDGET, Replay, Resumption, Sent
from protocol.windows import Budget

RESUME = "resume"
"""The capability to go on with a session over another connection."""
ACK_BYTES = 1024 * 1024  # received since our last ACK, which costs both sides as much as DATA


class Continuity:
    """One side's part of it."""

    __slots__ = (
        "_again", "_budget", "_hello", "_owes_ack", "_received", "_replay", "_unacknowledged",
    )  # fmt: skip

    def __init__(self, hello: Hello, name: bytes | None, budget: Budget | None) -> None:
        """Begin with nothing received.

        Args:
            hello: what we say of ourselves.
            name: as of `Session`.
            budget: of the process; what is kept counts in it.
        """
        if name is not None:
            capabilities = [*hello.capabilities, RESUME]
            hello = msgspec.structs.replace(hello, capabilities=capabilities, resume=name)
        self._hello = hello
        self._budget = Budget(REPLAY_BUDGET, budget)
        self._replay: Replay | None = None  # once both have agreed
        self._again: deque[tuple[int, Sent]] = deque()
        self._received = 0  # frames of streams
        self._unacknowledged = 0  # bytes of them
        self._owes_ack = False

    @property
    def kept_bytes(self) -> int:
        """What is kept of what was sent, until the peer has it."""
        return self._budget.used

    def name(self, peer: Hello | None) -> bytes:
        """What the session is resumed by; empty when it ends with its connection."""
        if self._replay is None or not self._replay.is_possible or peer is None:
            return b""
        return self._hello.resume or peer.resume

    def greeting(self) -> bytes:
        """Our HELLO on a connection."""
        self._owes_ack, self._unacknowledged = False, 0
        return frames.hello(msgspec.structs.replace(self._hello, received=self._received))

    def agree(self, peer: Hello) -> None:
        """Keep what is sent from now on, if both sides can and the accepting one gave a name."""
        both = RESUME in self._hello.capabilities and RESUME in peer.capabilities
        if both and (self._hello.resume or peer.resume):
            self._replay = Replay(self._budget)

    def wait(self, entries: Iterable[tuple[int, Sent]]) -> None:
        """Let frames that were never sent wait behind those that are sent again."""
        self._again.extend(entries)

    def resume(self, received: int) -> Resumption:
        """Go on with a peer that has so many of our frames; `due` gives what it lacks.

        Raises:
            RemoteProtocolError: it can't have so many.
        """
        assert self._replay is not None, "only a session with a name is resumed"
        resumption = self._replay.resume(received)
        left = [entry for entry in self._again if entry[0] not in resumption.broken]
        self._again = deque([*resumption.again, *left])
        return resumption

    def sent(self, stream_id: int, frame: Sent) -> None:
        """Keep a frame of a stream that goes out."""
        if self._replay is not None:
            self._replay.sent(stream_id, frame)

    def received(self, size: int) -> None:
        """Count a frame of a stream, of `size` bytes."""
        self._received += 1
        self._unacknowledged += size
        if self._unacknowledged >= ACK_BYTES:
            self.owe_ack()

    def owe_ack(self) -> None:
        """Have an ACK sent, if there is something to say."""
        self._owes_ack = self._replay is not None and self._unacknowledged > 0

    def due(self) -> tuple[int, Sent] | None:
        """The ACK that is due (stream 0), or else the next frame to send again and its stream."""
        if self._owes_ack:
            self._owes_ack, self._unacknowledged = False, 0
            return 0, frames.ack(self._received)
        return self._again.popleft() if self._again else None

    def acknowledged(self, count: int) -> bool:
        """The peer has so many of our frames; False when that is no news.

        Raises:
            RemoteProtocolError: it can't.
        """
        return self._replay is not None and self._replay.acknowledged(count)

    def end(self) -> None:
        """Keep nothing any more, and say nothing."""
        self._owes_ack = False
        self._again.clear()
        if self._replay is not None:
            self._replay.clear()
