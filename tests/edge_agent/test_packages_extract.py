"""Unpacking writes what the archive holds, inside its directory only."""

from __future__ import annotations

import stat
import tarfile
import threading
from pathlib import Path

import pytest

from edge_agent.packages.disk import NodeRefused
from edge_agent.packages.extract import extract
from protocol.archive_rules import ArchiveFormat, ArchiveLimits, ArchiveRefused
from tests.archives import make_tar, make_zip, tar_file, tar_special

RUNNING = threading.Event()


def unpack(
    tmp_path: Path, data: bytes, kind: ArchiveFormat, stop: threading.Event = RUNNING
) -> Path:
    archive = tmp_path / "archive"
    archive.write_bytes(data)
    extract(archive, kind, tmp_path / "out", stop)
    return tmp_path / "out"


def outside(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name not in ("archive", "out"))


def test_files_folders_and_modes_are_made(tmp_path: Path) -> None:
    members = [
        (tar_special("empty", tarfile.DIRTYPE), b""),
        (tar_file("a/b/run", b"#!", 0o4775), b"#!"),
        (tar_file("a/b/data", b"x" * 700_000, 0o640), b"x" * 700_000),
        (tar_file("a/c", b"c"), b"c"),
        (tar_file("a/b/late", b"l"), b"l"),
    ]
    out = unpack(tmp_path, make_tar(members), "tar.gz")
    assert (out / "a/b/data").read_bytes() == b"x" * 700_000
    assert (out / "a/b/late").read_bytes() == b"l"
    assert stat.S_IMODE((out / "a/b/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "a/b/data").stat().st_mode) == 0o640
    assert stat.S_IMODE((out / "a").stat().st_mode) == 0o755
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert list((out / "empty").iterdir()) == []


def test_a_zip_is_unpacked_too(tmp_path: Path) -> None:
    out = unpack(tmp_path, make_zip({"a/b": b"1", "c": b""}), "zip")
    assert (out / "a/b").read_bytes() == b"1"
    assert (out / "c").read_bytes() == b""


@pytest.mark.parametrize("name", ["../evil", "/tmp/mooring-evil", "a/../../evil", "..\\evil"])
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_nothing_is_written_outside(tmp_path: Path, name: str, kind: ArchiveFormat) -> None:
    make = make_zip if kind == "zip" else make_tar
    with pytest.raises(ArchiveRefused):
        unpack(tmp_path, make({"good": b"1", name: b"evil"}), kind)
    assert outside(tmp_path) == []
    assert not Path("/tmp/mooring-evil").exists()


@pytest.mark.parametrize("link", ["..", "/etc", "inside"])
def test_writing_through_a_link_is_refused(tmp_path: Path, link: str) -> None:
    members = [(tar_special("dir", tarfile.SYMTYPE, link), b""), (tar_file("dir/x", b"1"), b"1")]
    with pytest.raises(ArchiveRefused, match="a link"):
        unpack(tmp_path, make_tar(members), "tar.gz")
    assert outside(tmp_path) == []


def test_a_link_planted_meanwhile_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    stop = PlantLink(tmp_path / "out/dir", secret)
    data = make_tar({"first": b"1", "dir/x": b"evil"})
    with pytest.raises(OSError, match="dir"):
        unpack(tmp_path, data, "tar.gz", stop)
    assert list(secret.iterdir()) == []


class PlantLink(threading.Event):
    """Plays an attacker on the node: makes a link as soon as the first member is unpacked."""

    def __init__(self, link: Path, target: Path) -> None:
        super().__init__()
        self._link, self._target = link, target

    def is_set(self) -> bool:
        if not self._link.is_symlink():
            self._link.symlink_to(self._target)
        return False


def test_it_stops_when_asked(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(NodeRefused):
        unpack(tmp_path, make_tar({"a": b"1"}), "tar.gz", stop)


def test_limits_hold(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(make_tar({f"f{n}": b"" for n in range(9)}))
    with pytest.raises(ArchiveRefused, match="more than 8"):
        extract(archive, "tar.gz", tmp_path / "out", RUNNING, ArchiveLimits(entries=8))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = open_descriptors()
    unpack(tmp_path, make_tar({"a/b/c/d": b"1", "a/x/y": b"2", "z": b"3"}), "tar.gz")
    with pytest.raises(ArchiveRefused):
        other = tmp_path / "other"
        other.mkdir()
        unpack(other, make_tar({"a/b": b"1", "a/b/c": b"2"}), "tar.gz")
    assert open_descriptors() == before
