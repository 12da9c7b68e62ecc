"""What a package's archive may hold: the rules hub and agent share, as plain values (no I/O).

`Admission` looks at one member after the other and answers with an `Entry` that is safe to create
below an empty directory, or raises `ArchiveRefused`. It goes by declared sizes: whoever unpacks may
take no more bytes of a member than were declared. The hub asks at upload, the agent asks again
while it unpacks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

from protocol.errors import ProtocolError

ArchiveFormat: TypeAlias = Literal["zip", "tar.gz"]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"
"""Names and versions of packages: one path component that starts with a letter or digit."""
_NAME = re.compile(NAME_PATTERN)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ArchiveRefused(ProtocolError):
    """The archive breaks a rule; nothing of it may be used."""

    def __init__(self, reason: str, member: str = "") -> None:
        super().__init__(reason, member)
        self.reason = reason
        self.member = member

    def __str__(self) -> str:
        if not self.member:
            return f"the archive is refused: {self.reason}"
        return f"the archive is refused: {self.reason}: {_shown(self.member)}"


class MemberKind(Enum):
    """What a member would become on disk; only the first two are ever admitted."""

    FILE = "a file"
    DIRECTORY = "a directory"
    LINK = "a link"
    DEVICE = "a device, pipe or socket"
    UNKNOWN = "of an unknown kind"


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds of one archive ; the defaults are the product's."""

    archive_bytes: int = 4 * 1024**3
    entries: int = 50_000
    """Members and the directories they imply."""
    unpacked_bytes: int = 10 * 1024**3
    ratio: int = 200
    """Unpacked bytes for each byte of the archive …"""
    ratio_free_bytes: int = 1024 * 1024
    """… once this much is unpacked: a small file of zeros is no bomb."""
    path_bytes: int = 1024
    name_bytes: int = 255
    """One component: what Linux file systems take."""
    depth: int = 64


LIMITS = ArchiveLimits()


@dataclass(frozen=True, slots=True)
class Entry:
    """A member that was admitted."""

    parts: tuple[str, ...]
    """Path components below the root; empty for the root itself."""
    is_directory: bool
    size_bytes: int
    mode: int
    """Permission bits to create it with: only the owner may write, no setuid, setgid or sticky."""


def valid_name(name: str) -> bool:
    """Tell whether `name` may be a package's name or version."""
    return _NAME.fullmatch(name) is not None


class Admission:
    """Admits the members of one archive, in its order."""

    def __init__(self, archive_bytes: int, limits: ArchiveLimits = LIMITS) -> None:
        """Start with an archive of `archive_bytes`.

        Raises:
            ArchiveRefused: The archive itself is too large.
        """
        if archive_bytes > limits.archive_bytes:
            raise ArchiveRefused(
                f"it has {archive_bytes:,} bytes, at most {limits.archive_bytes:,} are allowed"
            )
        self._limits = limits
        self._unpacked_limit = min(
            limits.unpacked_bytes, max(limits.ratio * archive_bytes, limits.ratio_free_bytes)
        )
        self._by_ratio = self._unpacked_limit < limits.unpacked_bytes
        self._unpacked = 0
        self._members = 0
        self._seen: dict[tuple[str, ...], bool] = {}  # path -> is a directory

    def admit(self, path: str, kind: MemberKind, size_bytes: int, mode: int) -> Entry:
        """Check the next member and answer what may be created for it.

        Raises:
            ArchiveRefused: It breaks a rule.
        """
        self._members += 1
        if self._members > self._limits.entries:
            raise ArchiveRefused(f"it has more than {self._limits.entries:,} entries")
        if kind not in (MemberKind.FILE, MemberKind.DIRECTORY):
            raise ArchiveRefused(f"a member is {kind.value}", path)
        is_directory = kind is MemberKind.DIRECTORY
        parts = self._split(path)
        self._spend(path, is_directory, size_bytes)
        self._place(path, parts, is_directory)
        mode = 0o755 if is_directory else (mode & 0o755 or 0o644) | 0o600
        return Entry(parts, is_directory, 0 if is_directory else size_bytes, mode)

    def _split(self, path: str) -> tuple[str, ...]:
        try:
            encoded = path.encode()
        except UnicodeEncodeError:
            raise ArchiveRefused("a name is not UTF-8", path) from None
        if len(encoded) > self._limits.path_bytes:
            raise ArchiveRefused(f"a path is longer than {self._limits.path_bytes:,} bytes", path)
        if _CONTROL.search(path):
            raise ArchiveRefused("a name has control characters", path)
        if path.startswith(("/", "\\")):
            raise ArchiveRefused("a path is absolute", path)
        if ".." in re.split(r"[/\\]", path):
            raise ArchiveRefused("a path leaves the archive by ..", path)
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if len(parts) > self._limits.depth:
            raise ArchiveRefused(f"a path is deeper than {self._limits.depth} folders", path)
        if any(len(part.encode()) > self._limits.name_bytes for part in parts):
            raise ArchiveRefused(f"a name is longer than {self._limits.name_bytes} bytes", path)
        return parts

    def _spend(self, path: str, is_directory: bool, size_bytes: int) -> None:
        if size_bytes < 0 or (is_directory and size_bytes):
            raise ArchiveRefused("a member has an impossible size", path)
        self._unpacked += size_bytes
        if self._unpacked <= self._unpacked_limit:
            return
        if self._by_ratio:
            raise ArchiveRefused(f"it unpacks to more than {self._limits.ratio} times its size")
        raise ArchiveRefused(f"it unpacks to more than {self._unpacked_limit:,} bytes")

    def _place(self, path: str, parts: tuple[str, ...], is_directory: bool) -> None:
        if not parts:
            if not is_directory:
                raise ArchiveRefused("a file has no name", path)
            return
        for depth in range(1, len(parts)):
            if not self._seen.setdefault(parts[:depth], True):
                raise ArchiveRefused("a file is used as a folder", path)
        if parts in self._seen and not (is_directory and self._seen[parts]):
            raise ArchiveRefused("a name appears twice", path)
        self._seen[parts] = is_directory
        if len(self._seen) > self._limits.entries:
            raise ArchiveRefused(f"it has more than {self._limits.entries:,} files and folders")


def _shown(member: str) -> str:
    printable = member.encode("utf-8", "backslashreplace").decode()
    printable = _CONTROL.sub("?", printable)
    return printable if len(printable) <= 120 else f"{printable[:117]}…"
