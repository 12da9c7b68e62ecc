"""Walk a zip or tar.gz member by member, admitting each by `archive_rules`.

Hub (inspection at upload) and agent (extraction) both go through `walk`, so that what one side
takes the other takes too. It reads from an open binary file that the caller owns, writes nothing,
holds a bounded amount whatever the archive claims, and turns every defect into `ArchiveRefused`.
"""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tarfile import EmptyHeaderError, EOFHeaderError, HeaderError  # type: ignore[attr-defined]
from typing import IO, BinaryIO, Self

from protocol.archive_rules import (
    LIMITS,
    Admission,
    ArchiveFormat,
    ArchiveLimits,
    ArchiveRefused,
    Entry,
    MemberKind,
)

PIECE_BYTES = 256 * 1024
"""Content is handed out in pieces of at most this size."""
_DIRECTORY_BYTES = 64 * 1024**2
"""The largest central directory of a zip: 50,000 members with the longest paths."""
_TAR_SLACK_BYTES = 1024**2
_TAR_HEADER_BYTES = 8 * 1024
"""A tar may spend 1 MiB, and 8 KiB a member, on headers and padding: what tarfile holds at most."""
_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC = b"\x1f\x8b"
_TAR_END = (EOFHeaderError, EmptyHeaderError)
_DEFECTS = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error,
    EOFError, ValueError, OverflowError, IndexError, NotImplementedError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """One admitted member; `content` may be read once, before the walk goes on."""

    entry: Entry
    content: Iterator[bytes]


def format_of(head: bytes) -> ArchiveFormat:
    """Tell the format from the first bytes of a file (at least 4).

    Raises:
        ArchiveRefused: It is neither zip nor gzip.
    """
    if head.startswith(_ZIP_MAGIC):
        return "zip"
    if head.startswith(_GZIP_MAGIC):
        return "tar.gz"
    raise ArchiveRefused("it is neither a zip nor a tar.gz file")


def walk(
    source: BinaryIO,
    archive_format: ArchiveFormat,
    archive_bytes: int,
    limits: ArchiveLimits = LIMITS,
) -> Iterator[Member]:
    """Yield the members of the archive of `archive_bytes` in `source` (seekable, at its start).

    Raises:
        ArchiveRefused: It is damaged, cut short, or breaks a rule.
    """
    admission = Admission(archive_bytes, limits)
    members = _zip_members if archive_format == "zip" else _tar_members
    with _defects_refused():
        yield from members(source, admission)


@contextmanager
def _defects_refused() -> Iterator[None]:
    try:
        yield
    except _DEFECTS as error:
        raise ArchiveRefused(f"it is damaged or cut short ({error})") from error


# --- zip ------------------------------------------------------------------------------------------


class _GuardedFile:
    """What zipfile reads through: refuses a central directory larger than the rules allow."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.seek = source.seek
        self.tell = source.tell
        self.seekable = source.seekable

    def read(self, size: int = -1, /) -> bytes:
        within = min(size, _DIRECTORY_BYTES + 1) if size >= 0 else _DIRECTORY_BYTES + 1
        data = self._source.read(within)
        if len(data) > _DIRECTORY_BYTES:
            raise ArchiveRefused("its table of contents is too large")
        if len(data) > PIECE_BYTES and data.count(b"PK\x01\x02") > LIMITS.entries:
            raise ArchiveRefused(f"it has more than {LIMITS.entries:,} entries")
        return data


def _zip_members(source: BinaryIO, admission: Admission) -> Iterator[Member]:
    guarded: IO[bytes] = _GuardedFile(source)  # type: ignore[assignment]  # the part zipfile uses
    with zipfile.ZipFile(guarded) as archive:
        for info in archive.infolist():
            entry = admission.admit(
                info.orig_filename, _zip_kind(info), info.file_size, info.external_attr >> 16
            )
            _check_zip_coding(info)
            yield Member(entry, iter(()) if entry.is_directory else _zip_content(archive, info))


def _zip_kind(info: zipfile.ZipInfo) -> MemberKind:
    named_directory = info.orig_filename.endswith("/")
    match stat.S_IFMT(info.external_attr >> 16):
        case 0:
            return MemberKind.DIRECTORY if named_directory else MemberKind.FILE
        case stat.S_IFREG if not named_directory:
            return MemberKind.FILE
        case stat.S_IFDIR if named_directory:
            return MemberKind.DIRECTORY
        case stat.S_IFLNK:
            return MemberKind.LINK
        case stat.S_IFCHR | stat.S_IFBLK | stat.S_IFIFO | stat.S_IFSOCK:
            return MemberKind.DEVICE
        case _:
            return MemberKind.UNKNOWN


def _check_zip_coding(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & 0x1:
        raise ArchiveRefused("a member is encrypted", info.filename)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveRefused("a member is neither stored nor deflated", info.filename)


def _zip_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with _defects_refused(), archive.open(info) as content:  # ends at file_size, checks the CRC
        yield from _pieces(content, info.file_size, info.filename)


# --- tar.gz ---------------------------------------------------------------------------------------


class _MeteredFile:
    """What tarfile reads through: at most `allowance` unpacked bytes, raised member by member."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.allowance = _TAR_SLACK_BYTES

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.allowance -= len(data)
        if self.allowance < 0:
            raise ArchiveRefused("its headers or its padding are too large")
        return data

    def drain(self) -> None:
        """Read the padding to the end, where gzip's checksum is."""
        while self.read(PIECE_BYTES):
            pass


class _StrictTarInfo(tarfile.TarInfo):
    """A broken header ends the walk with an error; tarfile itself would take it for the end."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:  # the name is the library's
        try:
            return super().fromtarfile(tarfile)
        except _TAR_END:
            raise
        except HeaderError as error:
            raise ArchiveRefused(f"it is damaged or cut short ({error})") from error


def _tar_members(source: BinaryIO, admission: Admission) -> Iterator[Member]:
    with gzip.GzipFile(fileobj=source, mode="rb") as unpacked:
        metered = _MeteredFile(io.BufferedReader(unpacked, PIECE_BYTES))
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_StrictTarInfo) as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                kind = _tar_kind(info)
                entry = admission.admit(info.name, kind, info.size, info.mode)
                metered.allowance += entry.size_bytes + _TAR_HEADER_BYTES
                content = iter(()) if entry.is_directory else _tar_content(archive, info)
                yield Member(entry, content)
        metered.drain()


def _tar_kind(info: tarfile.TarInfo) -> MemberKind:
    if info.issparse():
        return MemberKind.UNKNOWN
    if info.isreg():
        return MemberKind.FILE
    if info.isdir():
        return MemberKind.DIRECTORY
    if info.issym() or info.islnk():
        return MemberKind.LINK
    return MemberKind.DEVICE if info.isdev() else MemberKind.UNKNOWN


def _tar_content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    content = archive.extractfile(info)
    if content is None:
        raise ArchiveRefused("a member has no content", info.name)
    with _defects_refused(), content:
        yield from _pieces(content, info.size, info.name)


def _pieces(content: IO[bytes], size_bytes: int, name: str) -> Iterator[bytes]:
    """Yield exactly `size_bytes` of content."""
    left = size_bytes
    while left > 0:
        piece = content.read(min(left, PIECE_BYTES))
        if not piece:
            raise ArchiveRefused("a member is shorter than declared", name)
        left -= len(piece)
        yield piece
    if content.read(1):
        raise ArchiveRefused("a member is longer than declared", name)
