"""B11: what the hub holds for readers of forwards that stop reading, against its receive budget."""

from __future__ import annotations

import re
import socket
import ssl
import time
import urllib.request
from contextlib import ExitStack

import psutil

from tests.bench.measure import MIB, Rounds
from tests.bench.peers.mooring import Mooring
from tests.bench.programs import HOST
from tests.bench.report import Result, Table, number, ranges
from tests.bench.stage import Stages
from tests.bench.targets import Targets
from tests.bench.tunnels import OURS

ROUNDS = "B11"
READERS = 200
ALLOWED = 1.1  # of the receive budget
SETTLED_S = 3.0
SETTLE_LIMIT_S = 40.0


def run(stages: Stages) -> Result:
    """Stall all readers of a forward at once, round by round; all growth is since before."""
    values = Rounds()
    with stages.up(meshcentral=False) as stage:
        hub = psutil.Process(stage.mooring.hub)
        before = _settled(hub)

        def measure(name: str, mooring: Mooring) -> None:
            with Targets() as targets, mooring.tunnel(targets.ports) as tunnel:
                values.add(name, **_measure(mooring, hub, before, tunnel.ports.source))

        contestants = {OURS: stage.mooring}
        for number_of_round in values.each(stages.options.rounds):
            stage.measure(f"B11 round {number_of_round}", contestants, measure)
    return Result.of([_table(values)], **{ROUNDS: values})


def _measure(mooring: Mooring, hub: psutil.Process, before: int, port: int) -> dict[str, float]:
    budget = _metric(mooring, "mooring_receive_budget_bytes")
    with ExitStack() as stalled:
        for _ in range(READERS):
            reader = stalled.enter_context(socket.create_connection((HOST, port), timeout=20))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if not reader.recv(1):
                raise OSError("the forward ended a connection")
        stalled_rss = _settled(hub)
        held = _metric(mooring, "mooring_receive_held_bytes")
        streams = _metric(mooring, 'mooring_tunnel_streams_stalled{kind="client"}')
    after = _settled(hub)
    return {
        "before_mib": before / MIB,
        "stalled_mib": stalled_rss / MIB,
        "after_mib": after / MIB,
        "grown_mib": (stalled_rss - before) / MIB,
        "held_mib": held / MIB,
        "budget_mib": budget / MIB,
        "stalled_streams": streams,
        "of_allowed": (stalled_rss - before) / (ALLOWED * budget),
    }


def _settled(process: psutil.Process) -> int:
    """What the process holds once that has not changed by 1 MiB for a while."""
    limit = time.monotonic() + SETTLE_LIMIT_S
    rss: int = process.memory_info().rss
    since = time.monotonic()
    while time.monotonic() < limit and time.monotonic() - since < SETTLED_S:
        time.sleep(0.1)
        now = process.memory_info().rss
        if abs(now - rss) > MIB:
            rss, since = now, time.monotonic()
    return rss


def _metric(mooring: Mooring, name: str) -> float:
    env = mooring.mesh.env
    context = ssl.create_default_context(cafile=env["MOORING_CA"])
    with urllib.request.urlopen(env["MOORING_URL"] + "/metrics", context=context) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    if found is None:
        raise ValueError(f"the hub does not expose {name}")
    return float(found[1])


def _table(values: Rounds) -> Table:
    rows = [
        [
            peer,
            number(values.median(peer, "stalled_streams"), 0),
            number(values.median(peer, "before_mib"), 1),
            number(values.median(peer, "stalled_mib"), 1),
            number(values.median(peer, "after_mib"), 1),
            number(values.median(peer, "grown_mib"), 1),
            number(values.median(peer, "held_mib"), 1),
            number(values.median(peer, "budget_mib"), 0),
            ranges([values.spread(peer, "of_allowed")], 3),
        ]
        for peer in values.peers
    ]
    columns = [
        "",
        f"streams stalled by {READERS} readers",
        "hub before, MiB",
        "with them",
        "after them",
        "grown",
        "of this received and unread",
        "receive budget",
        f"grown, of {ALLOWED:.0%} of the budget",
    ]
    return Table("B11: memory of the hub under stalled readers", columns, rows)
