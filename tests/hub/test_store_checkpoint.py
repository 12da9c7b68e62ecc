"""Checkpoints: the log stays short, writes wait only when they must."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store import checkpoint
from hub.store.driver import DriverConnection
from hub.store.engine import Store
from hub.store.schema import settings

VALUE = "x" * 100_000


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def put_much(connection: AsyncConnection, key: str) -> None:
    await connection.execute(insert(settings).values(key=key, value=VALUE))


async def count(store: Store) -> int:
    async with store.read() as connection:
        return await connection.scalar(select(func.count()).select_from(settings)) or 0


async def test_the_log_stays_short_under_a_steady_load_of_writes(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    log = tmp_path / "hub.db-wal"
    longest, written = 0, 400
    async with Store.open(url_of(path)) as store:
        for number in range(written):
            await store.write(partial(put_much, key=str(number)))
            longest = max(longest, log.stat().st_size)
        assert await count(store) == written
    assert not log.exists() or log.stat().st_size == 0
    assert path.stat().st_size > written * 100_000
    assert longest < checkpoint.LIMIT_BYTES / 2


async def test_a_log_far_too_long_makes_writes_wait_for_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1_000_000
    monkeypatch.setattr(checkpoint, "LIMIT_BYTES", limit)
    path = tmp_path / "hub.db"
    async with Store.open(url_of(path)):
        pass
    connection = await DriverConnection.open(path, read_only=False)
    checkpoints = connection._checkpoints
    assert checkpoints is not None
    checkpoints._due_bytes = limit
    cursor = connection.cursor()
    for number in range(100):
        await connection.begin("BEGIN IMMEDIATE")
        assert checkpoints.log_bytes() < limit + 200_000
        await cursor.execute("INSERT INTO settings VALUES (?, ?)", (str(number), "1" * 100_000))
        await connection.commit()
        checkpoints._due_bytes = limit
    await connection.close()


async def test_a_reader_in_the_log_stops_no_write(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Store.open(url_of(path)) as store:
        await store.write(partial(put_much, key="a"))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM settings").fetchone() == (1,)
        for number in range(100):
            await store.write(partial(put_much, key=str(number)))
        assert reader.execute("SELECT count(*) FROM settings").fetchone() == (1,)
        reader.execute("COMMIT")
        reader.close()
        assert await count(store) == 101
