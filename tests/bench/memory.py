"""What connections through a forward cost in resident memory: idle ones each, bulk ones together.

Every round starts every program afresh, because memory that was given back to an allocator hides
what the next connections need. Each value is growth over the program's own state at rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.bench import traffic
from tests.bench.measure import MIB, Rounds, resident
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.relay import RELAY
from tests.bench.report import Result, Table, number, pair
from tests.bench.stage import Stages
from tests.bench.targets import Targets
from tests.bench.traffic import BOTH
from tests.bench.tunnels import OPENSSH_GCM, OURS, PEERS, tunnels

ROUNDS = "memory"
ENDS = ("server", "agent", "client")
IDLE = 200
"""Connections; a tunnel of ours takes 256."""
BULK = 20
WARM_UP = 5
SETTLE_S = 1.0
SAMPLE_S = 0.05
CONTESTANTS = {OURS, RELAY, *PEERS} - {OPENSSH_GCM}
"""Who has processes of its own; a cipher changes no memory."""


def run(stages: Stages) -> Result:
    """Measure every tunnel in turn, round by round."""
    values, options = Rounds(), stages.options

    for number_of_round in values.each(options.rounds):
        with (
            stages.up() as stage,
            Targets() as targets,
            tunnels(stage, targets.ports, CONTESTANTS) as peers,
        ):

            def measure(name: str, peer: TunnelPeer, targets: Targets = targets) -> None:
                values.add(name, **_measure(targets, peer, options.seconds))

            stage.measure(f"memory round {number_of_round}", peers, measure)
    return Result.of([_table(values)], **{ROUNDS: values})


def _measure(targets: Targets, peer: TunnelPeer, seconds: float) -> dict[str, float]:
    with traffic.held(targets, peer.ports.sink, WARM_UP):
        time.sleep(SETTLE_S)
    ends = _ends(peer)
    rest = {end: resident(pids()) for end, pids in ends.items()}

    def growth() -> dict[str, float]:
        return {end: resident(pids()) - rest[end] for end, pids in ends.items()}

    with traffic.held(targets, peer.ports.sink, IDLE):
        time.sleep(SETTLE_S)
        metrics = {f"idle_{end}_kib": size / IDLE / 1024 for end, size in growth().items()}
    for way in BOTH:
        peaks = dict.fromkeys(ends, 0.0)

        def watch(peaks: dict[str, float] = peaks) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for end, size in growth().items():
                    peaks[end] = max(peaks[end], size)
                time.sleep(SAMPLE_S)

        traffic.bulk(targets, peer, way, seconds, connections=BULK, beside=watch)
        metrics |= {f"{way}_{end}_mib": size / MIB for end, size in peaks.items()}
    return metrics


def _ends(peer: TunnelPeer) -> dict[str, Callable[[], list[int]]]:
    ends = {"server": peer.server, "agent": peer.agent, "client": peer.client}
    return {end: pids for end, pids in ends.items() if pids()}


def _table(values: Rounds) -> Table:
    rows = [
        [
            peer,
            *(number(values.median(peer, f"idle_{end}_kib"), 1) for end in ENDS),
            number(values.ratio(peer, RELAY, "idle_server_kib")),
            *(pair((values.median(peer, f"{way}_{end}_mib") for way in BOTH), 1) for end in ENDS),
            pair(values.ratio(peer, RELAY, f"{way}_server_mib") for way in BOTH),
        ]
        for peer in values.peers
    ]
    columns = [
        "",
        f"{IDLE} idle: server KiB each",
        "agent",
        "client",
        "server's, times the relay's",
        f"{BULK} bulk to · from: server MiB in all",
        "agent",
        "client",
        "server's, times the relay's",
    ]
    return Table("Memory of connections through one forward", columns, rows)
