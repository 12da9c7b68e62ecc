"""The store: migrations, group commits, isolation of units, clean close, crashes."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import BadRequest, Conflict, Unavailable
from hub.store import writer
from hub.store.engine import Store
from hub.store.schema import memberships, metadata, settings


def url_of(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


async def put(connection: AsyncConnection, key: str) -> str:
    await connection.execute(insert(settings).values(key=key, value=1))
    return key


async def count(store: Store) -> int:
    async with store.read() as connection:
        return await connection.scalar(select(func.count()).select_from(settings)) or 0


async def test_migrations_build_exactly_the_schema(tmp_path: Path) -> None:
    migrated, made = tmp_path / "migrated.db", tmp_path / "made.db"
    async with Store.open(url_of(migrated)):
        pass
    engine = create_engine(f"sqlite:///{migrated}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    engine = create_engine(f"sqlite:///{made}")
    metadata.create_all(engine)
    engine.dispose()
    assert _definitions(migrated) == _definitions(made)


def _definitions(path: Path) -> dict[str, list[str]]:
    """Every table's and index's parts, sorted, without white space: only order may differ."""
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'"
    ).fetchall()
    connection.close()
    return {
        name: sorted("".join(line.split()).rstrip(",") for line in sql.splitlines())
        for name, sql in rows
    }


async def test_a_store_opens_again_with_what_was_written(tmp_path: Path) -> None:
    for number in range(2):
        async with Store.open(url_of(tmp_path / "hub.db")) as store:
            assert await count(store) == number
            await store.write(partial(put, key=str(number)))


async def test_writes_that_wait_share_one_transaction(store: Store) -> None:
    begun: set[str] = set()

    async def unit(connection: AsyncConnection) -> None:
        begun.add(str(id(connection.get_transaction())))

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(store.write(unit))
    assert len(begun) <= 2


async def test_a_unit_that_raises_undoes_only_itself(store: Store) -> None:
    async def broken(connection: AsyncConnection) -> None:
        await put(connection, "half")
        raise ValueError("broken")

    async def attempt(unit: str) -> Exception | None:
        try:
            if unit == "broken":
                await store.write(broken)
            else:
                await store.write(partial(put, key=unit))
        except (ValueError, IntegrityError) as error:
            return error
        return None

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(unit)) for unit in ("a", "broken", "a", "b")]
    failures = [type(task.result()) for task in tasks]
    assert failures == [type(None), ValueError, IntegrityError, type(None)]
    assert await count(store) == 2


async def test_a_single_unit_that_raises_is_rolled_back(store: Store) -> None:
    async def broken(connection: AsyncConnection) -> None:
        await put(connection, "half")
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await store.write(broken)
    assert await count(store) == 0


async def test_what_belongs_to_something_removed_is_a_conflict(store: Store) -> None:
    async def into_a_removed_group(connection: AsyncConnection) -> None:
        await connection.execute(insert(memberships).values(group_id="g", node_id="n"))

    async def attempt() -> None:
        with pytest.raises(Conflict, match="removed meanwhile"):
            await store.write(into_a_removed_group)

    await attempt()
    async with asyncio.TaskGroup() as group:
        group.create_task(attempt()), group.create_task(store.write(partial(put, key="a")))
    assert await count(store) == 1


async def test_a_full_queue_refuses_and_does_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_LIMIT", 3)
    entered, release = asyncio.Event(), asyncio.Event()

    async def slow(connection: AsyncConnection) -> None:
        entered.set()
        await release.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(store.write(slow))
        await entered.wait()
        waiting = [group.create_task(store.write(partial(put, key=key))) for key in "abc"]
        while store.queue_depth < 3:
            await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await store.write(partial(put, key="d"))
        waiting[1].cancel()
        release.set()
    assert await count(store) == 2


async def test_close_writes_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group, Store.open(url_of(tmp_path / "hub.db")) as store:
        pending = [
            group.create_task(store.write(partial(put, key=str(number)))) for number in range(300)
        ]
        while store.queue_depth < 300:
            await asyncio.sleep(0)
    assert all(not task.cancelled() for task in pending)
    with pytest.raises(Unavailable):
        await store.write(partial(put, key="late"))
    async with Store.open(url_of(tmp_path / "hub.db")) as store:
        assert await count(store) == 300


async def test_a_cancelled_store_writes_what_waits_first(tmp_path: Path) -> None:
    queued = asyncio.Event()
    written: list[str] = []

    async def put_and_note(store: Store, key: str) -> None:
        written.append(await store.write(partial(put, key=key)))

    async def serve(group: asyncio.TaskGroup) -> None:
        async with Store.open(url_of(tmp_path / "hub.db")) as store:
            for number in range(300):
                group.create_task(put_and_note(store, str(number)))
            while store.queue_depth < 300:
                await asyncio.sleep(0)
            queued.set()
            await asyncio.get_running_loop().create_future()

    async with asyncio.TaskGroup() as group:
        serving = group.create_task(serve(group))
        await queued.wait()
        serving.cancel()
    assert len(written) == 300


async def test_a_cancelled_read_frees_its_connection_at_once(store: Store) -> None:
    endless = text(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    )

    async def read_for_ever() -> None:
        async with store.read() as connection:
            await connection.execute(endless)

    for _ in range(6):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await read_for_ever()
    assert await count(store) == 0


async def fill(connection: AsyncConnection) -> None:
    """Leave no page free: SQLite says then what it says on a full disk."""
    await connection.execute(text("PRAGMA max_page_count = 1"))


async def put_much(connection: AsyncConnection, key: str) -> None:
    await connection.execute(insert(settings).values(key=key, value="x" * 100_000))


@pytest.mark.parametrize("together", [1, 3])
async def test_a_full_disk_is_unavailable_and_writes_go_on_after_it(
    store: Store, together: int
) -> None:
    await store.write(fill)

    async def refused(number: int) -> None:
        with pytest.raises(Unavailable, match=r"full|nothing was written"):
            await store.write(partial(put_much, key=str(number)))

    async with asyncio.TaskGroup() as group:
        for number in range(together):
            group.create_task(refused(number))
    assert await count(store) == 0
    await store.write(lambda c: c.execute(text("PRAGMA max_page_count = 1000000")))
    await store.write(partial(put_much, key="a"))
    assert await count(store) == 1


async def test_a_full_disk_undoes_the_units_before_and_tells_their_callers(store: Store) -> None:
    await store.write(fill)
    told: list[str] = []

    async def write(unit: Callable[[AsyncConnection], Awaitable[object]], key: str) -> None:
        try:
            await store.write(unit)
        except Unavailable:
            return
        told.append(key)

    async with asyncio.TaskGroup() as group:
        group.create_task(write(partial(put, key="before"), "before"))
        group.create_task(write(partial(put_much, key="much"), "much"))
        group.create_task(write(partial(put, key="after"), "after"))
    async with store.read() as connection:
        stored = (await connection.scalars(select(settings.c.key))).all()
    assert sorted(told) == sorted(stored)


async def test_a_database_that_cannot_be_read_is_unavailable(store: Store) -> None:
    with pytest.raises(Unavailable, match="no such table"):
        async with store.read() as connection:
            await connection.execute(text("SELECT * FROM missing"))


async def test_a_closed_store_is_not_read(tmp_path: Path) -> None:
    async with Store.open(url_of(tmp_path / "hub.db")) as store:
        pass
    with pytest.raises(Unavailable):
        async with store.read():
            pass


async def test_readers_cannot_write_and_many_may_read(store: Store) -> None:
    async with store.read() as connection:
        with pytest.raises(OperationalError, match="readonly"):
            await put(connection, "a")

    async with asyncio.TaskGroup() as group:
        counts = [group.create_task(count(store)) for _ in range(20)]
    assert {task.result() for task in counts} == {0}


async def test_pragmas_are_set(store: Store) -> None:
    async def pragma(connection: AsyncConnection, name: str) -> object:
        return await connection.scalar(text(f"PRAGMA {name}"))

    for name, value in {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1}.items():
        assert await store.write(partial(pragma, name=name)) == value
        async with store.read() as connection:
            assert await pragma(connection, name) == value


async def test_an_error_in_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with Store.open(url_of(tmp_path / "hub.db")):
            raise KeyError("mine")


@pytest.mark.parametrize("url", ["nonsense", "postgresql+asyncpg://h/db", "sqlite+aiosqlite://"])
async def test_other_databases_are_refused_with_what_to_do(url: str) -> None:
    with pytest.raises(BadRequest, match=r"URL|use sqlite\+aiosqlite"):
        async with Store.open(url):
            pass


async def test_a_file_that_is_no_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match="cannot be opened"):
        async with Store.open(url_of(path)):
            pass
    assert path.read_bytes() == b"not a database" * 100


async def test_a_write_waits_for_another_process_and_the_loop_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with Store.open(url_of(path)) as store, asyncio.TaskGroup() as group:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        writing = group.create_task(store.write(partial(put, key="a")))
        for _ in range(5):
            assert await count(store) == 0
        assert not writing.done()
        other.execute("COMMIT")
        other.close()
        assert await writing == "a"


WRITING = """
import asyncio, sys
from sqlalchemy import insert
from hub.store.engine import Store
from hub.store.schema import settings

async def main():
    async with Store.open(sys.argv[1]) as store:
        async def put(number):
            row = insert(settings).values(key=str(number), value=1)
            await store.write(lambda connection: connection.execute(row))
            print(number, flush=True)
        start = int(sys.argv[2])
        for base in range(start, start + 10**6, 50):
            async with asyncio.TaskGroup() as group:
                for number in range(base, base + 50):
                    group.create_task(put(number))

asyncio.run(main())
"""


async def test_kill_at_any_moment_keeps_every_acknowledged_write(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    acknowledged: set[str] = set()
    for round_number, lines in enumerate((1, 77, 400)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITING, url_of(path), str(round_number * 10**7),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(lines):
            acknowledged.add((await process.stdout.readline()).decode().strip())
        process.send_signal(signal.SIGKILL)
        acknowledged.update((await process.stdout.read()).decode().split("\n")[:-1])
        await process.wait()
    async with Store.open(url_of(path)) as store, store.read() as connection:
        stored = set((await connection.scalars(select(settings.c.key))).all())
        assert await connection.scalar(text("PRAGMA integrity_check")) == "ok"
    assert acknowledged <= stored
