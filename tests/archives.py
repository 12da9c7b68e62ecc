"""Build archives for tests, well-formed and hostile ones."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable

Files = dict[str, bytes]


def make_zip(files: Files | Iterable[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """A zip of deflated files, or of explicit members."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, data)
    return target.getvalue()


def make_tar(files: Files | Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar.gz of files, or of explicit members (a member's own size wins)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            info = name if isinstance(name, tarfile.TarInfo) else tar_file(name, data)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return gzipped(target.getvalue())


def tar_file(name: str, data: bytes, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = mode
    return info


def tar_special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def zip_file(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def gzipped(data: bytes) -> bytes:
    """Compressed; the same bytes whenever it is made."""
    return gzip.compress(data, mtime=0)
