"""The artifact store takes whole uploads only and leaves nothing of the others."""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from hub.artifacts import CHUNK_BYTES, Artifacts
from hub.errors import BadRequest, HubError, TooLarge
from tests.archives import make_zip


async def pieces(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def stored(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


async def test_an_upload_is_hashed_kept_and_read_by_ranges(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a")
    data = Random(1).randbytes(2 * CHUNK_BYTES + 77)
    digest = hashlib.sha256(data).hexdigest()
    upload = await artifacts.receive(
        pieces(data), declared_bytes=len(data), checksum=digest.upper()
    )
    assert (upload.digest, upload.size_bytes, upload.head) == (digest, len(data), data[:16])
    assert upload.chunk_digests == b"".join(
        hashlib.sha256(data[start : start + CHUNK_BYTES]).digest()
        for start in range(0, len(data), CHUNK_BYTES)
    )
    assert await artifacts.digests() == set()
    await artifacts.keep(upload)
    await artifacts.discard(upload)
    assert stored(tmp_path / "a") == [digest]
    assert await artifacts.digests() == {digest}
    assert await artifacts.read(digest, 5, 10) == data[5:15]
    assert b"".join([part async for part in artifacts.stream(digest, len(data))]) == data
    await artifacts.delete(digest)
    await artifacts.delete(digest)
    with pytest.raises(HubError, match="cannot be read"):
        await artifacts.read(digest, 0, 1)


async def test_the_same_bytes_twice_are_one_artifact(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    for _ in range(2):
        await artifacts.keep(await artifacts.receive(pieces(b"same")))
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize(
    ("declared", "checksum", "reason"),
    [
        (10, None, "5 bytes and not the 10"),
        (3, None, "5 bytes and not the 3"),
        (5, "0" * 64, "SHA-256"),
        (5, "nonsense", "SHA-256"),
    ],
)
async def test_a_wrong_length_or_checksum_leaves_nothing(
    tmp_path: Path, declared: int, checksum: str | None, reason: str
) -> None:
    with pytest.raises(BadRequest, match=reason):
        await Artifacts(tmp_path).receive(
            pieces(b"12345"), declared_bytes=declared, checksum=checksum
        )
    assert stored(tmp_path) == []


async def test_an_empty_upload_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="empty"):
        await Artifacts(tmp_path).receive(pieces(b""))
    assert stored(tmp_path) == []


async def test_more_than_4_gib_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"x"

    with pytest.raises(TooLarge):
        await Artifacts(tmp_path).receive(body(), declared_bytes=5 * 1024**3)
    assert read == []


async def test_a_body_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(3 * CHUNK_BYTES)
        raise BadRequest("cut")

    with pytest.raises(BadRequest, match="cut"):
        await Artifacts(tmp_path).receive(broken())
    assert stored(tmp_path) == []


async def test_a_cancelled_upload_leaves_nothing_for_the_next_start(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(2 * CHUNK_BYTES)
        begun.set()
        await asyncio.get_running_loop().create_future()

    artifacts = Artifacts(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        upload = tasks.create_task(artifacts.receive(endless()))
        await begun.wait()
        upload.cancel()
    (tmp_path / "incoming/left#1").write_bytes(b"of a killed hub")
    assert await artifacts.digests() == set()
    Artifacts(tmp_path)
    assert stored(tmp_path) == []


async def test_an_upload_reads_like_a_file(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    content = Random(2).randbytes(CHUNK_BYTES + 5)
    upload = await artifacts.receive(pieces(make_zip({"a": content, "b": b"2"})))

    def read() -> bytes:
        with zipfile.ZipFile(artifacts.open(upload)) as archive:
            return archive.read("a")

    assert await asyncio.to_thread(read) == content
