"""What archives are taken, and that every hostile one is refused for its own reason."""

from __future__ import annotations

import io
import stat
import struct
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.archive_rules import (
    LIMITS,
    Admission,
    ArchiveFormat,
    ArchiveLimits,
    ArchiveRefused,
    MemberKind,
    valid_name,
)
from protocol.archives import format_of, walk
from tests.archives import gzipped, make_tar, make_zip, tar_file, tar_special, zip_file

SMALL = ArchiveLimits(entries=20, unpacked_bytes=4 * 1024**2, ratio_free_bytes=64 * 1024)


def unpack(data: bytes, limits: ArchiveLimits = LIMITS) -> dict[str, bytes | None]:
    """Walk an archive: path -> content, None for a folder."""
    found: dict[str, bytes | None] = {}
    for member in walk(io.BytesIO(data), format_of(data), len(data), limits):
        content = b"".join(member.content)
        found["/".join(member.entry.parts)] = None if member.entry.is_directory else content
    return found


def refusal(data: bytes, limits: ArchiveLimits = LIMITS) -> str:
    with pytest.raises(ArchiveRefused) as caught:
        unpack(data, limits)
    return str(caught.value)


def test_both_formats_give_the_same_members() -> None:
    files = {"bin/run": b"#!/bin/sh\n", "./etc/conf": b"x" * 300_000, "empty": b""}
    expected = {"bin/run": b"#!/bin/sh\n", "etc/conf": b"x" * 300_000, "empty": b""}
    assert unpack(make_zip(files)) == expected
    assert unpack(make_tar(files)) == expected


def test_a_tar_of_a_directory_with_its_root_entry_is_taken() -> None:
    folder = [tar_special("./", tarfile.DIRTYPE), tar_special("./a", tarfile.DIRTYPE)]
    data = make_tar([(one, b"") for one in (*folder, folder[1])] + [(tar_file("a/b", b"1"), b"1")])
    assert unpack(data) == {"": None, "a": None, "a/b": b"1"}


def test_members_may_be_skipped() -> None:
    for data in (make_tar({"a": b"1" * 9999, "b": b"2"}), make_zip({"a": b"1", "b": b"2"})):
        names = [m.entry.parts for m in walk(io.BytesIO(data), format_of(data), len(data))]
        assert names == [("a",), ("b",)]


def test_modes_lose_setuid_and_foreign_write_permission() -> None:
    data = make_tar([(tar_file("a", b"", 0o6777), b""), (tar_file("b", b"", 0o640), b"")])
    modes = [m.entry.mode for m in walk(io.BytesIO(data), "tar.gz", len(data))]
    assert modes == [0o755, 0o640]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "by .."),
        ("a/../../evil", "by .."),
        ("a\\..\\evil", "by .."),
        ("..", "by .."),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share", "absolute"),
        ("a\nb", "control"),
        ("a\x1b[2Jb", "control"),
        ("x" * 256, "longer than 255"),
        ("/".join(["y" * 200] * 6), "longer than 1,024"),
        ("/".join("d" * 65), "deeper than 64"),
    ],
)
def test_bad_names_are_refused(name: str, reason: str) -> None:
    assert reason in refusal(make_tar({name: b"x"}))
    assert reason in refusal(make_zip({name: b"x"}))


def test_a_nul_in_a_zip_name_is_refused() -> None:
    data = make_zip({"aaaa?b": b""}).replace(b"aaaa?b", b"aaaa\0b")
    assert "control" in refusal(data)


def test_a_name_that_is_not_utf8_is_refused() -> None:
    info = tar_file("caf\udce9", b"")
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(info, io.BytesIO())
    assert "not UTF-8" in refusal(target.getvalue())


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device, pipe"),
        (tarfile.GNUTYPE_SPARSE, "unknown kind"),
        (b"Z", "unknown kind"),
    ],
)
def test_special_members_of_a_tar_are_refused(kind: bytes, reason: str) -> None:
    assert reason in refusal(make_tar([(tar_special("x", kind, "/etc/passwd"), b"")]))


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (stat.S_IFLNK | 0o777, "a link"),
        (stat.S_IFCHR, "a device"),
        (stat.S_IFBLK, "a device"),
        (stat.S_IFIFO, "a device"),
        (stat.S_IFSOCK, "a device"),
        (stat.S_IFDIR, "unknown kind"),
    ],
)
def test_special_members_of_a_zip_are_refused(mode: int, reason: str) -> None:
    assert reason in refusal(make_zip([(zip_file("x", mode), b"/etc/passwd")]))


def test_names_that_collide_are_refused() -> None:
    twice = make_tar([(tar_file("a", b"1"), b"1"), (tar_file("./a", b"2"), b"2")])
    assert "twice" in refusal(twice)
    assert "used as a folder" in refusal(make_tar({"a": b"", "a/b": b""}))
    assert "twice" in refusal(make_zip({"a/b": b"", "a": b""}))


def test_names_that_differ_in_case_are_two_files() -> None:
    assert unpack(make_zip({"README": b"1", "readme": b"2"})) == {"README": b"1", "readme": b"2"}


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    zeros = {"zeros": bytes(40 * 1024**2)}
    assert "200 times" in refusal(make_zip(zeros))
    assert "200 times" in refusal(make_tar(zeros))


