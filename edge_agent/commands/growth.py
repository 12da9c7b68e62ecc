"""Tells at once when a file in a watched directory is written to: inotify(7) through ctypes.

Where the kernel gives no inotify (limits, old sandboxes), nothing is told and `poll_s` is short
instead: whoever waits for growth also looks by itself every `poll_s`.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)

_IN_MODIFY = 0x002
_EVENT = struct.Struct("iIII")  # wd, mask, cookie, length of the name that follows
_READ = 64 * 1024
_TOLD_POLL_S = 1.0
_BLIND_POLL_S = 0.05


class Changes:
    """A condition without a lock: every waiter of a moment is woken by the next change."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Return the event of the next change; take it before looking, wait on it afterwards."""
        return self._next

    def notify(self) -> None:
        """Wake everybody that waits."""
        self._next.set()
        self._next = asyncio.Event()


class Growth:
    """One inotify instance and who wants to know about which directory."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._tell: dict[int, Callable[[], None]] = {}
        self._fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            _log.info("no inotify (%s): output is polled", os.strerror(ctypes.get_errno()))
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._read)

    @property
    def poll_s(self) -> float:
        """How often to look without being told, in seconds."""
        return _BLIND_POLL_S if self._fd < 0 else _TOLD_POLL_S

    def watch(self, directory: Path, tell: Callable[[], None]) -> int:
        """Call `tell` whenever a file in the directory grows; return a handle, negative if none."""
        if self._fd < 0:
            return -1
        handle: int = self._libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_MODIFY)
        if handle >= 0:
            self._tell[handle] = tell
        return handle

    def forget(self, handle: int) -> None:
        """Stop watching what `watch` gave the handle for."""
        if self._tell.pop(handle, None) is not None:
            self._libc.inotify_rm_watch(self._fd, handle)

    def close(self) -> None:
        """Stop watching everything."""
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._tell.clear()

    def _read(self) -> None:
        try:
            events = os.read(self._fd, _READ)
        except BlockingIOError:
            return
        grown = set()
        offset = 0
        while offset < len(events):
            handle, _, _, name_length = _EVENT.unpack_from(events, offset)
            offset += _EVENT.size + name_length
            grown.add(handle)
        for handle in grown:
            if (tell := self._tell.get(handle)) is not None:
                tell()
