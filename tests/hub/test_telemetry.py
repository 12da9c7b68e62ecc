"""The exposition, read back by a parser of Prometheus' text format written here."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hub.admission import Lane, expose_returning
from hub.core import Hub
from hub.telemetry import Sample, Telemetry
from hub.tunnel_metrics import TunnelTotals, expose_tunnels
from protocol.counts import Flood
from protocol.errors import ResetCode

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
_LABEL = re.compile(r'([a-z_][a-z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
_UNESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n"}

Labels = frozenset[tuple[str, str]]


@dataclass
class Family:
    text: str
    kind: str = ""
    samples: dict[tuple[str, Labels], float] = field(default_factory=dict)

    def value(self, suffix: str = "", **labels: str) -> float:
        return self.samples[suffix, frozenset(labels.items())]


def unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda found: _UNESCAPED[found[0]], text)


def parse_labels(text: str) -> Labels:
    found, at = [], 0
    while at < len(text):
        matched = _LABEL.match(text, at)
        assert matched is not None, text[at:]
        found.append((matched[1], unescaped(matched[2])))
        at = matched.end()
    assert len({name for name, _ in found}) == len(found)
    return frozenset(found)


def parse(text: str) -> dict[str, Family]:
    """Families by name; fails on what a scraper would refuse."""
    families: dict[str, Family] = {}
    current = ""
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current, _, help_text = line[7:].partition(" ")
            assert current not in families, f"{current} comes twice"
            families[current] = Family(unescaped(help_text))
        elif line.startswith("# TYPE "):
            name, _, kind = line[7:].partition(" ")
            assert name == current
            families[name].kind = kind
        else:
            matched = re.fullmatch(r"([a-z_0-9]+)(?:\{(.*)\})? (\S+)", line)
            assert matched is not None, line
            suffix = matched[1].removeprefix(current)
            assert matched[1].startswith(current), f"{line} stands below {current}"
            assert suffix in _SUFFIXES[families[current].kind], line
            key = suffix, parse_labels(matched[2] or "")
            assert key not in families[current].samples, line
            families[current].samples[key] = float(matched[3])
    return families


class TestFormat:
    def test_labels_and_help_are_escaped(self) -> None:
        telemetry = Telemetry()
        hostile = 'a "b" \\ c\nd'
        telemetry.family("mooring_x", hostile, "gauge", lambda: [Sample(1.5, {"label": hostile})])
        (family,) = [parse(telemetry.exposition())["mooring_x"]]
        assert family.text == hostile
        assert family.value(label=hostile) == 1.5

    def test_names_that_no_scraper_takes_are_refused(self) -> None:
        telemetry = Telemetry()
        for name in ("things_total", "mooring_Things", "mooring_x y"):
            with pytest.raises(ValueError, match="no metric's name"):
                telemetry.gauge(name, "Things.", lambda: 0)
        telemetry.family("mooring_x", "X.", "gauge", lambda: [Sample(1, {"Bad-label": "v"})])
        with pytest.raises(ValueError, match="no label's name"):
            telemetry.exposition()


class TestTunnels:
    def test_what_sessions_count_is_shown_by_kind(self) -> None:
        telemetry, totals = Telemetry(), TunnelTotals()
        expose_tunnels(telemetry, totals)
        totals.agents.resets_sent[ResetCode.OVERLOADED] += 2
        totals.clients.floods[Flood.PINGS] += 1
        totals.agents.overruns += 3
        families = parse(telemetry.exposition())
        sent = families["mooring_tunnel_resets_sent_total"]
        assert sent.value(kind="agent", code="overloaded") == 2
        assert sent.value(kind="client", code="overloaded") == 0
        assert families["mooring_tunnel_floods_total"].value(kind="client", of="pings") == 1
        assert families["mooring_tunnel_overruns_total"].value(kind="agent") == 3

    def test_round_trips_are_a_histogram(self) -> None:
        telemetry, totals = Telemetry(), TunnelTotals()
        expose_tunnels(telemetry, totals)
        for seconds in (0.0005, 0.001, 0.02, 60.0):
            totals.agents.rtt_s.observe(seconds)
        family = parse(telemetry.exposition())["mooring_tunnel_rtt_seconds"]
        assert family.value("_bucket", kind="agent", le="0.001") == 2
        assert family.value("_bucket", kind="agent", le="0.025") == 3
        assert family.value("_bucket", kind="agent", le="5") == 3
        assert family.value("_bucket", kind="agent", le="+Inf") == 4
        assert family.value("_count", kind="agent") == 4
        assert family.value("_sum", kind="agent") == pytest.approx(60.0215)
        assert family.value("_count", kind="client") == 0


async def test_the_documentation_lists_exactly_what_a_hub_exposes(hub: Hub) -> None:
    rows = re.findall(r"^\| `(mooring_\w+)` \| (\w+) \|", DOCS.read_text(), re.M)
    expose_returning(hub.telemetry, Lane())
    families = parse(hub.telemetry.exposition())
    assert dict(rows) == {name: family.kind for name, family in families.items()}
