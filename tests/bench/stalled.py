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
from tests.bench.peers.mooring import NAME
from tests.bench.programs import HOST
from tests.bench.report import Result, Table, number, say
from tests.bench.stage import Stage
from tests.bench.targets import Targets

READERS = 200
ALLOWED = 1.1  # of the receive budget
SETTLED_S = 3.0
SETTLE_LIMIT_S = 40.0


def run(stage: Stage, rounds: int) -> Result:
    """Stall all readers of a forward at once, `rounds` times; all growth is since before."""
    values, hub = Rounds(), psutil.Process(stage.mooring.hub)
    before = _settled(hub)
    for number_of_round in range(1, rounds + 1):
        say(f"B11 round {number_of_round}: {READERS} stalled readers")
        with Targets() as targets, stage.mooring.tunnel(targets.ports) as tunnel:
            values.add(NAME, **_measure(stage, hub, before, tunnel.ports.source))
    return Result([_table(values)], {"B11": values.values})


def _measure(stage: Stage, hub: psutil.Process, before: int, port: int) -> dict[str, float]:
    budget = _metric(stage, "mooring_receive_budget_bytes")
    with ExitStack() as stalled:
        for _ in range(READERS):
            reader = stalled.enter_context(socket.create_connection((HOST, port), timeout=20))
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            if not reader.recv(1):
                raise OSError("the forward ended a connection")
        stalled_rss = _settled(hub)
        held = _metric(stage, "mooring_receive_held_bytes")
        streams = _metric(stage, 'mooring_tunnel_streams_stalled{kind="client"}')
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


def _metric(stage: Stage, name: str) -> float:
    env = stage.mooring.mesh.env
    context = ssl.create_default_context(cafile=env["MOORING_CA"])
    with urllib.request.urlopen(env["MOORING_URL"] + "/metrics", context=context) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    if found is None:
        raise ValueError(f"the hub does not expose {name}")
    return float(found[1])


def _table(values: Rounds) -> Table:
    def figure(metric: str, digits: int = 1) -> str:
        return number(values.median(NAME, metric), digits)

    row = [
        f"{READERS}, of these stalled: {figure('stalled_streams', 0)}",
        figure("before_mib"),
        figure("stalled_mib"),
        figure("after_mib"),
        figure("grown_mib"),
        figure("held_mib"),
        figure("budget_mib", 0),
        figure("of_allowed", 3),
    ]
    columns = [
        "readers",
        "hub before, MiB",
        "with them",
        "after them",
        "grown",
        "of this received and unread",
        "receive budget",
        f"grown, of {ALLOWED:.0%} of the budget",
    ]
    return Table("B11: memory of the hub under stalled readers", columns, [row])
