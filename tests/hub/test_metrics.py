"""Metrics in memory: what agents send is bounded, history is by series name, live is by watch."""

from __future__ import annotations

import asyncio
import tracemalloc
import zlib
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from hub.metrics import MetricsStore, SeriesInfo
from hub.metrics.feed import QUEUE_LIMIT
from hub.metrics.history import BYTES_LIMIT, PIECES_LIMIT, NodeHistory
from hub.metrics.rows import Rows
from hub.metrics.series import RefusedMetrics, checked_schema
from protocol.aio import Channel, ProtocolError, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import Metrics, Open
from protocol.record_types import MetricsFromAgent, Rate, Sample, Schema, Series

NOW = 1_800_000_000.0
SCHEMA = Schema.of(
    [
        Series(name="cpu.total", unit="percent", scale=0.1),
        Series(name="memory.percent", unit="percent"),
        Series(name="net.eth0.rx", unit="bytes/s"),
    ]
)


@dataclass
class Link:
    """A node's tunnel to the hub's metrics, and the hub's clock."""

    metrics: MetricsStore
    tunnel: Tunnel
    now: float = NOW

    async def open(self) -> Channel[MetricsFromAgent, Rate]:
        return Channel(await self.tunnel.open(Metrics()), Rate)

    async def sample(
        self, channel: Channel[MetricsFromAgent, Rate], at: float, *v: int | None
    ) -> None:
        await channel.send(Sample(at_ms=int(at * 1000), values=list(v)))


@asynccontextmanager
async def linked() -> AsyncIterator[Link]:
    async def handle(_message: Open, stream: Stream) -> None:
        await link.metrics.handle_stream("n1", Channel(stream, MetricsFromAgent))

    async with memory_pair(accepted_handler=handle) as (dialled, _):
        link = Link(MetricsStore(lambda: link.now), dialled)
        yield link


async def taken(link: Link, at: float) -> None:
    """Wait until the hub has the sample of that time."""
    async with asyncio.timeout(5):
        while at not in link.metrics.history("n1", 3600).at:
            await asyncio.sleep(0)


async def test_samples_become_history_levels_and_spark() -> None:
    async with linked() as link:
        channel = await link.open()
        await channel.send(SCHEMA)
        await link.sample(channel, NOW - 10, 123, 40, 7)
        await link.sample(channel, NOW, None, 41)
        await taken(link, NOW)
        history = link.metrics.history("n1", 3600)
        assert history.series[0] == SeriesInfo("cpu.total", "percent")
        assert history.at == [NOW - 10, NOW]
        assert history.values == [[12.3, None], [40.0, 41.0], [7.0, None]]
        assert (link.metrics.levels("n1").cpu, link.metrics.levels("n1").memory) == (None, 41.0)
        spark = link.metrics.spark("n1")
        assert (len(spark.cpu), spark.cpu[-2:], spark.memory[-2:]) == (
            60,
            [12.3, None],
            [40.0, 41.0],
        )
        link.now += 36
        assert link.metrics.levels("n1").memory is None
        assert link.metrics.history("n1", 5).at == []
        assert link.metrics.history("other", 3600).at == []
        assert set(link.metrics.spark("other").cpu) == {None}


async def test_a_watched_node_is_asked_for_each_second_and_followed_live() -> None:
    async with linked() as link:
        channel = await link.open()
        await channel.send(SCHEMA)
        with link.metrics.feed() as feed, link.metrics.feed() as other:
            feed.watch(["n1"])
            other.watch(["n1", "n2"])
            assert await channel.receive() == Rate(interval_s=1)
            assert link.metrics.interval_for("n1") == 1
            await link.sample(channel, NOW - 1, 10, 20, 30)
            await link.sample(channel, NOW, 11, None, 31)
            first = await anext(feed)
            assert (first.node_id, first.at, first.values) == ("n1", NOW - 1, [1.0, 20.0, 30.0])
            assert (await anext(other)) is first
            second = await anext(feed)
            assert second.values == [1.1, None, 31.0] and second.schema is first.schema
            assert link.metrics.history("n1", 60).at == [NOW - 1, NOW]
            feed.watch([])
            assert link.metrics.interval_for("n1") == 1
        assert await channel.receive() == Rate(interval_s=10)
        assert link.metrics.interval_for("n1") == 10
        assert link.metrics.history("n1", 60).at == [NOW - 1]


async def test_an_agent_that_connects_while_watched_is_told_at_once() -> None:
    async with linked() as link:
        with link.metrics.feed() as feed:
            feed.watch(["n1"])
            assert await (await link.open()).receive() == Rate(interval_s=1)


async def test_a_node_that_does_not_read_how_often_to_send_is_reset() -> None:
    async with linked() as link:
        channel = await link.open()
        await channel.send(SCHEMA)
        await link.sample(channel, NOW, 1, 2, 3)
        await taken(link, NOW)
        with link.metrics.feed() as feed:
            for _ in range(10_000):
                feed.watch(["n1"])
                feed.watch([])
        with pytest.raises(StreamReset, match="how often"):
            while True:
                await channel.receive()


async def test_a_slow_reader_loses_the_oldest_samples() -> None:
    async with linked() as link:
        with link.metrics.feed() as feed, link.metrics.feed() as quick:
            feed.watch(["n1"])
            quick.watch(["n1"])
            channel = await link.open()
            await channel.send(SCHEMA)
            for number in range(QUEUE_LIMIT + 5):
                link.now = NOW + number
                await link.sample(channel, link.now, number)
                await anext(quick)
            assert (await anext(feed)).at == NOW + 5


