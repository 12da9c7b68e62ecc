"""The order of versions and of anything else that mixes words and numbers.

`version_key(text)` gives a value to compare: numbers compare as numbers, missing ones are zero
(1.0 equals 1.0.0), a pre-release sorts before its release (1.0-rc.1, 1.0rc1, 1.0~beta < 1.0) and
anything else that follows after it (1.0 < 1.0-1 < 1.0+build). It follows semver 2.0 §11 where the
text is a semver, and Debian's epoch and tilde where it is not; every text has a place.
"""

from __future__ import annotations

import re
from functools import lru_cache

VersionKey = tuple[int, tuple[int, ...], int, tuple[tuple[int, int, str], ...]]

_SHAPE = re.compile(r"(?:([0-9]+):)?[vV]?([0-9]+(?:\.[0-9]+)*)?(.*)", re.DOTALL)
_PRE_RELEASE = re.compile(
    r"~|-[A-Za-z]|\.?(?:alpha|beta|preview|pre|rc|dev)|[abc][0-9]", re.IGNORECASE
)
_PARTS = re.compile(r"[0-9]+|[^0-9.~+_-]+")


@lru_cache(maxsize=4096)
def version_key(text: str) -> VersionKey:
    """Return what orders `text` among versions."""
    shape = _SHAPE.match(text)
    assert shape is not None, "every part of the pattern is optional"
    epoch, release, rest = shape.groups()
    numbers = [int(number) for number in release.split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return int(epoch or 0), tuple(numbers), _stage(rest), tuple(map(_part, _PARTS.findall(rest)))


def _stage(rest: str) -> int:
    """Tell a pre-release (-1) from a release (0) and from what comes after it (1)."""
    if not rest:
        return 0
    return -1 if _PRE_RELEASE.match(rest) else 1


def _part(text: str) -> tuple[int, int, str]:
    """Numbers before words, as semver has it."""
    return (0, int(text), "") if text.isascii() and text.isdigit() else (1, 0, text)
