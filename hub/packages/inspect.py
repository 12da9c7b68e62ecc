"""Look into an uploaded archive by the rules by which nodes will unpack it.

The rule it guards: an archive that a node would refuse is refused at upload. It walks all members,
keeps the content of `service.json` only, and blocks: call it in a worker thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from hub.packages.manifest import MANIFEST_LIMIT_BYTES
from protocol.archive_rules import ArchiveFormat, ArchiveRefused
from protocol.archives import Member, walk

_MANIFEST = "service.json"


def read_manifest(source: BinaryIO, archive_format: ArchiveFormat, size_bytes: int) -> bytes | None:
    """Check every member and return `service.json` of the root, or else of the only top folder.

    Raises:
        ArchiveRefused: The archive is damaged, empty or breaks a rule.
    """
    found: dict[tuple[str, ...], bytes] = {}
    tops: set[str] = set()
    files = 0
    for member in walk(source, archive_format, size_bytes):
        parts = member.entry.parts
        tops.update(parts[:1])
        files += not member.entry.is_directory
        if parts[-1:] == (_MANIFEST,) and (len(parts) == 1 or (len(parts) == 2 and len(tops) == 1)):
            found[parts] = b"".join(_bounded(member))
    if files == 0:
        raise ArchiveRefused("it holds no file")
    if len(tops) == 1:
        return next(iter(found.values()), None)
    return found.get((_MANIFEST,))


def _bounded(member: Member) -> Iterator[bytes]:
    if member.entry.is_directory or member.entry.size_bytes > MANIFEST_LIMIT_BYTES:
        raise ArchiveRefused(f"{_MANIFEST} is no file of at most {MANIFEST_LIMIT_BYTES:,} bytes")
    return member.content
