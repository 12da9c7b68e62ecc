from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mooring.cli.descriptors import nonblocking, read, write


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """ssh-proxy runs on uvloop, shell on asyncio."""
    return ("asyncio", {"use_uvloop": request.param})


@contextmanager
def joined(kind: str) -> Iterator[tuple[int, int]]:
    """Two descriptors: what is written to the second is read from the first."""
    if kind == "socket":
        left, right = socket.socketpair()
        source, sink = left.detach(), right.detach()
    else:
        source, sink = os.pipe() if kind == "pipe" else os.openpty()
    try:
        yield source, sink
    finally:
        os.close(source)
        os.close(sink)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_more_than_fits_waits_for_the_reader(kind: str) -> None:
    line = b"0123456789abcdef" * 8 + b"\n"
    payload = line * 20_000
    with joined(kind) as (source, sink), nonblocking(source, sink):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write(sink, payload))
            received = b""
            while len(received.replace(b"\r", b"")) < len(payload):
                received += await read(source, 65536)
    assert received.replace(b"\r", b"") == payload


async def test_the_writers_end_is_an_empty_piece() -> None:
    with joined("pipe") as (source, sink), nonblocking(source):
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(read(source, 10))
            await asyncio.sleep(0)
            os.dup2(source, sink)  # the only writer is gone
        assert reading.result() == b""


async def test_a_reader_that_left_is_an_error() -> None:
    with joined("pipe") as (source, sink), nonblocking(sink):
        os.dup2(sink, source)  # the only reader is gone
        with pytest.raises(BrokenPipeError):
            await write(sink, b"x")


async def test_plain_files_and_devices_are_read_and_written_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello")
    with path.open("rb") as source, Path(os.devnull).open("wb") as sink:
        with nonblocking(source.fileno(), sink.fileno()):
            assert await read(source.fileno(), 65536) == b"hello"
            assert await read(source.fileno(), 65536) == b""
            await write(sink.fileno(), b"x" * 100_000)


def test_descriptors_are_set_back() -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    with pytest.raises(ZeroDivisionError), nonblocking(source, sink, source):
        assert not os.get_blocking(source)
        raise ZeroDivisionError
    assert os.get_blocking(source)
    assert not os.get_blocking(sink)
    os.close(source)
    os.close(sink)
