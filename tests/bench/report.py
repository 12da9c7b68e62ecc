"""What the bench says: progress on stderr, tables in Markdown on stdout, everything in JSON.

Nobody copies figures by hand: `put` replaces what a document holds between `BEGIN` and `END`.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import psutil

from tests.bench.measure import GIB, Rounds, Spread, Values, load

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
TRUSTED_ROUNDS = 3
BUSY = 0.5 * (psutil.cpu_count() or 1)
"""A load average above this before the start says that others work here too."""


class Table(msgspec.Struct, frozen=True):
    """One benchmark's result for people."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []

    def __str__(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        notes = "".join(f"\n\n{note}" for note in self.notes)
        return f"### {self.title}\n\n{body}{notes}"


class Result(msgspec.Struct, frozen=True):
    """One benchmark: what people read, every round's values, and their medians and spreads."""

    tables: list[Table]
    rounds: dict[str, Values]
    summary: dict[str, dict[str, dict[str, Spread]]] = {}

    @classmethod
    def of(cls, tables: list[Table], **rounds: Rounds) -> Result:
        """Of tables and the rounds that they show."""
        return cls(
            tables,
            {name: found.values for name, found in rounds.items()},
            {name: found.summary() for name, found in rounds.items()},
        )


class Report(msgspec.Struct, frozen=True):
    """What `bench.json` holds; `results` by the script that made them."""

    at: str
    commit: str
    machine: str
    versions: list[str]
    command: str
    rounds: int
    load_before: float
    load_after: float
    missing: list[str]
    results: dict[str, Result]


def say(text: str) -> None:
    """Progress, with the time and the load average."""
    print(f"{time.strftime('%H:%M:%S')} load {load():5.2f}  {text}", file=sys.stderr, flush=True)


def number(value: float | None, digits: int = 2) -> str:
    """A figure for a table; a dash when there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def pair(values: Iterable[float | None], digits: int = 2) -> str:
    """Figures that belong together."""
    return " · ".join(number(value, digits) for value in values)


def ranges(values: Iterable[Spread | None], digits: int = 2) -> str:
    """Medians that belong together, each with its lowest and highest round unless all agree."""
    return " · ".join(_range(value, digits) for value in values)


def _range(value: Spread | None, digits: int) -> str:
    if value is None:
        return number(None)
    shown = [number(figure, digits) for figure in (value.median, value.low, value.high)]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]}–{shown[2]})"


def machine() -> str:
    """Cores, memory, kernel and processor of this machine."""
    memory = round(psutil.virtual_memory().total / GIB)
    return f"{psutil.cpu_count()} cores ({_model()}), {memory} GiB, Linux {platform.release()}"


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def text(report: Report, targets: Table | None = None) -> str:
    """The circumstances, and each table below the script that made it, in Markdown."""
    parts = [_circumstances(report)]
    for script, result in report.results.items():
        parts += [f"{table}\n\nMade by `{script}`." for table in result.tables if table.rows]
    if targets is not None:
        parts.append(str(targets))
    if report.missing:
        parts.append("\n".join(["Not measured:", *(f"- {_line(why)}" for why in report.missing)]))
    return "\n\n".join(parts) + "\n"


def _circumstances(report: Report) -> str:
    lines = [
        f"{report.at}, commit `{report.commit}`, {report.machine}; load average "
        f"{report.load_before} before the start, {report.load_after} after it.",
        f"{'; '.join(report.versions)}.",
        f"Medians of {report.rounds} alternating rounds, in brackets the lowest and the highest; "
        f"pairs are to · from the agent. Repeat: `{report.command}`.",
    ]
    if report.rounds < TRUSTED_ROUNDS:
        lines.append(f"Fewer than {TRUSTED_ROUNDS} rounds: a trial, not to be quoted.")
    if report.load_before > BUSY:
        lines.append("The machine had other work: trust ratios within a table, not the figures.")
    return "\n".join(lines)


def _line(reason: str) -> str:
    return " ".join(reason.split())


def read(path: Path) -> Report:
    """Read a `bench.json`.

    Raises:
        ValueError: it is none, or one of another version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} is no bench.json of this version: {error}") from error


def write(report: Report, path: Path) -> None:
    """Write everything as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    say(f"everything is in {path}")


def put(document: str, block: str) -> str:
    """The document with `block` between its two markers.

    Raises:
        ValueError: the markers aren't there once each, in order.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in head + tail:
        raise ValueError(f"needs one line {BEGIN} and, below it, one line {END}")
    return f"{head}{BEGIN}\n\n{block}\n{END}{tail}"
