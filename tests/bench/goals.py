"""The targets that these benchmarks decide, computed from the rounds: met, or missed and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.bench import commands, forwards, scale, stalled, terminals
from tests.bench.measure import Rounds, Spread
from tests.bench.relay import RELAY
from tests.bench.report import Result, Table, ranges
from tests.bench.traffic import BOTH
from tests.bench.tunnels import ASYNCSSH, CENTRAL, OPENSSH, OURS, PEERS

SIDES = ("to the agent", "from the agent")
LEVEL = 0.9
"""From this ratio on two are level: closer than rounds on a shared machine are."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One target: each value must be at most, or at least, the bound."""

    title: str
    values: Sequence[Spread | None]
    at_most: float | None = None
    at_least: float | None = None

    def row(self) -> list[str] | None:
        """What the table says; None when not all of it was measured."""
        if None in self.values:
            return None
        missed = [
            side
            for side, value in zip(SIDES, self.values, strict=False)
            if value is not None and not self._holds(value.median)
        ]
        verdict = "met"
        if len(missed) == len(self.values):
            verdict = "missed"
        elif missed:
            verdict = f"missed {missed[0]}"
        return [self.title, ranges(self.values), verdict]

    def _holds(self, value: float) -> bool:
        over = self.at_most is not None and value > self.at_most
        under = self.at_least is not None and value < self.at_least
        return not over and not under


def table(results: Mapping[str, Result]) -> Table | None:
    """Every target that the results decide; None when there is none."""
    rounds = {
        name: Rounds(found) for result in results.values() for name, found in result.rounds.items()
    }
    nothing = Rounds()
    goals = [
        *_forward(rounds.get(forwards.ROUNDS, nothing)),
        *_commands(
            rounds.get(commands.SINGLE_ROUNDS, nothing), rounds.get(commands.FLEET_ROUNDS, nothing)
        ),
        *_terminals(rounds.get(terminals.ROUNDS, nothing)),
        *_stalled(rounds.get(stalled.ROUNDS, nothing)),
        *_scale(rounds.get(scale.ROUNDS, nothing)),
    ]
    rows = [row for goal in goals if (row := goal.row()) is not None]
    notes = ["Medians, and in brackets the lowest and the highest round."]
    return Table("Against the targets", ["target", "measured", ""], rows, notes) if rows else None


def _forward(values: Rounds) -> Iterator[Goal]:
    def both(metric: str, to: str | None = None) -> list[Spread | None]:
        return [values.spread(OURS, f"{way}_{metric}", to) for way in BOTH]

    yield Goal(
        "B1 hub CPU per GiB ≤ 1.1 of the bare relay's", both("server_cpu", RELAY), at_most=1.1
    )
    yield Goal("B1 MiB/s ≥ 0.85 of the bare relay's", both("mib_s", RELAY), at_least=0.85)
    for peer in (ASYNCSSH, CENTRAL):
        yield Goal(f"B1 ahead of {peer}: times its MiB/s", both("mib_s", peer), at_least=1.0)
    title = f"B1 level with {OPENSSH}: ≥ {LEVEL} of its MiB/s"
    yield Goal(title, both("mib_s", OPENSSH), at_least=LEVEL)
    yield Goal("B2 p99 beside bulk ≤ 4 ms", both("busy_p99"), at_most=4.0)
    for peer in PEERS:
        yield Goal(f"B2 p99 below {peer}: times its", both("busy_p99", peer), at_most=1.0)
    yield Goal("B3 idle p50 ≤ 0.6 ms", [values.spread(OURS, "idle_p50")], at_most=0.6)


def _commands(single: Rounds, fleet: Rounds) -> Iterator[Goal]:
    yield Goal("B4 one node p50 ≤ 3 ms", [single.spread(OURS, "p50")], at_most=3.0)
    p50 = fleet.spread(commands.fleet(50), "p50")
    yield Goal("B4 50 agents p50 ≤ 200 ms", [p50], at_most=200.0)


def _terminals(values: Rounds) -> Iterator[Goal]:
    for title, metric, at_most in (
        ("B5 echo p50 ≤ 1 ms", "p50", 1.0),
        ("B5 echo p99 ≤ 5 ms", "p99", 5.0),
        ("B5 Ctrl-C under a flood ≤ 300 ms", "ctrl_c_ms", 300.0),
    ):
        yield Goal(title, [values.spread(OURS, metric)], at_most=at_most)
    yield Goal("B5 output ≥ 60 MiB/s", [values.spread(OURS, "mib_s")], at_least=60.0)


def _stalled(values: Rounds) -> Iterator[Goal]:
    title = "B11 hub's growth ≤ its receive budget + 10 %: share of that"
    yield Goal(title, [values.spread(OURS, "of_allowed")], at_most=1.0)


def _scale(values: Rounds) -> Iterator[Goal]:
    thousand, most = commands.fleet(1000), commands.fleet(10_000)
    p99 = values.spread(thousand, "exec_p99_ms")
    yield Goal("B4 1,000 simulated agents p99 ≤ 3,000 ms", [p99], at_most=3000.0)
    for title, metric, at_most in (
        ("B7 hub KiB per agent ≤ 80", "kib_per_agent", 80.0),
        ("B7 hub MiB ≤ 1,024", "hub_mib", 1024.0),
        ("B8 back after a crash ≤ 60 s", "crash_back_s", 60.0),
        ("B8 hub CPU per handshake after a crash ≤ 2 ms", "crash_ms_per_handshake", 2.0),
        ("B8 back after a planned stop ≤ 60 s", "stop_back_s", 60.0),
        ("B8 hub CPU per handshake after a planned stop ≤ 2 ms", "stop_ms_per_handshake", 2.0),
        ("B9 hub CPU at rest ≤ 15 % of a core", "rest_percent", 15.0),
    ):
        yield Goal(f"{title}, with 10,000 agents", [values.spread(most, metric)], at_most=at_most)
    for title, metric, linear in (
        ("B15 B4's p50", "exec_p50_ms", 10.0),
        ("B15 B7's KiB per agent", "kib_per_agent", 1.0),
        ("B15 B9's CPU at rest", "rest_percent", 10.0),
    ):
        bound = f"≤ {linear:.0f} / {LEVEL}"
        growth = [values.spread(most, metric, thousand)]
        yield Goal(f"{title}, 10,000 to 1,000 agents {bound}", growth, at_most=linear / LEVEL)
