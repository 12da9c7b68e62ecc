"""B4: run `true`, from the request on an open connection until the result is stored and read."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import psutil
import uvloop

from mooring.sdk import calls, models
from mooring.sdk.async_client import AsyncClient
from tests.bench.measure import MIB, Latency, Rounds, latency
from tests.bench.peers.meshcentral_api import Control
from tests.bench.peers.mooring import NAME, NODE, Mooring
from tests.bench.report import Result, Table, number, say
from tests.bench.stage import Stage

SINGLE = {NAME: 200, "MeshCentral": 60, "ssh ControlMaster": 60, "new ssh": 10}
"""How many commands a round runs."""
FLEET_TASKS = 15
AGENT_MIB = 80
"""Free memory that an agent must find, or a fleet is left out."""


def run(stage: Stage, rounds: int, fleets: list[int]) -> Result:
    """Measure one node in `rounds` alternating rounds, then each fleet in as many."""
    single, fleet = Rounds(), Rounds()
    for number_of_round in range(1, rounds + 1):
        _single_round(stage, single, number_of_round)
    for size in sorted(fleets):
        if psutil.virtual_memory().available < size * AGENT_MIB * MIB:
            stage.lacks(f"{size} agents", MemoryError(f"needs {size * AGENT_MIB} MiB free"))
            continue
        took_s = stage.mooring.grow(size)
        say(f"B4: {size} agents are online {took_s:.0f} s after the first start")
        for number_of_round in range(1, rounds + 1):
            _fleet_round(stage, fleet, size, number_of_round)
    return Result(
        [_table("B4: run `true` on one node", single), _table("B4: run `true` on a fleet", fleet)],
        {"B4 single": single.values, "B4 fleet": fleet.values},
    )


def _single_round(stage: Stage, values: Rounds, number_of_round: int) -> None:
    def note(peer: str, measure: Callable[[], Latency]) -> None:
        say(f"B4 round {number_of_round}: {peer}")
        _note(values, peer, measure())

    note(NAME, lambda: uvloop.run(_mooring(stage.mooring, NODE, SINGLE[NAME])))
    if (central := stage.meshcentral) is not None:

        async def measure() -> Latency:
            control = await Control.open(central.account)
            try:
                count = SINGLE["MeshCentral"]
                return await timed(count, lambda: control.run(central.node, "true"))
            finally:
                await control.close()

        note("MeshCentral", lambda: uvloop.run(measure()))
    if (ssh := stage.openssh) is not None:
        with ssh.master() as over:
            note(
                "ssh ControlMaster",
                lambda: _processes([*over, "true"], SINGLE["ssh ControlMaster"]),
            )
        note("new ssh", lambda: _processes([*ssh.command("node"), "true"], SINGLE["new ssh"]))


def _fleet_round(stage: Stage, values: Rounds, size: int, number_of_round: int) -> None:
    say(f"B4 round {number_of_round}: {size} agents")
    before = stage.mooring.cpu_s()
    found = uvloop.run(_mooring(stage.mooring, "all", FLEET_TASKS))
    _note(values, f"{NAME}, {size} agents", found)
    per_run = (stage.mooring.cpu_s() - before) / (FLEET_TASKS * size) * 1e3
    say(f"B4: {per_run:.1f} ms of CPU a run in hub and agents")
    if (ssh := stage.openssh) is not None:
        with ssh.master() as over, ThreadPoolExecutor(size) as pool:

            def on_all() -> None:
                list(pool.map(lambda _: subprocess.run([*over, "true"], check=True), range(size)))

            samples = [_time(on_all) for _ in range(FLEET_TASKS)]
        _note(values, f"ssh ControlMaster, {size} at once", latency(samples))


async def _mooring(mooring: Mooring, target: str, count: int) -> Latency:
    """Tasks one after the other over one client's open connections."""
    spec = models.TaskSpec(target=target, argv=["true"])
    async with AsyncClient(mooring.identity()) as hub:
        return await timed(count, lambda: run_task(hub, spec))


async def run_task(hub: AsyncClient, spec: models.TaskSpec) -> None:
    """Create a task and read its stream to the summary, which follows the stored results."""
    task = await hub.call(calls.run(spec))
    events: AsyncIterator[models.TaskEvent] = hub.stream(calls.task_stream(task.id))
    summary = None
    async for event in events:
        summary = event
    if not isinstance(summary, models.SummaryEvent) or summary.failed:
        raise RuntimeError(f"task {task.id} did not succeed: {summary}")


async def timed(count: int, act: Callable[[], Awaitable[object]]) -> Latency:
    """Time `count` acts after two that warm up."""
    for _ in range(2):
        await act()
    samples = []
    for _ in range(count):
        started = time.perf_counter()
        await act()
        samples.append(time.perf_counter() - started)
        await asyncio.sleep(0)
    return latency(samples)


def _processes(argv: list[str], count: int) -> Latency:
    return latency([_time(lambda: subprocess.run(argv, check=True)) for _ in range(count)])


def _time(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _note(values: Rounds, peer: str, found: Latency) -> None:
    values.add(peer, p50=found.p50, p99=found.p99, count=found.count)


def _table(title: str, values: Rounds) -> Table:
    first = values.peers[0] if values.peers else ""
    rows = [
        [
            peer,
            number(values.median(peer, "p50")),
            number(values.median(peer, "p99")),
            number(values.ratio(peer, first, "p50")),
        ]
        for peer in values.peers
    ]
    return Table(title, ["", "p50 ms", "p99 ms", f"times {first}"], rows)
