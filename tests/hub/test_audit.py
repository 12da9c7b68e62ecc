"""The audit: appended, filtered, paged, never losing an entry to a long name."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.audit import Audit
from hub.store.engine import Store


async def test_entries_come_newest_first_with_a_total(store: Store) -> None:
    audit = Audit(store, lambda: 12.5)
    await audit.record("ann", "task.create", "t1", address="::1", detail={"target": "all"})
    await audit.record("bob", "shell.open", "web-1", outcome="denied")
    page = await audit.entries(1)
    assert (page.total, page.entries[0].subject, page.entries[0].outcome) == (2, "bob", "denied")
    page = await audit.entries(1, before=page.entries[0].id)
    entry = page.entries[0]
    assert (entry.at, entry.address, entry.object) == (12.5, "::1", "t1")
    assert entry.detail == {"target": "all"}


async def test_entries_are_filtered_by_subject_and_act(store: Store) -> None:
    audit = Audit(store)
    for subject, act in (("ann", "a"), ("ann", "b"), ("bob", "a")):
        await audit.record(subject, act)
    assert (await audit.entries(10, subject="ann")).total == 2
    page = await audit.entries(10, subject="ann", act="a")
    assert [(entry.subject, entry.act) for entry in page.entries] == [("ann", "a")]


async def test_an_entry_is_written_with_the_act_or_not_at_all(store: Store) -> None:
    audit = Audit(store, lambda: 12.5)
    append_entry = audit.unit("ann", "task.create", "t1", detail={"nodes": 1})

    async def act(connection: AsyncConnection, fails: bool) -> None:
        await append_entry(connection)
        if fails:
            raise ValueError("the act failed")

    with pytest.raises(ValueError, match="the act failed"):
        await store.write(partial(act, fails=True))
    assert (await audit.entries(1)).total == 0
    await store.write(partial(act, fails=False))
    assert [(entry.at, entry.act) for entry in (await audit.entries(9)).entries] == [
        (12.5, "task.create")
    ]


async def test_a_name_too_long_is_cut_and_still_recorded(store: Store) -> None:
    audit = Audit(store)
    await audit.record("x" * 1000, "session.create", "y" * 1000, outcome="failed")
    entry = (await audit.entries(1)).entries[0]
    assert (len(entry.subject), len(entry.object)) == (64, 256)
