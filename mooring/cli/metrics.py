"""`mooring metrics`: a node's measurements of the last while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from mooring.cli.output import print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import seconds, size
from mooring.sdk import Client, calls
from mooring.sdk.models import History

app = typer.Typer(add_completion=False)
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 24


@app.command("metrics", epilog="Example:  mooring metrics web-1 --since 15m")
def metrics(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    since: Annotated[
        float, typer.Option(parser=seconds, metavar="TIME", show_default="1h", help="How far back.")
    ] = 3600.0,
) -> None:
    """Show what a node measured: last, least, mean and greatest value of each series."""
    with Client.connect() as hub:
        history = hub.call(calls.metrics(node, since))
    if settings_of(context).json:
        print_json(history)
    else:
        print_table(("SERIES", "LAST", "MIN", "MEAN", "MAX", "COURSE"), _rows(history))


def _rows(history: History) -> Iterator[tuple[str, ...]]:
    for series, row in zip(history.series, history.values, strict=False):
        values = [value for value in row if value is not None]
        if values:
            figures = (values[-1], min(values), sum(values) / len(values), max(values))
            yield (series.name, *(quantity(x, series.unit) for x in figures), spark(row))


def quantity(value: float, unit: str) -> str:
    """Write a value with its unit."""
    match unit:
        case "bytes":
            return size(value)
        case "bytes/s":
            return f"{size(value)}/s"
        case "percent":
            return f"{value:.1f} %"
        case _:
            return f"{value:.2f}".rstrip("0").rstrip(".")


def spark(row: list[float | None]) -> str:
    """Draw a row in 24 characters, from its least to its greatest value; a gap is a space."""
    step = max(1, -(-len(row) // _WIDTH))
    means: list[float | None] = []
    for start in range(0, len(row), step):
        values = [value for value in row[start : start + step] if value is not None]
        means.append(sum(values) / len(values) if values else None)
    known = [mean for mean in means if mean is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    scale = (len(_BARS) - 1) / span if span else 0.0
    return "".join(" " if x is None else _BARS[round((x - low) * scale)] for x in means)
