"""Files that survive a crash: atomic writes, flushes, room left; blocking work that can be stopped.

The rule it guards: a file is replaced whole or not at all. Callers run all this in worker threads;
`in_thread` waits for the thread even when its caller is cancelled, so that no two threads ever work
in one directory.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import threading
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
RESERVE_BYTES = 512 * 1024**2
RESERVE_SHARE = 0.05
"""What stays free: 512 MiB, or 5 % of a small disk."""


class NodeRefused(Exception):
    """The node will not or cannot do it; the text says why and what to do."""


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run `work` in a worker thread; when cancelled, set its event and wait for it to return."""
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([future])
        raise


def unless_set(stop: threading.Event) -> None:
    """Go on, or raise `NodeRefused` because whoever waited for the work was cancelled."""
    if stop.is_set():
        raise NodeRefused("stopped")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` (0600) by `data`, on disk before this returns."""
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync_directory(path.parent)


def write_all(file: FileIO, data: bytes | bytearray) -> None:
    """Write all of `data` to an unbuffered file, which by itself may take less."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(path: Path) -> None:
    """Flush the file system that holds `path`: one call for the thousands of files of a release."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), f"syncfs of {path}")
    finally:
        os.close(descriptor)


def require_room(directory: Path, size_bytes: int) -> None:
    """Check that `size_bytes` and a tenth more fit on the disk and leave the reserve free.

    Raises:
        NodeRefused: They don't.
    """
    usage = shutil.disk_usage(directory)
    reserve = min(RESERVE_BYTES, int(usage.total * RESERVE_SHARE))
    needed = size_bytes * 11 // 10 + reserve
    if usage.free < needed:
        raise NodeRefused(
            f"not enough disk space under {directory}: {_mib(needed)} needed "
            f"({_mib(reserve)} of it kept free), {_mib(usage.free)} free"
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f} MiB"
