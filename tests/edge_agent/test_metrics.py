import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from edge_agent.metrics.collectors import (
    MAX_CORES,
    Collector,
    Reading,
    all_collectors,
)
from edge_agent.metrics.frames import sample_of, series_of
from edge_agent.metrics.sampler import Point, Sampler
from edge_agent.metrics.stream import stream_metrics
from protocol.aio import Channel, Stream, Tunnel, memory_pair
from protocol.messages import Metrics, Open
from protocol.record_types import MetricsFromAgent, Rate, Sample, Schema
from protocol.records import encode


def busy_points() -> list[Point]:
    """114 series of a busy 64-core machine: as large as usual values get."""
    points = [Point(f"cpu.core.{n}", "percent", 37.5 + n) for n in range(64)]
    points += [Point(f"cpu.{name}", "percent", 55.5) for name in ("total", "user", "system")]
    points += [Point(f"cpu.{name}", "percent", 0.4) for name in ("iowait", "steal")]
    points += [Point(f"load.{n}", "load", 61.25) for n in (1, 5, 15)]
    for name in ("used", "total", "available"):
        points.append(Point(f"memory.{name}", "bytes", 200 * 1024.0**3))
    points.append(Point("memory.percent", "percent", 78.1))
    points += [Point(f"swap.{name}", "bytes", 8 * 1024.0**3) for name in ("used", "total")]
    for mount in ("/", "/var", "/home", "/data"):
        points += [Point(f"disk.{mount}.{n}", "bytes", 900 * 1024.0**3) for n in ("used", "total")]
        points.append(Point(f"disk.{mount}.percent", "percent", 81.2))
    for name in ("nvme0n1", "nvme1n1", "sda", "sdb", "sdc"):
        points += [Point(f"io.{name}.{n}", "bytes/s", 40e6) for n in ("read", "write")]
    for name in ("eth0", "eth1", "eth2", "eth3", "bond0"):
        points += [Point(f"net.{name}.{n}", "bytes/s", 12e6) for n in ("rx", "tx")]
    points += [Point(f"processes.{n}", "count", 812) for n in ("total", "running")]
    points.append(Point("disk./srv.percent", "percent", 12.5))
    points.append(Point("uptime", "s", 9e6))
    return points


async def test_this_nodes_series_have_their_names_and_units() -> None:
    sampler = Sampler()
    await sampler.sample()
    units = {point.name: point.unit for point in await sampler.sample()}
    for name in ("total", "user", "system", "iowait", "steal", "core.0"):
        assert units[f"cpu.{name}"] == "percent"
    assert [units[f"load.{n}"] for n in (1, 5, 15)] == ["load"] * 3
    for name in ("memory.used", "memory.total", "memory.available", "swap.used", "swap.total"):
        assert units[name] == "bytes"
    assert units["memory.percent"] == "percent"
    assert units["processes.total"] == units["processes.running"] == "count"
    assert units["uptime"] == "s"
    assert all(not name.startswith(("net.lo.", "net.veth", "net.docker")) for name in units)


async def test_values_are_plausible() -> None:
    sampler = Sampler()
    await sampler.sample()
    for point in await sampler.sample():
        if point.unit == "percent" and point.value is not None:
            assert 0 <= point.value <= 100
    values = {point.name: point.value for point in await sampler.sample()}
    total, used = values["memory.total"], values["memory.used"]
    assert total is not None
    assert used is not None
    assert 0 < used < total


def test_cores_are_bounded_by_the_table() -> None:
    cpu = next(c for c in all_collectors() if c.name == "cpu")
    assert len([r for r in cpu.read() if r.name.startswith("cpu.core.")]) <= MAX_CORES


async def test_a_counter_becomes_growth_per_second_and_a_reset_a_gap() -> None:
    totals = iter([1000.0, 3000.0, 500.0, 600.0])
    clock = iter([10.0, 12.0, 13.0, 23.0])

    def read() -> Iterator[Reading]:
        yield Reading("net.eth0.rx", "bytes/s", next(totals), is_counter=True)

    sampler = Sampler([Collector("net", read)], lambda: next(clock))
    values = [(await sampler.sample())[0].value for _ in range(4)]
    assert values == [None, 1000.0, None, 10.0]


