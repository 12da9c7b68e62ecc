"""The operator's terminal while a shell is open: raw, restored whatever happens; keys and sizes.

Reading never blocks the loop: a terminal or a pipe is polled, a plain file is simply read. `Escape`
is the way out when the other side hangs: Enter, then `~.`, as in ssh.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from mooring.cli.descriptors import readable

READ_BYTES = 16 * 1024


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Pass keys on as they are typed while the block runs; nothing happens to what is no tty."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def terminal_size() -> tuple[int, int]:
    """Rows and columns, each 1 to 1000; 24 by 80 when there is no terminal."""
    size = shutil.get_terminal_size((80, 24))
    return min(max(size.lines, 1), 1000), min(max(size.columns, 1), 1000)


@contextmanager
def on_resize(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` whenever the terminal's size changes."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, act)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


async def keys(descriptor: int) -> AsyncIterator[bytes]:
    """Yield what is typed or piped in, until its end."""
    while True:
        await readable(descriptor)
        try:
            data = os.read(descriptor, READ_BYTES)
        except OSError:  # the terminal went away
            return
        if not data:
            return
        yield data


class Escape:
    """Finds `~.` at the beginning of a line in what is typed."""

    def __init__(self) -> None:
        self._at_start = True
        self._tilde = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what to send, and whether the person wants out.

        A tilde at a line's beginning is kept back until the next key says what it means.
        """
        sent = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte == ord("."):
                    return bytes(sent), True
                if byte != ord("~"):
                    sent += b"~"
            elif self._at_start and byte == ord("~"):
                self._tilde, self._at_start = True, False
                continue
            sent.append(byte)
            self._at_start = byte in b"\r\n"
        return bytes(sent), False
