"""Which runs this node ever started: the last 10,000, on disk before each start.

A run whose directory is gone, acknowledged or lost with the power, is still known here and never
started again. One file of fixed slots, written in place: a start costs one write and one fdatasync
of a block that is allocated already.
"""

from __future__ import annotations

import os
import struct
import threading
from hashlib import blake2b
from pathlib import Path

SLOTS = 10_000
_SLOT = struct.Struct("!16sQ8x")  # digest of the run's name, sequence number from 1; 32 bytes


class Starts:
    """The file of started runs."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        content = os.pread(self._fd, SLOTS * _SLOT.size, 0)
        if len(content) < SLOTS * _SLOT.size:
            # Zeros are written, not left as a hole: a later write changes no metadata.
            os.pwrite(self._fd, bytes(SLOTS * _SLOT.size - len(content)), len(content))
            os.fsync(self._fd)
            content = os.pread(self._fd, SLOTS * _SLOT.size, 0)
        self._slots: list[bytes] = []
        self._known: set[bytes] = set()
        self._sequence = 0
        self._lock = threading.Lock()
        for digest, sequence in _SLOT.iter_unpack(content):
            self._slots.append(digest)
            if sequence:
                self._known.add(digest)
                self._sequence = max(self._sequence, sequence)

    def __contains__(self, run: str) -> bool:
        return _digest(run) in self._known

    def add(self, run: str) -> None:
        """Remember a run, on disk when this returns. Blocks: call it in a thread.

        Raises:
            OSError: It could not be made sure, so the run must not be started.
        """
        digest = _digest(run)
        with self._lock:
            self._sequence += 1
            index = (self._sequence - 1) % SLOTS
            os.pwrite(self._fd, _SLOT.pack(digest, self._sequence), index * _SLOT.size)
            self._known.discard(self._slots[index])
            self._slots[index] = digest
            self._known.add(digest)
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def _digest(run: str) -> bytes:
    return blake2b(run.encode(), digest_size=16).digest()
