"""Load through a tunnel's local ports: bulk one way, and 64-byte echoes beside it or alone.

Bulk is counted at the receiving end after a warm-up, and ends by the clock. Echoes keep one in
flight and pause between, as keystrokes and small requests do.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.sharedctypes import Synchronized
from typing import Literal

import msgspec

from tests.bench.measure import GIB, MIB, Latency, cpu_s, latency
from tests.bench.programs import HOST
from tests.bench.targets import BLOCK, FORK, Ports, Targets

Direction = Literal["to", "from"]
"""Seen from the client: to the agent's side, or from it."""
WARM_UP_S = 0.7
TAIL_S = 0.3
ECHO_BYTES = 64
ECHO_PAUSE_S = 0.004


class Bulk(msgspec.Struct, frozen=True):
    """One direction's bulk; CPU seconds per GiB of the server alone, and of all programs."""

    mib_per_s: float
    server_cpu: float
    path_cpu: float
    echo: Latency | None = None


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
    ports: Ports,
    direction: Direction,
    seconds: float,
    *,
    server: Sequence[int] = (),
    path: Sequence[int] = (),
    beside: Callable[[], Latency] | None = None,
) -> Bulk:
    """Push one stream through for `seconds`.

    Args:
        targets: what is behind the tunnel.
        ports: the tunnel's local ports.
        direction: which way.
        seconds: how long it is counted.
        server: ids of the processes in the middle.
        path: ids of all processes of the tunnel.
        beside: runs while it flows.
    """
    total = seconds + WARM_UP_S + TAIL_S
    counter: Synchronized[int] = targets.sunk if direction == "to" else FORK.Value("Q", 0)
    if direction == "to":
        process = FORK.Process(target=_send, args=(ports.sink, total), daemon=True)
    else:
        process = FORK.Process(target=_receive, args=(ports.source, total, counter), daemon=True)
    process.start()
    try:
        time.sleep(WARM_UP_S)
        before = counter.value, cpu_s(server), cpu_s(path), time.perf_counter()
        measured = beside() if beside is not None else None
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
    return Bulk(size / took_s / MIB, used / gib, used_in_all / gib, measured)


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


def _send(port: int, seconds: float) -> None:
    block = bytes(BLOCK)
    with contextlib.suppress(OSError), _connect(port) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(block)


def _receive(port: int, seconds: float, counter: Synchronized[int]) -> None:
    buffer = bytearray(BLOCK)
    with contextlib.suppress(OSError), _connect(port) as connection:
        end = time.monotonic() + seconds
        while time.monotonic() < end and (count := connection.recv_into(buffer)):
            counter.value += count
