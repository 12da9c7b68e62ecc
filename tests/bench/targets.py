"""What lies behind every tunnel: an echo, a sink that counts, and a source, one process each.

A source gives up after `SOURCE_LIMIT_S`, so that a forgotten connection ends by itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from types import TracebackType
from typing import NamedTuple, TypeAlias

from tests.bench.programs import HOST

BLOCK = 256 * 1024
SOURCE_LIMIT_S = 60.0
Counter: TypeAlias = "Synchronized[int]"
FORK = multiprocessing.get_context("fork")


class Ports(NamedTuple):
    """Where the three are reached: directly, or through a tunnel."""

    echo: int
    sink: int
    source: int

    def pairs(self, targets: Ports) -> list[str]:
        """`HERE:THERE` for each of the three."""
        return [f"{here}:{there}" for here, there in zip(self, targets, strict=True)]


class Targets:
    """The three processes; `sunk` counts the bytes that the sink has received."""

    def __init__(self) -> None:
        self.sunk: Counter = FORK.Value("Q", 0)
        listeners = [_listener() for _ in range(3)]
        self.ports = Ports(*(listener.getsockname()[1] for listener in listeners))
        serve: list[Callable[[socket.socket], None]] = [_echo, self._sink, _source]
        self._processes = [
            FORK.Process(target=_serve, args=(listener, act), daemon=True)
            for listener, act in zip(listeners, serve, strict=True)
        ]
        for process in self._processes:
            process.start()
        for listener in listeners:
            listener.close()

    def __enter__(self) -> Targets:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.join(2)

    def _sink(self, connection: socket.socket) -> None:
        buffer = bytearray(BLOCK)
        while count := connection.recv_into(buffer):
            with self.sunk.get_lock():
                self.sunk.value += count


def _listener() -> socket.socket:
    return socket.create_server((HOST, 0), backlog=256)


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(65536):
        connection.sendall(data)


def _source(connection: socket.socket) -> None:
    block, end = bytes(BLOCK), time.monotonic() + SOURCE_LIMIT_S
    while time.monotonic() < end:
        connection.sendall(block)


def _serve(listener: socket.socket, act: Callable[[socket.socket], None]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            act(connection)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=run, args=(connection,), daemon=True).start()
