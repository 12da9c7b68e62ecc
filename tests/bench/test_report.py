"""From rounds to a document: tables, verdicts, bench.json, and what stands between the markers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.bench import goals
from tests.bench.__main__ import main
from tests.bench.commands import fleet
from tests.bench.measure import Rounds, Spread
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.relay import RELAY
from tests.bench.report import BEGIN, END, Report, Result, Table, put, ranges, read, text, write
from tests.bench.stage import Absent, Options, Stage
from tests.bench.targets import Ports
from tests.bench.tunnels import OURS, PEERS

BENCHMARKS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
TABLE = Table("Speed", ["", "MiB/s"], [["mooring", "1.00"]], ["A note."])


def forward(**ours: float) -> dict[str, Result]:
    """Three equal rounds in which the relay and every peer have 1 everywhere."""
    metrics = {"idle_p50": 1.0} | {
        f"{way}_{metric}": 1.0
        for way in ("to", "from")
        for metric in ("mib_s", "server_cpu", "busy_p99")
    }
    rounds = Rounds()
    for _ in rounds.each(3):
        rounds.add(OURS, **(metrics | ours))
        for peer in (RELAY, *PEERS):
            rounds.add(peer, **metrics)
    return {"tests/bench/forwards.py": Result.of([TABLE], **{"B1-B3": rounds})}


def report(results: dict[str, Result], rounds: int = 3) -> Report:
    return Report(
        at="2026-01-02 03:04 UTC",
        commit="abcdef0",
        machine="2 cores (Z80), 1 GiB, Linux 7",
        versions=["Python 3.11", "wstunnel 1.4.0"],
        command="python -m tests.bench forward",
        rounds=rounds,
        load_before=0.1,
        load_after=1.9,
        missing=["MeshCentral: npm can't\nhave it"],
        results=results,
    )


def verdicts(results: dict[str, Result]) -> dict[str, str]:
    table = goals.table(results)
    assert table is not None
    return {row[0]: row[2] for row in table.rows}


def test_a_target_is_met_up_to_its_bound_and_missed_beyond() -> None:
    title = "B1 hub CPU per GiB ≤ 1.1 of the bare relay's"
    assert verdicts(forward(to_server_cpu=1.1, from_server_cpu=1.1))[title] == "met"
    assert verdicts(forward(to_server_cpu=1.11, from_server_cpu=1.11))[title] == "missed"


def test_a_target_missed_one_way_says_which() -> None:
    title = "B1 MiB/s ≥ 0.85 of the bare relay's"
    assert verdicts(forward(to_mib_s=0.85, from_mib_s=0.84))[title] == "missed from the agent"
    assert verdicts(forward(to_mib_s=0.84, from_mib_s=0.85))[title] == "missed to the agent"


@pytest.mark.parametrize(("share", "verdict"), [(1.0, "met"), (1.01, "missed")])
def test_growth_under_stalled_readers_has_its_target(share: float, verdict: str) -> None:
    rounds = Rounds()
    for _ in rounds.each(3):
        rounds.add(OURS, of_allowed=share)
    found = verdicts({"tests/bench/stalled.py": Result.of([], B11=rounds)})
    assert list(found.values()) == [verdict]


def test_a_fleet_grows_linearly_up_to_what_rounds_differ() -> None:
    rounds = Rounds()
    for _ in rounds.each(3):
        rounds.add(fleet(1000), exec_p50_ms=100.0, kib_per_agent=70.0, rest_percent=1.0)
        rounds.add(fleet(10_000), exec_p50_ms=1100.0, kib_per_agent=81.0, rest_percent=11.2)
    found = verdicts({"tests/bench/scale.py": Result.of([], scale=rounds)})
    assert list(found.items()) == [
        ("B7 hub KiB per agent ≤ 80, with 10,000 agents", "missed"),
        ("B9 hub CPU at rest ≤ 15 % of a core, with 10,000 agents", "met"),
        ("B15 B4's p50, 10,000 to 1,000 agents ≤ 10 / 0.9", "met"),
        ("B15 B7's KiB per agent, 10,000 to 1,000 agents ≤ 1 / 0.9", "missed"),
        ("B15 B9's CPU at rest, 10,000 to 1,000 agents ≤ 10 / 0.9", "missed"),
    ]


def test_every_peer_has_its_row_and_below_it_is_met() -> None:
    found = verdicts(forward(to_busy_p99=0.5, from_busy_p99=0.5))
    for peer in PEERS:
        assert found[f"B2 p99 below {peer}: times its"] == "met"


def test_targets_that_nothing_decides_are_left_out() -> None:
    assert not any(title.startswith(("B4", "B5")) for title in verdicts(forward()))
    assert goals.table({}) is None


def test_a_spread_is_shown_where_rounds_differ() -> None:
    assert ranges([Spread(2.0, 1.0, 3.0), Spread(1.0, 1.0, 1.001), None]) == (
        "2.00 (1.00–3.00) · 1.00 · –"
    )


def test_the_text_names_script_circumstances_and_who_is_missing() -> None:
    shown = text(report(forward()))
    assert "### Speed\n\n|  | MiB/s |\n| --- | --- |\n| mooring | 1.00 |\n\nA note." in shown
    assert "Made by `tests/bench/forwards.py`." in shown
    for part in ("2026-01-02 03:04 UTC", "`abcdef0`", "2 cores", "wstunnel 1.4.0", "average 0.1"):
        assert part in shown
    assert "- MeshCentral: npm can't have it" in shown
    assert "not to be quoted" not in shown


def test_fewer_than_three_rounds_are_called_a_trial() -> None:
    assert "not to be quoted" in text(report(forward(), rounds=2))


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    path, whole = tmp_path / "bench.json", report(forward())
    write(whole, path)
    assert read(path) == whole
    summary = msgspec.json.decode(path.read_bytes())["results"]["tests/bench/forwards.py"]
    assert summary["summary"]["B1-B3"][OURS]["to_mib_s"] == {"median": 1.0, "low": 1.0, "high": 1.0}


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    document = f"# Head\n\n{BEGIN}\nold\n{END}\n\ntail\n"
    once = put(document, "new\n")
    assert once == f"# Head\n\n{BEGIN}\n\nnew\n\n{END}\n\ntail\n"
    assert put(once, "new\n") == once


@pytest.mark.parametrize(
    "document", ["", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_a_document_without_its_two_markers_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        put(document, "new")


def test_our_document_has_the_markers() -> None:
    assert "new figures" in put(BENCHMARKS.read_text(), "new figures")


def test_the_report_command_fills_a_document(tmp_path: Path) -> None:
    figures, document = tmp_path / "bench.json", tmp_path / "page.md"
    write(report(forward()), figures)
    document.write_text(f"{BEGIN}\n{END}\n")
    assert main(["report", str(figures), "--into", str(document)]) == 0
    assert "### Speed" in document.read_text()
    assert "### Against the targets" in document.read_text()


@pytest.mark.parametrize("content", [b"{}", b"no json", b'{"at": 1}'])
def test_the_report_command_refuses_what_is_no_bench_json(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(path)])
    assert ended.value.code == 1
    assert "is no bench.json of this version" in capsys.readouterr().err


def test_who_fails_is_named_and_left_out_and_the_others_go_on() -> None:
    absent, turns = Absent(), list[str]()
    stage = Stage(Path(), absent, Options(), None, None, None)  # type: ignore[arg-type]
    contestants = {name: TunnelPeer(name, Ports(1, 2, 3)) for name in ("first", "broken", "last")}

    def measure(name: str, peer: TunnelPeer) -> None:
        assert peer.name == name
        turns.append(name)
        if name == "broken":
            raise ConnectionError("the echo was closed")

    for number in (1, 2):
        stage.measure(f"round {number}", contestants, measure)
    assert turns == ["first", "broken", "last", "first", "last"]
    assert absent.reasons == ["broken in round 1: the echo was closed"]