async def test_a_failing_collector_gives_gaps_and_comes_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outcomes: Iterator[float | Exception] = iter([1.0, OSError("gone"), OSError("gone"), 2.0])

    def read() -> Iterator[Reading]:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        yield Reading("a", "count", outcome)

    def steady() -> Iterator[Reading]:
        yield Reading("b", "count", 7)

    sampler = Sampler([Collector("broken", read), Collector("steady", steady)])
    samples = [[point.value for point in await sampler.sample()] for _ in range(4)]
    assert samples == [[1, 7], [None, 7], [None, 7], [2, 7]]
    assert caplog.text.count("no broken metrics") == 1, "logged once, not at each sample"


async def test_a_slow_topic_is_read_less_often() -> None:
    clock = iter([0.0, 1.0, 9.9, 10.0])
    counts = iter(range(10))

    def read() -> Iterator[Reading]:
        yield Reading("a", "count", next(counts))

    sampler = Sampler([Collector("disks", read, every_s=10.0)], lambda: next(clock))
    assert [(await sampler.sample())[0].value for _ in range(4)] == [0, 0, 0, 1]


def test_a_sample_of_114_series_fits_400_bytes() -> None:
    points = busy_points()
    assert len(points) == 114
    assert len(encode(sample_of(points, 1.8e9))) <= 400


def test_values_come_back_within_their_scale() -> None:
    points = busy_points()
    sample = sample_of(points, 1.5)
    assert sample.at_ms == 1500
    for point, series, value in zip(points, series_of(points), sample.values, strict=True):
        assert value is not None
        assert point.value is not None
        assert abs(value * series.scale - point.value) <= series.scale / 2


def test_gaps_stay_in_place_and_are_left_out_at_the_end() -> None:
    points = [Point("a", "count", None), Point("b", "count", 3), Point("c", "count", None)]
    assert sample_of(points, 0).values == [None, 3]


class Agent:
    """An agent that streams the metrics of one changeable collector to a hub in memory."""

    def __init__(self) -> None:
        self.names = ["a"]

    def read(self) -> Iterator[Reading]:
        for name in self.names:
            yield Reading(name, "count", 1)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
async def from_agent(agent: Agent) -> AsyncIterator[Channel[Rate, MetricsFromAgent]]:
    """The hub's channel of the agent's metrics stream."""
    opened: asyncio.Queue[Stream] = asyncio.Queue()
    done = asyncio.Event()

    async def accept(opening: Open, stream: Stream) -> None:
        assert isinstance(opening, Metrics)
        opened.put_nowait(stream)
        await done.wait()

    async def send(tunnel: Tunnel) -> None:
        channel: Channel[MetricsFromAgent, Rate] = Channel(await tunnel.open(Metrics()), Rate)
        await stream_metrics(channel, Sampler([Collector("test", agent.read)]))

    async with memory_pair(accepted_handler=accept) as (dialled, _):
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send(dialled))
            channel: Channel[Rate, MetricsFromAgent] = Channel(await opened.get(), MetricsFromAgent)
            yield channel
            channel.finish()
            await sending
            done.set()


async def test_the_schema_comes_first_and_again_when_series_change(
    agent: Agent, from_agent: Channel[Rate, MetricsFromAgent]
) -> None:
    first = await from_agent.receive()
    assert isinstance(first, Schema)
    assert [series.name for series in first.series()] == ["a"]
    assert isinstance(await from_agent.receive(), Sample)
    agent.names = ["a", "b"]
    await from_agent.send(Rate(interval_s=1))
    second = await from_agent.receive()
    assert isinstance(second, Schema)
    assert [series.name for series in second.series()] == ["a", "b"]
    sample = await from_agent.receive()
    assert isinstance(sample, Sample)
    assert sample.values == [1, 1]


async def test_a_rate_counts_at_once(from_agent: Channel[Rate, MetricsFromAgent]) -> None:
    await from_agent.receive()
    first = await from_agent.receive()
    await from_agent.send(Rate(interval_s=1))
    async with asyncio.timeout(5):
        second, third = await from_agent.receive(), await from_agent.receive()
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert isinstance(third, Sample)
    assert 900 <= third.at_ms - second.at_ms <= 1500
