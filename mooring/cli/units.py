"""Durations, sizes and times as people write and read them."""

from __future__ import annotations

import re
import time

import typer

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds(text: str | float) -> float:
    """Read 90, 90s, 5m, 1h30m or 7d.

    Raises:
        typer.BadParameter: it is something else, or nothing at all.
    """
    written = str(text).strip().lower()
    if _DURATION.fullmatch(written):
        value = sum(float(n) * _SECONDS[unit] for n, unit in _PIECE.findall(written))
    else:
        try:
            value = float(written)
        except ValueError:
            value = 0
    if not 0 < value < 1e9:
        raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 5m, 1h30m or 7d")
    return value


def pairs(texts: list[str], what: str) -> dict[str, str]:
    """Read KEY=VALUE words.

    Raises:
        typer.BadParameter: one of them has no key or no equals sign.
    """
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{text!r} is not a {what}; write KEY=VALUE")
        found[key] = value
    return found


def when(at: float | None) -> str:
    """Write a time in this machine's time zone."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def age(at: float | None, now: float | None = None) -> str:
    """Write how long ago something was: 12s, 5m, 3h, 9d."""
    if at is None:
        return ""
    past = max(0.0, (time.time() if now is None else now) - at)
    for limit, unit, size in ((120, "s", 1), (7200, "m", 60), (172800, "h", 3600)):
        if past < limit:
            return f"{past / size:.0f}{unit}"
    return f"{past / 86400:.0f}d"


def size(count: float) -> str:
    """Write a number of bytes: 512 B, 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