def test_a_small_file_of_zeros_is_no_bomb() -> None:
    assert unpack(make_tar({"zeros": bytes(900_000)})) == {"zeros": bytes(900_000)}


def test_many_members_together_can_be_a_bomb() -> None:
    body = bytes(200_000)
    data = make_zip({f"f{number:02}": body for number in range(15)})
    assert "200 times" in refusal(data, SMALL)


def test_too_many_entries_and_implied_folders_are_refused() -> None:
    assert "more than 20 entries" in refusal(make_tar({f"f{n}": b"" for n in range(21)}), SMALL)
    assert "more than 20 entries" in refusal(make_zip({f"f{n}": b"" for n in range(21)}), SMALL)
    deep = {"/".join(f"{n}{m}" for m in range(5)): b"" for n in range(5)}
    assert "files and folders" in refusal(make_tar(deep), SMALL)


def test_an_archive_larger_than_the_limit_is_refused_unread() -> None:
    with pytest.raises(ArchiveRefused, match="at most 4,294,967,296"):
        next(walk(io.BytesIO(), "zip", 5 * 1024**3))


def test_a_declared_size_beyond_the_limit_is_refused() -> None:
    info = tarfile.TarInfo("huge")
    info.size = 11 * 1024**3
    assert "10,737,418,240" in refusal_of_member(info.name, info.size)
    assert "200 times" in refusal(gzipped(info.tobuf(tarfile.PAX_FORMAT)))


def refusal_of_member(name: str, size_bytes: int) -> str:
    admission = Admission(4 * 1024**3)
    with pytest.raises(ArchiveRefused) as caught:
        admission.admit(name, MemberKind.FILE, size_bytes, 0o644)
    return str(caught.value)


def test_huge_tar_headers_are_refused() -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 64 * 1024**2
    assert "headers" in refusal(gzipped(header.tobuf() + bytes(header.size)))


def test_a_long_chain_of_headers_is_refused() -> None:
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type = tarfile.GNUTYPE_LONGNAME
    long_name.size = 2
    block = long_name.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    assert refusal(gzipped(block * 5000))


def test_a_large_table_of_contents_is_refused() -> None:
    entry = b"PK\x01\x02" + bytes(42) + b"n"
    entries = entry[:28] + struct.pack("<H", 1) + entry[30:]
    table = entries * 50_001
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(table), 4, 0)
    assert "50,000 entries" in refusal(b"PK\x03\x04" + table + end)


def test_every_truncation_is_refused() -> None:
    body = bytes(range(256)) * 40
    for data in (make_tar({"a": body, "b": body}), make_zip({"a": body, "b": body})):
        for length in range(4, len(data) - 1, 7):
            refusal(data[:length])


def test_a_damaged_header_inside_a_tar_is_refused() -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name in ("a", "b"):
            archive.addfile(tar_file(name, b"x" * 512), io.BytesIO(b"x" * 512))
    broken = bytearray(plain.getvalue())
    broken[1024 + 150] ^= 1
    assert "damaged" in refusal(gzipped(bytes(broken)))


def test_wrong_checksums_are_refused() -> None:
    stored = bytearray(make_zip([(zipfile.ZipInfo("a"), b"content")]))
    stored[stored.index(b"content")] ^= 1
    assert "damaged" in refusal(bytes(stored))
    packed = bytearray(make_tar({"a": b"content"}))
    packed[-8] ^= 1
    assert "damaged" in refusal(bytes(packed))


def test_encrypted_and_exotic_zip_members_are_refused() -> None:
    data = bytearray(make_zip({"a": b"secret"}))
    table = data.index(b"PK\x01\x02")
    data[table + 8] |= 1
    assert "encrypted" in refusal(bytes(data))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x")
    assert "neither stored nor deflated" in refusal(target.getvalue())


def test_other_formats_are_refused() -> None:
    with pytest.raises(ArchiveRefused, match="neither a zip nor a tar"):
        format_of(b"7z\xbc\xaf\x27\x1c")


@given(st.binary(max_size=400), st.sampled_from(["zip", "tar.gz"]))
def test_garbage_is_refused_and_nothing_else_is_raised(data: bytes, kind: ArchiveFormat) -> None:
    head = b"PK\x03\x04" if kind == "zip" else b"\x1f\x8b\x08"
    with pytest.raises(ArchiveRefused):
        list(walk(io.BytesIO(head + data), kind, len(head + data)))


@given(st.data())
def test_a_flipped_byte_is_read_or_refused(data: st.DataObject) -> None:
    make = data.draw(st.sampled_from([make_zip, make_tar]))
    archive = bytearray(make({"a/b": b"hello" * 50, "c": b"x"}))
    position = data.draw(st.integers(4, len(archive) - 1))
    archive[position] ^= data.draw(st.integers(1, 255))
    try:
        unpack(bytes(archive))
    except ArchiveRefused as error:
        assert str(error)


@pytest.mark.parametrize("name", ["a", "web-1.2_3+b.4", "0", "A" * 128])
def test_valid_names(name: str) -> None:
    assert valid_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-a", "a/b", "a b", "é", "a\n", "A" * 129, ".new-x"]
)
def test_invalid_names(name: str) -> None:
    assert not valid_name(name)
