"""What goes to stdout: JSON for programs, tables for people; questions and notes go to stderr.

The rule it guards: what a node says of itself is hostile, so control characters never reach the
terminal. Tables are Rich's on a terminal and plain aligned columns elsewhere, never cut off.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence

import msgspec
import typer

from mooring.cli.failures import INTERRUPTED
from mooring.cli.settings import settings_of

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_ESCAPE = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

_STATES = {
    "online": "green", "succeeded": "green", "offline": "red", "failed": "red", "lost": "red",
    "timed_out": "red", "running": "cyan", "queued": "dim", "never": "dim", "cancelled": "yellow",
    "quarantined": "magenta", "revoked": "magenta",
}  # fmt: skip


def clean(text: str) -> str:
    """Drop control characters."""
    return _CONTROL.sub("", text)


def clean_output(text: str) -> str:
    """Drop control characters of a command's output except tabs and colours."""
    return _ESCAPE.sub("", text)


def colours(stream: object) -> bool:
    """Whether colours make sense on a stream."""
    is_terminal = getattr(stream, "isatty", lambda: False)()
    return bool(is_terminal) and not os.environ.get("NO_COLOR")


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings."""
    cells = [[clean(str("" if cell is None else cell)) for cell in row] for row in rows]
    if colours(sys.stdout):
        _print_rich(columns, cells)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _print_rich(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=_STATES.get(cell, "")) for cell in row))
    Console().print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one thing, a line per field; empty fields are left out."""
    shown = [(name, clean(str(value))) for name, value in fields if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}")


def note(text: str) -> None:
    """Say something that is not the result."""
    print("\n".join(map(clean, text.split("\n"))), file=sys.stderr)


def show_warnings() -> None:
    """Let our own warnings reach stderr, and of libraries only errors."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR)
    logging.getLogger("mooring").setLevel(logging.WARNING)


def confirm(context: typer.Context, question: str) -> None:
    """Ask before something grave; only a person at a terminal is asked, and not after `--yes`."""
    if settings_of(context).yes or not sys.stdin.isatty():
        return
    print(f"{clean(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        note("nothing was done")
        raise typer.Exit(INTERRUPTED)
