"""What the bench says: progress on stderr, tables in Markdown on stdout, everything in JSON."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import psutil

from tests.bench.measure import GIB, load

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
        notes = "".join(f"\n{note}" for note in self.notes)
        return f"### {self.title}\n\n{body}\n{notes}"


class Result(msgspec.Struct, frozen=True):
    """One benchmark: what people read, and every round's values by peer and metric."""

    tables: list[Table]
    rounds: dict[str, dict[str, dict[str, list[float]]]]


class Report(msgspec.Struct, frozen=True):
    """What `bench.json` holds."""

    at: str
    machine: str
    versions: list[str]
    command: str
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


def machine() -> str:
    """Cores, memory, kernel and processor of this machine."""
    memory = round(psutil.virtual_memory().total / GIB)
    return f"{psutil.cpu_count()} cores ({_model()}), {memory} GiB, Linux {platform.release()}"


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write(report: Report, path: Path, tables: Sequence[Table]) -> None:
    """Write the JSON, and the tables below their circumstances."""
    print(f"{report.at} · {report.machine}\n")
    print(f"Load average {report.load_before} before, {report.load_after} after. ", end="")
    print(f"Versions: {'; '.join(report.versions)}. Repeat: `{report.command}`.\n")
    if report.load_before > BUSY:
        print("The machine had other work: trust ratios within a table, not the figures.\n")
    for table in tables:
        print(table, "\n")
    for reason in report.missing:
        print(f"Not measured: {reason}")
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    say(f"everything is in {path}")
