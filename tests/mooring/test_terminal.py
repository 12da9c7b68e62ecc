from __future__ import annotations

import asyncio
import os
import termios
from pathlib import Path

import pytest

from mooring.cli.terminal import Escape, keys, raw_terminal


@pytest.mark.parametrize(
    ("typed", "sent", "out"),
    [
        (b"ls ~/x\r", b"ls ~/x\r", False),
        (b"~.", b"", True),
        (b"ls\r~.more", b"ls\r", True),
        (b"~~.", b"~.", False),
        (b"~a", b"~a", False),
        (b"x~.", b"x~.", False),
    ],
)
def test_enter_tilde_dot_leaves(typed: bytes, sent: bytes, out: bool) -> None:
    assert Escape().feed(typed) == (sent, out)
    bytewise, escape = b"", Escape()
    for byte in typed:
        piece, done = escape.feed(bytes([byte]))
        bytewise += piece
        if done:
            break
    assert (bytewise, done) == (sent, out)


def test_the_terminal_is_restored_after_a_failure() -> None:
    master, slave = os.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(ZeroDivisionError), raw_terminal(slave):
        assert termios.tcgetattr(slave) != before
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


async def test_keys_come_from_pipes_and_plain_files(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one")
    found = keys(reading)
    assert await anext(found) == b"one"
    os.close(writing)
    assert [data async for data in found] == []
    os.close(reading)
    (tmp_path / "typed").write_bytes(b"two")
    with (tmp_path / "typed").open("rb") as file:
        assert [data async for data in keys(file.fileno())] == [b"two"]


async def test_waiting_for_a_key_can_be_cancelled() -> None:
    reading, writing = os.pipe()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(keys(reading))
    os.close(reading)
    os.close(writing)
