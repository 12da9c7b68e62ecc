"""B1 bulk, B2 echo beside bulk, B3 idle echo: the forward against the bare relay and the peers."""

from __future__ import annotations

from tests.bench import traffic
from tests.bench.measure import Rounds
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.relay import RELAY
from tests.bench.report import Result, Table, number, pair, ranges
from tests.bench.stage import Stages
from tests.bench.targets import Targets
from tests.bench.traffic import BOTH
from tests.bench.tunnels import OPENSSH, tunnels

ROUNDS = "B1-B3"
IDLE_ECHOES = 200


def run(stages: Stages) -> Result:
    """Measure all tunnels in turn, round by round."""
    values, options = Rounds(), stages.options
    with stages.up() as stage, Targets() as targets, tunnels(stage, targets.ports) as peers:

        def measure(name: str, peer: TunnelPeer) -> None:
            values.add(name, **_measure(targets, peer, options.seconds))

        for number_of_round in values.each(options.rounds):
            stage.measure(f"B1–B3 round {number_of_round}", peers, measure)
    return Result.of([_bulk_table(values), _echo_table(values)], **{ROUNDS: values})


def _measure(targets: Targets, peer: TunnelPeer, seconds: float) -> dict[str, float]:
    idle = traffic.echo(peer.ports.echo, IDLE_ECHOES, limit_s=3.0)
    metrics = {"idle_p50": idle.p50, "idle_p99": idle.p99}
    for way in BOTH:
        bulk = traffic.bulk(targets, peer, way, seconds)
        metrics[f"{way}_mib_s"] = bulk.mib_per_s
        if peer.path():
            metrics[f"{way}_server_cpu"] = bulk.server_cpu
            metrics[f"{way}_path_cpu"] = bulk.path_cpu
        _, busy = traffic.bulk_and_echo(targets, peer, way, seconds)
        metrics |= {f"{way}_busy_p50": busy.p50, f"{way}_busy_p99": busy.p99}
    return metrics


def _bulk_table(values: Rounds) -> Table:
    rows = [
        [
            peer,
            pair((values.median(peer, f"{way}_mib_s") for way in BOTH), 0),
            ranges(values.spread(peer, f"{way}_mib_s", RELAY) for way in BOTH),
            pair(values.ratio(peer, OPENSSH, f"{way}_mib_s") for way in BOTH),
            pair(values.median(peer, f"{way}_server_cpu") for way in BOTH),
            ranges(values.spread(peer, f"{way}_server_cpu", RELAY) for way in BOTH),
            pair(values.median(peer, f"{way}_path_cpu") for way in BOTH),
        ]
        for peer in values.peers
    ]
    columns = [
        "to · from the agent",
        "MiB/s",
        "of the relay's",
        "of OpenSSH's",
        "server CPU-s/GiB",
        "of the relay's",
        "all programs' CPU-s/GiB",
    ]
    return Table("B1: bulk through a forward, two TLS legs", columns, rows)


def _echo_table(values: Rounds) -> Table:
    rows = [
        [
            peer,
            number(values.median(peer, "idle_p50")),
            number(values.median(peer, "idle_p99")),
            number(values.ratio(peer, RELAY, "idle_p50")),
            pair(values.median(peer, f"{way}_busy_p50") for way in BOTH),
            ranges(values.spread(peer, f"{way}_busy_p99") for way in BOTH),
            pair(values.ratio(peer, RELAY, f"{way}_busy_p99") for way in BOTH),
        ]
        for peer in values.peers
    ]
    columns = [
        "ms",
        "B3: idle p50",
        "idle p99",
        "idle p50, times the relay's",
        "B2: p50 beside bulk to · from",
        "p99",
        "p99, times the relay's",
    ]
    notes = ["The relay's echo has connections of its own, so it never waits behind the bulk."]
    return Table("B2, B3: 64-byte echo through the same tunnel", columns, rows, notes)
