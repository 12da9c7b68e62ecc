"""B4, B7–B9, B15: what simulated agents cost a hub at rest, after its restart and at work.

One hub a round, one size after the other; the agents run beside it (`mooring simulate`), so on two
cores they take what the hub leaves. Every figure is the hub's own: CPU and memory from /proc, times
from its API.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import uvloop

from edge_agent.backoff import STABLE_S
from mooring.sdk import Client, calls, identity, models
from mooring.sdk.async_client import AsyncClient
from mooring.sdk.errors import MooringError
from tests.bench.commands import fleet as fleet_of
from tests.bench.commands import run_task, timed
from tests.bench.measure import MIB, Latency, Rounds, cpu_s, latency
from tests.bench.plot import draw
from tests.bench.report import Result, Table, number, say
from tests.bench.stage import Stages
from tests.e2e.mesh import Mesh, Process

ROUNDS = "scale"
SIZES = (10, 100, 1000, 10_000)
SETTLE_S = 60.0  # until then agents measure their round trip
REST_S = 60.0
TASKS = 15
PARALLEL = 1000  # the most that a task may ask for
PROBE_EVERY_S = 0.2
AGENT_KIB = 450
"""Free memory that an agent must find, here and in the hub, or its fleet is left out."""


def run(stages: Stages) -> Result:
    """Measure each size in turn, round by round, and draw how the costs grow."""
    values, options = Rounds(), stages.options
    fleets = {fleet_of(size): size for size in sorted(options.agents or SIZES)}
    with stages.up(meshcentral=False) as stage:
        for number_of_round in values.each(options.rounds):
            with closing(Mesh(stage.scratch / f"scale-{number_of_round}")) as mesh:

                def measure(name: str, size: int, mesh: Mesh = mesh) -> None:
                    _measure(mesh, name, size, values)

                stage.measure(f"scale round {number_of_round}", fleets, measure)
        with stage.absent.spare("the plot of scale"):
            draw(values, options.plot)
    return Result.of(_tables(values), **{ROUNDS: values})


def _measure(mesh: Mesh, peer: str, size: int, values: Rounds) -> None:
    if psutil.virtual_memory().available < size * AGENT_KIB * 1024:
        raise MemoryError(f"needs {size * AGENT_KIB // 1024} MiB free")
    with _fleet(mesh, size, "join") as fleet:
        fleet.wait_connected(60 + size / 20)
    say(f"scale: {peer} have joined")
    _restart(mesh, signal.SIGTERM)
    empty_bytes = _rss(mesh)
    with _fleet(mesh, size, "run") as fleet:
        fleet.wait_connected(60 + size / 50)
        time.sleep(SETTLE_S)
        rest = _rest(mesh)
        values.add(
            peer,
            agents=size,
            kib_per_agent=(_rss(mesh) - empty_bytes) / size / 1024,
            hub_mib=_rss(mesh) / MIB,
            rest_percent=100 * rest,
        )
        for how, number_ in (("crash", signal.SIGKILL), ("stop", signal.SIGTERM)):
            time.sleep(STABLE_S)  # so that no back-off remembers what was before
            values.add(peer, **_return(mesh, fleet, number_, how, rest))
            say(f"scale: {peer} are back after a {how}")
        found = uvloop.run(_commands(mesh))
        values.add(peer, exec_p50_ms=found.p50, exec_p99_ms=found.p99)
        values.add(peer, failures=fleet.tally().get("failures", 0))


def _rest(mesh: Mesh) -> float:
    """The share of a core that the hub takes at rest."""
    before, started = cpu_s([mesh.hub.child.pid]), time.monotonic()
    time.sleep(REST_S)
    return (cpu_s([mesh.hub.child.pid]) - before) / (time.monotonic() - started)


def _return(
    mesh: Mesh, fleet: _Fleet, number_: signal.Signals, how: str, rest: float
) -> dict[str, float]:
    """End the hub and start it; how long until all are back, and what each handshake cost."""
    _restart(mesh, number_)
    ready, before = time.monotonic(), cpu_s([mesh.hub.child.pid])
    with _Probe(mesh) as probe:
        fleet.wait_connected(120 + fleet.size / 50)
    took_s = time.monotonic() - ready
    spent_s = cpu_s([mesh.hub.child.pid]) - before - rest * took_s - probe.cpu_s
    return {
        f"{how}_back_s": took_s,
        f"{how}_ms_per_handshake": 1e3 * spent_s / fleet.size,
        f"{how}_api_p99_ms": probe.found.p99,
    }


async def _commands(mesh: Mesh) -> Latency:
    spec = models.TaskSpec(target="all", argv=["true"], parallel=PARALLEL)
    async with AsyncClient(identity.load(mesh.env)) as hub:
        return await timed(TASKS, lambda: run_task(hub, spec))


def _restart(mesh: Mesh, number_: signal.Signals) -> None:
    mesh.hub.stop(number_)
    mesh.start_hub()


def _rss(mesh: Mesh) -> int:
    size: int = psutil.Process(mesh.hub.child.pid).memory_info().rss
    return size


class _Probe:
    """Asks the API a few times a second, in a thread, while a storm goes on."""

    def __init__(self, mesh: Mesh) -> None:
        self._hub = Client(identity.load(mesh.env))
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._pid = mesh.hub.child.pid
        self.cpu_s = 0.0
        """What the questions cost the hub, by their price before the storm."""
        self.found = Latency(0, 0.0, 0.0)

    def __enter__(self) -> _Probe:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._stop.set()
        self._thread.join()
        before = cpu_s([self._pid])
        for _ in range(PRICED):
            self._hub.call(calls.nodes().page(limit=100))
        self.cpu_s = (cpu_s([self._pid]) - before) / PRICED * len(self._samples)
        self._hub.close()
        self.found = latency(self._samples)

    def _ask(self) -> None:
        while True:
            started = time.perf_counter()
            with contextlib.suppress(MooringError):
                self._hub.call(calls.nodes().page(limit=100))
            self._samples.append(time.perf_counter() - started)
            if self._stop.wait(PROBE_EVERY_S):
                return


PRICED = 50
"""Questions that tell what one costs."""


class _Fleet:
    """`mooring simulate` as a process."""

    def __init__(self, mesh: Mesh, size: int, log: Path) -> None:
        self.size = size
        self._handshakes = 0
        command = mesh.command("simulate", "--json", "--agents", str(size))
        state = mesh.directory / "simulated"
        self.process = Process([*command, "--state-dir", str(state)], log, mesh.env)

    def tally(self) -> dict[str, Any]:
        """What it said last; {} before that."""
        lines = [line for line in self.process.text().splitlines() if line.startswith("{")]
        return dict(json.loads(lines[-1])) if lines else {}

    def wait_connected(self, timeout_s: float) -> None:
        """Wait until all have a tunnel that they had not when this was waited for before."""
        deadline = time.monotonic() + timeout_s
        while not self._has_connected(tally := self.tally()):
            if not self.process.alive or time.monotonic() > deadline:
                raise TimeoutError(f"not all of {self.size} agents connected: {tally}")
            time.sleep(0.2)
        self._handshakes = tally["handshakes"]

    def _has_connected(self, tally: dict[str, Any]) -> bool:
        new = tally.get("handshakes", 0) - self._handshakes
        return tally.get("connected") == self.size and bool(new >= self.size)


@contextmanager
def _fleet(mesh: Mesh, size: int, name: str) -> Iterator[_Fleet]:
    fleet = _Fleet(mesh, size, mesh.directory / f"simulate-{size}-{name}.log")
    try:
        yield fleet
    finally:
        fleet.process.stop(signal.SIGINT, 60.0)


def _tables(values: Rounds) -> list[Table]:
    def table(title: str, columns: dict[str, tuple[str, int]]) -> Table:
        rows = [
            [peer, *(number(values.median(peer, key), digits) for key, digits in columns.values())]
            for peer in values.peers
        ]
        return Table(title, ["", *columns], rows)

    return [
        table(
            "B7, B9: a fleet at rest, a metrics frame of 114 series each 10 s",
            {
                "hub MiB": ("hub_mib", 0),
                "KiB per agent": ("kib_per_agent", 1),
                "hub CPU, % of a core": ("rest_percent", 2),
            },
        ),
        table(
            "B8: all back after a hub's end",
            {
                "crash: s": ("crash_back_s", 1),
                "CPU ms per handshake": ("crash_ms_per_handshake", 2),
                "API p99 ms meanwhile": ("crash_api_p99_ms", 0),
                "planned stop: s": ("stop_back_s", 1),
                "CPU ms per handshake ": ("stop_ms_per_handshake", 2),
                "API p99 ms meanwhile ": ("stop_api_p99_ms", 0),
            },
        ),
        table(
            "B4: run `true` on all",
            {"p50 ms": ("exec_p50_ms", 0), "p99 ms": ("exec_p99_ms", 0)},
        ),
    ]