async def test_a_wrong_clock_is_replaced_and_a_flood_is_thinned() -> None:
    async with linked() as link:
        channel = await link.open()
        await channel.send(SCHEMA)
        await link.sample(channel, NOW - 9000, 1)
        await link.sample(channel, NOW - 9000, 2)
        await link.sample(channel, NOW + 9000, 3)
        await taken(link, NOW)
        link.now += 10
        await link.sample(channel, NOW - 1, 4)
        await taken(link, NOW + 10)
        assert link.metrics.history("n1", 3600).at == [NOW, NOW + 10]
        assert link.metrics.history("n1", 3600).values[0] == [0.1, 0.4]


@pytest.mark.parametrize(
    "records",
    [
        [Sample(at_ms=1, values=[1])],
        [Schema.of([]), Sample(at_ms=1, values=[1])],
        [Schema.of([Series(name="a\n", unit="")])],
        [Schema.of([Series(name="", unit="")])],
        [Schema.of([Series(name="a", unit="\x1b")])],
        [Schema.of([Series(name="a", unit=""), Series(name="a", unit="b")])],
        [Schema.of([Series(name="a", unit="", scale=float("nan"))])],
        [Schema.of([Series(name="a", unit="", scale=float("inf"))])],
        [Schema.of([Series(name="a", unit="", scale=0.0)])],
        [Schema(deflated=b"garbage")],
        [Schema(deflated=SCHEMA.deflated[:-5])],
        [Schema(deflated=zlib.compress(bytes(300_000)))],
        [Schema(deflated=zlib.compress(b"\x91\xc0"))],
        [SCHEMA] * 20,
    ],
)
async def test_hostile_records_reset_the_stream(records: list[MetricsFromAgent]) -> None:
    async with linked() as link:
        channel = await link.open()
        with pytest.raises(StreamReset):
            for record in records:
                await channel.send(record)
            await channel.receive()
        assert link.metrics.history("n1", 3600).at == []


async def test_a_newer_stream_replaces_the_older() -> None:
    async with linked() as link:
        older = await link.open()
        await older.send(SCHEMA)
        newer = await link.open()
        with pytest.raises(StreamReset, match="newer"):
            await older.receive()
        await newer.send(SCHEMA)
        await link.sample(newer, NOW, 1)
        await taken(link, NOW)


async def test_a_closed_tunnel_ends_the_handler_with_the_tunnels_error() -> None:
    ended: list[ProtocolError] = []
    metrics = MetricsStore()

    async def handle(_message: Open, stream: Stream) -> None:
        try:
            await metrics.handle_stream("n1", Channel(stream, MetricsFromAgent))
        except ProtocolError as error:
            ended.append(error)

    async with memory_pair(accepted_handler=handle) as (dialled, _):
        await dialled.open(Metrics())
        while not metrics._nodes:
            await asyncio.sleep(0)
    assert len(ended) == 1


def schema_of(*names: str) -> Schema:
    return Schema.of([Series(name=name, unit="count") for name in names])


def test_history_goes_on_over_schemas_by_name_and_shows_pauses() -> None:
    history = NodeHistory()
    old, new = checked_schema(schema_of("a", "b")), checked_schema(schema_of("b", "c"))
    history.append(old, 100.0, array("f", [1, 2]))
    history.append(old, 110.0, array("f", [3, 4]))
    history.append(new, 200.0, array("f", [5, 6]))
    read = history.read(0.0)
    assert [series.name for series in read.series] == ["b", "c", "a"]
    assert read.at == [100.0, 110.0, 155.0, 200.0]
    assert read.values == [[2, 4, None, 5], [None, None, None, 6], [1, 3, None, None]]


def test_an_hour_is_kept_and_packed_small() -> None:
    history, schema = NodeHistory(), checked_schema(schema_of(*(f"s{n}" for n in range(114))))
    tracemalloc.start()
    for number in range(720):
        values = [float((place * 7919 + number // 10 * place) % 1000) for place in range(114)]
        history.append(schema, NOW + number * 10, array("f", values))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    read = history.read(NOW + 3600)
    assert (len(read.at), read.at[0], read.at[-1]) == (360, NOW + 3600, NOW + 7190)
    assert read.values[113][0] == (113 * 7919 + 36 * 113) % 1000
    assert size < 100 * 1024


def test_hostile_schemas_and_values_stay_within_the_limits() -> None:
    history = NodeHistory()
    noise = array("f", [hash((n, "x")) % 1e9 for n in range(2000)])
    for number in range(400):
        schema = checked_schema(schema_of(*(f"{number}.{n}" for n in range(2000))))
        history.append(schema, NOW + number * 9, noise)
    assert len(history._packed) <= PIECES_LIMIT
    assert sum(len(piece.data) for piece in history._packed) <= BYTES_LIMIT
    assert len(history.read(0.0).series) == 2000


def test_packed_rows_are_the_same_rows() -> None:
    rows = Rows(checked_schema(schema_of("a", "b", "c")))
    for number in range(5):
        rows.append(float(number), array("f", [number, -number, number / 4]))
    again = rows.pack().unpack()
    assert (again.times, again.values) == (rows.times, rows.values)


def test_more_values_than_series_are_refused() -> None:
    with pytest.raises(RefusedMetrics):
        checked_schema(schema_of("a")).row(Sample(at_ms=0, values=[1, 2]))
