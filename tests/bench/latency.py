"""B1 and B2 where the agent is far: one stream's throughput and echoes over a long link.

The link lies between agent and server (`link.py`). What counts is how large a window each tunnel
lets one stream have: a fixed one caps it at window ÷ round trip, however fast the link is.
"""

from __future__ import annotations

from tests.bench import traffic
from tests.bench.link import Link
from tests.bench.measure import Rounds
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.relay import RELAY
from tests.bench.report import Result, Table, number, pair, ranges
from tests.bench.stage import Stages
from tests.bench.targets import Targets
from tests.bench.traffic import BOTH
from tests.bench.tunnels import FAR, OPENSSH, tunnels

LINKS = (Link(40, 100), Link(100, 100), Link(100, 10))
IDLE_ECHOES = 20
WARM_UP_S = 3.0
"""Windows that grow double once a round trip; what is counted is what they come to."""


def run(stages: Stages) -> Result:
    """Measure every tunnel over every link in turn, round by round."""
    options = stages.options
    values = {link: Rounds() for link in LINKS}
    with stages.up(meshcentral=False) as stage, Targets() as targets:
        for link, rounds in values.items():
            with (
                link.ports(stage.scratch) as via,
                tunnels(stage, targets.ports, FAR, via) as peers,
            ):

                def measure(name: str, peer: TunnelPeer, rounds: Rounds = rounds) -> None:
                    rounds.add(name, **_measure(targets, peer, options.seconds))

                for number_of_round in rounds.each(options.rounds):
                    stage.measure(f"{link}, round {number_of_round}", peers, measure)
    return Result.of(
        [_table(link, rounds) for link, rounds in values.items()],
        **{f"latency {link}": rounds for link, rounds in values.items()},
    )


def _measure(targets: Targets, peer: TunnelPeer, seconds: float) -> dict[str, float]:
    metrics = {"idle_p50": traffic.echo(peer.ports.echo, IDLE_ECHOES, limit_s=10.0).p50}
    for way in BOTH:
        bulk, busy = traffic.bulk_and_echo(targets, peer, way, seconds, WARM_UP_S)
        metrics[f"{way}_mib_s"] = bulk.mib_per_s
        metrics |= {f"{way}_busy_p50": busy.p50, f"{way}_busy_p99": busy.p99}
    return metrics


def _table(link: Link, values: Rounds) -> Table:
    rows = [
        [
            peer,
            pair((values.median(peer, f"{way}_mib_s") for way in BOTH), 1),
            ranges(values.spread(peer, f"{way}_mib_s", RELAY) for way in BOTH),
            pair(values.ratio(peer, OPENSSH, f"{way}_mib_s") for way in BOTH),
            number(values.median(peer, "idle_p50"), 1),
            pair((values.median(peer, f"{way}_busy_p50") for way in BOTH), 1),
            pair((values.median(peer, f"{way}_busy_p99") for way in BOTH), 1),
        ]
        for peer in values.peers
    ]
    columns = [
        "to · from the agent",
        "MiB/s, one stream",
        "of the relay's",
        "of OpenSSH's",
        "idle echo p50 ms",
        "p50 beside bulk",
        "p99",
    ]
    return Table(f"Long link: {link}", columns, rows)
