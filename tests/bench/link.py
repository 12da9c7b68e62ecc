"""A long link in user space, for machines without `netem`: a fixed delay and rate each way.

    python -m tests.bench.link FROM_PORT TO_PORT DELAY_S BYTES_PER_S

Each connection has a link of its own. A byte leaves when the bytes before it have left at the
link's rate, and arrives `DELAY_S` later. Each direction holds at most what is under way plus a
queue of `QUEUE_S`, as a router has one; when that is full it reads no more and TCP holds the
sender back. Kernel buffers hold `KERNEL_S`: more would be a longer queue than said, less would
leave the link idle whenever this program has to wait for its turn.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from tests.bench.measure import MIB
from tests.bench.programs import HOST, Program, free_port, wait_port

QUEUE_S = 0.02
KERNEL_S = 0.01


@dataclass(frozen=True, slots=True)
class Link:
    """How long and how fast a link is."""

    rtt_ms: int
    mib_per_s: int

    def __str__(self) -> str:
        return f"{self.rtt_ms} ms there and back, {self.mib_per_s} MiB/s"

    @contextmanager
    def ports(self, scratch: Path) -> Iterator[NearEnds]:
        """Lay links to ports; all of them end with the block."""
        laid = NearEnds(self, scratch)
        try:
            yield laid
        finally:
            for program in laid.programs:
                program.stop()


class NearEnds:
    """Called with a server's port, gives the near end of a link to it."""

    def __init__(self, link: Link, scratch: Path) -> None:
        self._link = link
        self._scratch = scratch
        self.programs: list[Program] = []

    def __call__(self, port: int) -> int:
        near = free_port()
        delay_s = self._link.rtt_ms / 2000
        numbers = (near, port, delay_s, self._link.mib_per_s * MIB)
        argv = [sys.executable, "-m", "tests.bench.link", *map(str, numbers)]
        self.programs.append(Program(argv, self._scratch / "link.log"))
        wait_port(near, self.programs[-1])
        return near


class Lane:
    """One direction, without I/O: what is under way, and when each piece arrives."""

    def __init__(self, delay_s: float, bytes_per_s: float) -> None:
        self.limit_bytes = int((delay_s + QUEUE_S) * bytes_per_s)
        self.held_bytes = 0
        self.ended = False
        """The end has arrived, too."""
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._left_at = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent for now."""
        return self.held_bytes >= self.limit_bytes

    @property
    def next_s(self) -> float | None:
        """When the oldest piece arrives."""
        return self._under_way[0][0] if self._under_way else None

    def send(self, data: bytes, now: float) -> None:
        """Put a piece on its way; `b""` is the end."""
        self._left_at = max(self._left_at, now) + len(data) / self._bytes_per_s
        self._under_way.append((self._left_at + self._delay_s, data))
        self.held_bytes += len(data)

    def arrived(self, now: float) -> bytes:
        """Take what has arrived by now."""
        pieces = []
        while self._under_way and self._under_way[0][0] <= now:
            pieces.append(self._under_way.popleft()[1])
            self.ended = not pieces[-1]
        data = b"".join(pieces)
        self.held_bytes -= len(data)
        return data


class End(asyncio.Protocol):
    """One end of a link: what is read here is written at `other` when it arrives there."""

    other: End
    _transport: asyncio.Transport

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._transport.pause_reading()

    def start(self) -> None:
        """Read, now that the other end is there."""
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._lane.send(data, self._loop.time())
        if self._lane.full:
            self._paused = True
            self._transport.pause_reading()
        self._arrange()

    def eof_received(self) -> bool:
        self._lane.send(b"", self._loop.time())
        self._arrange()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.other._transport.close()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self.other._arrange()

    def _arrange(self) -> None:
        due = self._lane.next_s
        if self._timer is None and due is not None and not self.other._blocked:
            self._timer = self._loop.call_at(due, self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        data = self._lane.arrived(self._loop.time())
        if self.other._transport.is_closing():
            return
        self.other._transport.write(data)
        if self._lane.ended:
            self.other._transport.write_eof()
        elif self._paused and not self._lane.full:
            self._paused = False
            self._transport.resume_reading()
        self._arrange()


async def serve(come: int, go: int, delay_s: float, bytes_per_s: float) -> None:
    """Accept connections on one port and carry each over a link to the other, for ever."""
    loop = asyncio.get_running_loop()
    buffer = int(KERNEL_S * bytes_per_s)
    listener = _buffered(buffer)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOST, come))
    listener.listen(256)

    async def join(near: socket.socket) -> None:
        far = _buffered(buffer)
        try:
            await loop.sock_connect(far, (HOST, go))
        except OSError:
            near.close()
            far.close()
            return
        ends = [End(Lane(delay_s, bytes_per_s)) for _ in range(2)]
        for end, other in zip(ends, reversed(ends), strict=True):
            end.other = other
        await loop.connect_accepted_socket(lambda: ends[0], near)
        await loop.connect_accepted_socket(lambda: ends[1], far)
        for end in ends:
            end.start()

    async with asyncio.TaskGroup() as tasks:
        while True:
            near, _ = await loop.sock_accept(listener)
            tasks.create_task(join(near))


def _buffered(size: int) -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        made.setsockopt(socket.SOL_SOCKET, option, size)
    return made


if __name__ == "__main__":
    come, go, delay_s, bytes_per_s = sys.argv[1:]
    uvloop.run(serve(int(come), int(go), float(delay_s), float(bytes_per_s)))
