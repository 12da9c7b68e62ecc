"""Unpack an archive into a fresh directory, member by member.

The rule it guards: nothing is written outside that directory, whatever the archive says. Names are
admitted by `protocol.archive_rules`; every folder is opened below its parent's descriptor without
following links, every file is created and never overwritten.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from edge_agent.packages.disk import unless_set, write_all
from protocol.archive_rules import LIMITS, ArchiveFormat, ArchiveLimits
from protocol.archives import Member, walk

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def extract(
    archive: Path,
    archive_format: ArchiveFormat,
    destination: Path,
    stop: threading.Event,
    limits: ArchiveLimits = LIMITS,
) -> None:
    """Unpack `archive` into `destination`, which must not exist; the caller removes it on error.

    Raises:
        ArchiveRefused: The archive is damaged or breaks a rule.
        NodeRefused: `stop` was set.
        OSError: The disk is full, or does not work.
    """
    destination.mkdir(mode=0o700)
    with archive.open("rb") as source, _Tree(destination) as tree:
        for member in walk(source, archive_format, archive.stat().st_size, limits):
            if member.entry.is_directory:
                tree.folder(member.entry.parts)
            else:
                _write(tree, member, stop)
            unless_set(stop)


def _write(tree: _Tree, member: Member, stop: threading.Event) -> None:
    *parents, name = member.entry.parts
    folder = tree.folder(tuple(parents))
    with os.fdopen(os.open(name, _CREATE, 0o600, dir_fd=folder), "wb", buffering=0) as file:
        for piece in member.content:
            unless_set(stop)
            write_all(file, piece)
        os.fchmod(file.fileno(), member.entry.mode)


class _Tree:
    """The destination's folders: those from the root to the last used one are kept open."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _FOLDER)
        self._open: list[tuple[str, int]] = []

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._shorten(0)
        os.close(self._root)

    def folder(self, parts: tuple[str, ...]) -> int:
        """Return the descriptor of a folder, made if need be; valid until the next call."""
        common = 0
        while common < min(len(parts), len(self._open)) and self._open[common][0] == parts[common]:
            common += 1
        self._shorten(common)
        for part in parts[common:]:
            self._open.append((part, _enter(self._last(), part)))
        return self._last()

    def _last(self) -> int:
        return self._open[-1][1] if self._open else self._root

    def _shorten(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])


def _enter(parent: int, name: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _FOLDER, dir_fd=parent)
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    os.fchmod(descriptor, 0o755)  # whatever the umask is
    return descriptor
