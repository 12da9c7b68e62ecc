"""B1 bulk, B2 echo beside bulk, B3 idle echo: the forward against the bare relay and the peers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from tests.bench import traffic
from tests.bench.measure import Rounds
from tests.bench.peers.asyncssh_pair import asyncssh_tunnel
from tests.bench.peers.mooring import NAME
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.programs import Missing
from tests.bench.relay import bare_relay
from tests.bench.report import Result, Table, number, pair, say
from tests.bench.stage import Stage
from tests.bench.targets import Targets
from tests.bench.traffic import Direction

RELAY = "bare relay"
DIRECT = "no tunnel"
IDLE_ECHOES = 200
BUSY_ECHOES = 400
BOTH: tuple[Direction, Direction] = ("to", "from")


def run(stage: Stage, rounds: int, seconds: float) -> Result:
    """Measure all tunnels in turn, `rounds` times, each load `seconds` long."""
    values = Rounds()
    with Targets() as targets, ExitStack() as tunnels:
        peers = _open(stage, targets, tunnels)
        for number_of_round in range(1, rounds + 1):
            for peer in peers:
                say(f"B1–B3 round {number_of_round}: {peer.name}")
                try:
                    _measure(values, targets, peer, seconds)
                except (OSError, ValueError) as error:
                    stage.lacks(f"{peer.name} in round {number_of_round}", error)
    return Result([_bulk_table(values), _echo_table(values)], {"B1-B3": values.values})


def _open(stage: Stage, targets: Targets, tunnels: ExitStack) -> list[TunnelPeer]:
    ports = targets.ports
    peers = [TunnelPeer(DIRECT, ports, list, list)]

    def enter(name: str, make: Callable[[], AbstractContextManager[TunnelPeer]]) -> None:
        try:
            peers.append(tunnels.enter_context(make()))
        except Missing as reason:
            stage.lacks(name, reason)

    enter(NAME, lambda: stage.mooring.tunnel(ports))
    enter(RELAY, lambda: bare_relay(stage.scratch, ports))
    if (ssh := stage.openssh) is not None:
        cipher = "aes128-gcm@openssh.com"
        enter("OpenSSH", lambda: ssh.tunnel("OpenSSH default", ports))
        enter("OpenSSH AES-GCM", lambda: ssh.tunnel("OpenSSH AES-GCM", ports, cipher))
        enter("asyncssh", lambda: asyncssh_tunnel(stage.scratch, ports))
    if (central := stage.meshcentral) is not None:
        enter("MeshCentral", lambda: central.tunnel(ports))
    return peers


def _measure(values: Rounds, targets: Targets, peer: TunnelPeer, seconds: float) -> None:
    metrics: dict[str, float] = {}
    if peer.ports.echo:
        idle = traffic.echo(peer.ports.echo, IDLE_ECHOES, limit_s=3.0)
        metrics |= {"idle_p50": idle.p50, "idle_p99": idle.p99}
    for way in BOTH:
        bulk = traffic.bulk(
            targets, peer.ports, way, seconds, server=peer.server(), path=peer.path()
        )
        metrics[f"{way}_mib_s"] = bulk.mib_per_s
        metrics[f"{way}_server_cpu"] = bulk.server_cpu
        metrics[f"{way}_path_cpu"] = bulk.path_cpu
        if peer.ports.echo:
            busy = _echo_beside(targets, peer, way, seconds)
            metrics |= {f"{way}_busy_p50": busy[0], f"{way}_busy_p99": busy[1]}
    values.add(peer.name, **metrics)


def _echo_beside(
    targets: Targets, peer: TunnelPeer, way: Direction, seconds: float
) -> tuple[float, float]:
    bulk = traffic.bulk(
        targets,
        peer.ports,
        way,
        seconds,
        beside=lambda: traffic.echo(peer.ports.echo, BUSY_ECHOES, limit_s=seconds),
    )
    assert bulk.echo is not None, "it was measured beside"
    return bulk.echo.p50, bulk.echo.p99


def _bulk_table(values: Rounds) -> Table:
    rows = []
    for peer in values.peers:
        against = [values.ratio(peer, RELAY, f"{way}_mib_s") for way in BOTH]
        ssh = [values.ratio(peer, "OpenSSH default", f"{way}_mib_s") for way in BOTH]
        rows.append(
            [
                peer,
                pair((values.median(peer, f"{way}_mib_s") for way in BOTH), 0),
                pair(against),
                pair(ssh),
                pair(values.median(peer, f"{way}_server_cpu") for way in BOTH),
                pair(values.ratio(peer, RELAY, f"{way}_server_cpu") for way in BOTH),
                pair(values.median(peer, f"{way}_path_cpu") for way in BOTH),
            ]
        )
    columns = [
        "B1: to · from the agent",
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
            pair(values.median(peer, f"{way}_busy_p50") for way in BOTH),
            pair(values.median(peer, f"{way}_busy_p99") for way in BOTH),
        ]
        for peer in values.peers
        if values.median(peer, "idle_p50") is not None
    ]
    columns = ["ms", "B3: idle p50", "idle p99", "B2: p50 beside bulk to · from", "p99"]
    return Table("B2, B3: 64-byte echo through the same tunnel", columns, rows)
