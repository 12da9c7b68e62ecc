"""Load through a tunnel's local ports: bulk one way, 64-byte echoes, connections held idle.

Bulk is counted at the receiving end after a warm-up, and ends by the clock. Echoes keep one in
flight and pause between, as keystrokes and small requests do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from tests.bench.measure import GIB, MIB, Latency, cpu_s, latency
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.programs import HOST
from tests.bench.targets import BLOCK, FORK, Counter, Targets

Direction = Literal["to", "from"]
"""Seen from the client: to the agent's side, or from it."""
BOTH: tuple[Direction, Direction] = ("to", "from")
WARM_UP_S = 0.7
TAIL_S = 0.3
ECHO_BYTES = 64
ECHO_PAUSE_S = 0.004
BUSY_ECHOES = 400
OPENS_PER_S = 40
"""Slower than the 50 a second that a tunnel of ours allows; the same for everyone."""
ARRIVE_S = 20.0


class Bulk(msgspec.Struct, frozen=True):
    """One direction's bulk; CPU seconds per GiB of the server alone, and of all programs."""

    mib_per_s: float
    server_cpu: float
    path_cpu: float


def echo(port: int, count: int, limit_s: float) -> Latency:
    """Measure up to `count` round trips of 64 bytes within `limit_s`."""
    message, samples = b"x" * ECHO_BYTES, list[float]()
    with _connect(port) as connection:
        _echo_once(connection, message)
        end = time.monotonic() + limit_s
        while len(samples) < count and time.monotonic() < end:
            started = time.perf_counter()
            _echo_once(connection, message)
            samples.append(time.perf_counter() - started)
            time.sleep(ECHO_PAUSE_S)
    return latency(samples)


def bulk(
    targets: Targets,
    tunnel: TunnelPeer,
    direction: Direction,
    seconds: float,
    *,
    connections: int = 1,
    warm_up_s: float = WARM_UP_S,
    beside: Callable[[], object] | None = None,
) -> Bulk:
    """Push streams through for `seconds`.

    Args:
        targets: what is behind the tunnel.
        tunnel: what they go through.
        direction: which way.
        seconds: how long it is counted.
        connections: how many at once.
        warm_up_s: how long they flow before.
        beside: runs while it is counted.

    Raises:
        ConnectionError: nothing came through.
    """
    total = seconds + warm_up_s + TAIL_S
    act: Callable[[int, float, Counter], None]
    if direction == "to":
        act, counter, port = _send, targets.sunk, tunnel.ports.sink
    else:
        act, counter, port = _receive, FORK.Value("Q", 0), tunnel.ports.source
    process = FORK.Process(target=_crowd, args=(connections, act, port, total, counter))
    process.daemon = True
    process.start()
    try:
        time.sleep(warm_up_s)
        server, path = tunnel.server(), tunnel.path()
        before = counter.value, cpu_s(server), cpu_s(path), time.perf_counter()
        if beside is not None:
            beside()
        time.sleep(max(0.0, seconds - (time.perf_counter() - before[3])))
        size = counter.value - before[0]
        used, used_in_all = cpu_s(server) - before[1], cpu_s(path) - before[2]
        took_s = time.perf_counter() - before[3]
    finally:
        process.join(TAIL_S + 10)
        if process.is_alive():
            process.terminate()
            process.join()
    if not size:
        raise ConnectionError("no bytes came through")
    gib = size / GIB
    return Bulk(size / took_s / MIB, used / gib, used_in_all / gib)


def bulk_and_echo(
    targets: Targets,
    tunnel: TunnelPeer,
    direction: Direction,
    seconds: float,
    warm_up_s: float = WARM_UP_S,
) -> tuple[Bulk, Latency]:
    """Push one stream through, and measure echoes beside it."""
    found: list[Latency] = []

    def beside() -> None:
        found.append(echo(tunnel.ports.echo, BUSY_ECHOES, limit_s=seconds))

    pushed = bulk(targets, tunnel, direction, seconds, warm_up_s=warm_up_s, beside=beside)
    return pushed, found[0]


@contextlib.contextmanager
def held(targets: Targets, port: int, count: int) -> Iterator[None]:
    """Hold `count` idle connections to the sink, each proved by a message that came through.

    Raises:
        ConnectionError: some didn't.
    """
    message, before = b"x" * ECHO_BYTES, targets.sunk.value
    with contextlib.ExitStack() as connections:
        for _ in range(count):
            connections.enter_context(_connect(port)).sendall(message)
            time.sleep(1 / OPENS_PER_S)
        deadline = time.monotonic() + ARRIVE_S
        while (arrived := (targets.sunk.value - before) // ECHO_BYTES) < count:
            if time.monotonic() > deadline:
                raise ConnectionError(f"only {arrived} of {count} connections came through")
            time.sleep(0.05)
        yield


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), 10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(20)
    return connection


def _echo_once(connection: socket.socket, message: bytes) -> None:
    connection.sendall(message)
    left = len(message)
    while left:
        data = connection.recv(left)
        if not data:
            raise ConnectionError("the echo was closed")
        left -= len(data)


def _crowd(
    connections: int,
    act: Callable[[int, float, Counter], None],
    port: int,
    seconds: float,
    counter: Counter,
) -> None:
    threads = [
        threading.Thread(target=act, args=(port, seconds, counter), daemon=True)
        for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(port: int, seconds: float, _: Counter) -> None:
    block = bytes(BLOCK)
    with contextlib.suppress(OSError), _connect(port) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(block)


def _receive(port: int, seconds: float, counter: Counter) -> None:
    buffer = bytearray(BLOCK)
    with contextlib.suppress(OSError), _connect(port) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (count := connection.recv_into(buffer)):
            with counter.get_lock():
                counter.value += count
