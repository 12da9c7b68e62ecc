"""File descriptors that others gave us, read and written without ever blocking the loop.

Pipes, sockets and terminals are polled; plain files and devices like /dev/null, which can't be, are
simply read and written: they never wait for anybody.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def nonblocking(*descriptors: int) -> Iterator[None]:
    """Make descriptors non-blocking while the block runs.

    Others may share what they stand for, as a shell shares its terminal; so they are set back.
    """
    before = [(descriptor, os.get_blocking(descriptor)) for descriptor in descriptors]
    try:
        for descriptor, _ in before:
            os.set_blocking(descriptor, False)
        yield
    finally:
        for descriptor, blocking in reversed(before):
            os.set_blocking(descriptor, blocking)


async def readable(descriptor: int) -> None:
    """Wait until there is something to read, or its end."""
    loop = asyncio.get_running_loop()
    await _polled(descriptor, loop.add_reader, loop.remove_reader)


async def read(descriptor: int, limit: int) -> bytes:
    """Bytes of a non-blocking descriptor, at least 1 and at most `limit`; `b""` at its end.

    Raises:
        OSError: what is behind it went away.
    """
    while True:
        try:
            return os.read(descriptor, limit)
        except BlockingIOError:
            await readable(descriptor)


async def write(descriptor: int, data: bytes) -> None:
    """Write all of `data` to a non-blocking descriptor.

    Raises:
        OSError: what is behind it went away; BrokenPipeError when nobody reads any more.
    """
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await _polled(descriptor, loop.add_writer, loop.remove_writer)


async def _polled(
    descriptor: int, add: Callable[..., object], remove: Callable[[int], object]
) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        add(descriptor, _wake, ready)
    except OSError:  # epoll takes no plain files
        return
    try:
        await ready
    finally:
        remove(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
