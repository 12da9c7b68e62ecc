"""A TCP relay that cuts, refuses or swallows what goes through it, when the test says so."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

PIECE = 65536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class Relay:
    """Carries connections to a port of this machine, in threads of its own."""

    def __init__(self, target: int) -> None:
        self.accepted = 0
        """How many connections came in so far."""
        self.carried = 0
        """How many bytes it took from either side so far."""
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._admits = self._answers = True
        self._cut_at: list[int] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Reset every connection, both ends; returns how many ends there were."""
        with self._lock:
            ends, self._open = self._open, set()
        for end in ends:
            _drop(end)
        return len(ends)

    def cut_each(self, size: int, times: int) -> None:
        """Cut by itself each time that so many more bytes were carried; returns at once."""
        with self._lock:
            self._cut_at = [self.carried + size * number for number in range(times, 0, -1)]

    @property
    def cuts_left(self) -> int:
        """How many of those are to come."""
        return len(self._cut_at)

    def refuse(self) -> None:
        """Cut, and reset whoever comes from now on."""
        self._admits = False
        self.cut()

    def swallow(self) -> None:
        """Take connections from now on, and never say a word."""
        self._answers = False

    def admit(self) -> None:
        """Carry connections again; those that were swallowed are cut."""
        if not self._answers:
            self.cut()
        self._admits = self._answers = True

    def close(self) -> None:
        self.refuse()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            self.accepted += 1
            if not self._admits:
                _drop(near)
            elif not self._answers:
                self._keep(near)
            else:
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            _drop(near)
            return
        far.settimeout(None)
        self._keep(near, far)
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _keep(self, *ends: socket.socket) -> None:
        with self._lock:
            self._open.update(ends)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while (data := source.recv(PIECE)) and not self._is_due(len(data)):
                sink.sendall(data)
        for end in (source, sink):
            with self._lock:
                self._open.discard(end)
            _drop(end)

    def _is_due(self, size: int) -> bool:
        """Count what came in; whether its connection is to be cut now."""
        with self._lock:
            self.carried += size
            if not self._cut_at or self.carried < self._cut_at[-1]:
                return False
            self._cut_at.pop()
            return True


def _drop(end: socket.socket) -> None:
    """Close with RST, and wake whoever waits in it."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.shutdown(socket.SHUT_RDWR)
    end.close()
