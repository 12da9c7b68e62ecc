"""Files that only their owner reads, replaced whole or not at all.

A reader, also after a power cut, sees the old content or the new one. `write_private` puts the
bytes in a new file beside the old one, syncs it, renames it over and syncs the directory.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def make_private_directory(path: Path) -> None:
    """Make `path` and its missing parents; `path` itself ends with mode 0700."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file's content atomically; its mode becomes 0600.

    Raises:
        OSError: nothing was changed.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames and removals in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
