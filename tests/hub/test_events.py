"""The event log: stored before told, in order, nothing missed, pruned."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from hub import events as module
from hub.events import KEEP_S, Event, EventLog
from hub.store.engine import Store


@pytest.fixture
def log(store: Store) -> EventLog:
    return EventLog(store)


async def test_an_event_is_stored_and_told(log: EventLog) -> None:
    with log.subscribe() as subscription:
        published = await log.publish("node.online", node_id="n1", node="web-1", data={"a": 1})
        assert await anext(subscription) == published
    assert await log.after(0, 10) == [published]
    assert (published.kind, published.node, published.data) == ("node.online", "web-1", {"a": 1})


async def test_events_of_somebody_elses_unit_get_ids_in_order_and_are_told(
    store: Store, log: EventLog
) -> None:
    before = await log.publish("node.online")
    drafts = [log.draft("run.finished", node=name, data={"n": name}) for name in "abc"]
    with log.subscribe() as subscription:
        stored = await store.write(partial(log.insert, drafts=drafts), then=log.tell)
        assert [await anext(subscription) for _ in drafts] == stored
    assert [event.id - before.id for event in stored] == [1, 2, 3]
    assert [event.node for event in stored] == ["a", "b", "c"]
    assert await log.after(before.id, 10) == stored
    assert await store.write(partial(log.insert, drafts=[])) == []


async def test_a_unit_that_fails_takes_its_events_along(store: Store, log: EventLog) -> None:
    async def unit(connection: AsyncConnection) -> None:
        await log.insert(connection, [log.draft("task.created")])
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await store.write(unit)
    assert await log.after(0, 10) == []


async def test_subscribers_see_all_events_in_order_of_id(log: EventLog) -> None:
    with log.subscribe() as subscription:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(log.publish("group.changed", data={"n": number}))
        seen = [(await anext(subscription)).id for _ in range(50)]
    assert seen == sorted(seen)


async def test_a_cancelled_publisher_does_not_hide_its_event(log: EventLog) -> None:
    with log.subscribe() as subscription:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(log.publish("node.online", node="cancelled"))
            while log._store.queue_depth:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        later = await log.publish("node.online", node="later")
        first = await anext(subscription)
        seen = [first.node] if first == later else [first.node, (await anext(subscription)).node]
    assert seen == [event.node for event in await log.after(0, 10)]


async def test_a_subscriber_resumes_after_an_id_and_goes_on_live(log: EventLog) -> None:
    stored = [await log.publish("task.created", data={"n": number}) for number in range(5)]
    with log.subscribe(after=stored[1].id) as subscription:
        assert [await anext(subscription) for _ in range(3)] == stored[2:]
        live = await log.publish("task.finished")
        assert await anext(subscription) == live


async def test_a_slow_subscriber_reads_what_it_missed_from_the_database(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_LIMIT", 4)
    monkeypatch.setattr(module, "READ_LIMIT", 3)
    before = await log.publish("node.online", node="before")
    with log.subscribe() as subscription:
        published = [await log.publish("node.online", node=str(n)) for n in range(12)]
        assert len(subscription._queue) <= 4
        assert [await anext(subscription) for _ in range(12)] == published
        live = await log.publish("node.offline", node="live")
        assert await anext(subscription) == live
    assert before not in published


async def test_events_of_a_node_come_newest_first_and_page(log: EventLog) -> None:
    mine = [await log.publish("node.online", node_id="n1", node="web-1") for _ in range(3)]
    await log.publish("node.online", node_id="n2", node="web-2")
    assert await log.of_node("n1", 2) == [mine[2], mine[1]]
    assert await log.of_node("n1", 2, before=mine[1].id) == [mine[0]]


async def test_prune_keeps_seven_days_and_the_newest_id(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRUNE_LIMIT", 2)
    now = 1_000_000.0
    log = EventLog(store, lambda: now)
    old: list[Event] = [await log.publish("node.online") for _ in range(5)]
    now += KEEP_S + 1
    assert await log.prune() == 4
    assert await log.after(0, 10) == old[4:]
    assert (await log.publish("node.online")).id == old[4].id + 1
