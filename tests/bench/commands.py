"""B4: run `true`, from the request on an open connection until the result is stored and read."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import uvloop

from mooring.sdk import calls, models
from mooring.sdk.async_client import AsyncClient
from tests.bench.measure import MIB, Latency, Rounds, latency
from tests.bench.peers.meshcentral_api import Control
from tests.bench.peers.mooring import NAME, NODE, Mooring
from tests.bench.report import Result, Table, number, say
from tests.bench.stage import Stage, Stages

SINGLE_ROUNDS, FLEET_ROUNDS = "B4 single", "B4 fleet"
MASTER = "ssh ControlMaster"
SINGLE = {NAME: 200, "MeshCentral": 60, MASTER: 60, "new ssh": 10}
"""How many commands a round runs."""
FLEETS = (10, 50)
FLEET_TASKS = 15
WARM_UP = 2
ANSWER_S = 60.0
AGENT_MIB = 80
"""Free memory that an agent must find, or a fleet is left out."""
Measure = Callable[[], Latency]


def run(stages: Stages) -> Result:
    """Measure one node in alternating rounds, then each fleet in as many."""
    single, fleets, options = Rounds(), Rounds(), stages.options
    with stages.up() as stage, ExitStack() as opened:
        over = None
        if stage.openssh is not None:
            with stage.absent.spare(MASTER):
                over = opened.enter_context(stage.openssh.master())
        contestants = _single(stage, over)
        for number_of_round in single.each(options.rounds):
            stage.measure(f"B4 round {number_of_round}", contestants, _noting(single))
        for size in sorted(options.agents or FLEETS):
            with stage.absent.spare(f"{size} agents"):
                _grow(stage, size)
                contestants = _fleet(stage, size, over, opened)
                for number_of_round in fleets.each(options.rounds):
                    stage.measure(f"B4 round {number_of_round}", contestants, _noting(fleets))
    return Result.of(
        [_table("B4: run `true` on one node", single), _table("B4: run `true` on a fleet", fleets)],
        **{SINGLE_ROUNDS: single, FLEET_ROUNDS: fleets},
    )


def fleet(size: int) -> str:
    """What our fleet of that size is called in tables and rounds."""
    return f"{NAME}, {size:,} agents"


def _noting(values: Rounds) -> Callable[[str, Measure], None]:
    def measure(name: str, act: Measure) -> None:
        found = act()
        values.add(name, p50=found.p50, p99=found.p99, count=found.count)

    return measure


def _single(stage: Stage, over: list[str] | None) -> dict[str, Measure]:
    contestants: dict[str, Measure] = {
        NAME: lambda: uvloop.run(_mooring(stage.mooring, NODE, SINGLE[NAME]))
    }
    if (central := stage.meshcentral) is not None:

        async def measure() -> Latency:
            control = await Control.open(central.account)
            try:
                count = SINGLE["MeshCentral"]
                return await timed(count, lambda: control.run(central.node, "true"))
            finally:
                await control.close()

        contestants["MeshCentral"] = lambda: uvloop.run(measure())
    if over is not None:
        contestants[MASTER] = lambda: _processes([*over, "true"], SINGLE[MASTER])
    if stage.openssh is not None:
        alone = [*stage.openssh.command("node"), "true"]
        contestants["new ssh"] = lambda: _processes(alone, SINGLE["new ssh"])
    return contestants


def _grow(stage: Stage, size: int) -> None:
    if psutil.virtual_memory().available < size * AGENT_MIB * MIB:
        raise MemoryError(f"needs {size * AGENT_MIB} MiB free")
    took_s = stage.mooring.grow(size)
    say(f"B4: {size} agents are online {took_s:.0f} s after the first start")


def _fleet(
    stage: Stage, size: int, over: list[str] | None, opened: ExitStack
) -> dict[str, Measure]:
    def ours() -> Latency:
        before = stage.mooring.cpu_s()
        found = uvloop.run(_mooring(stage.mooring, "all", FLEET_TASKS))
        per_run = (stage.mooring.cpu_s() - before) / (FLEET_TASKS * size) * 1e3
        say(f"B4: {per_run:.1f} ms of CPU a run in hub and agents")
        return found

    contestants: dict[str, Measure] = {fleet(size): ours}
    if over is not None:
        pool = opened.enter_context(ThreadPoolExecutor(size))

        def on_all() -> None:
            list(pool.map(lambda _: _process([*over, "true"]), range(size)))

        contestants[f"{MASTER}, {size} at once"] = lambda: latency(
            [_time(on_all) for _ in range(FLEET_TASKS)]
        )
    return contestants


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
    """Time `count` acts after some that warm up."""
    samples = []
    for _ in range(WARM_UP + count):
        started = time.perf_counter()
        async with asyncio.timeout(ANSWER_S):
            await act()
        samples.append(time.perf_counter() - started)
        await asyncio.sleep(0)
    return latency(samples[WARM_UP:])


def _processes(argv: list[str], count: int) -> Latency:
    return latency([_time(lambda: _process(argv)) for _ in range(count)])


def _process(argv: list[str]) -> None:
    subprocess.run(argv, check=True, timeout=ANSWER_S)


def _time(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


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
