from __future__ import annotations

import pytest
import typer

from mooring.cli.metrics import quantity, spark
from mooring.cli.output import clean
from mooring.cli.units import age, pairs, seconds, size


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("7d", 604800),
        ("0.5s", 0.5),
        (60.0, 60),
    ],
)
def test_durations(text: str | float, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "x", "0", "-5s", "5 apples", "inf", "nan", "1e99"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        seconds(text)


def test_pairs_keep_later_equals_signs() -> None:
    assert pairs(["A=b=c", "D="], "label") == {"A": "b=c", "D": ""}
    with pytest.raises(typer.BadParameter):
        pairs(["=x"], "label")


def test_ages_and_sizes_are_short() -> None:
    assert [age(0, now) for now in (5, 300, 9000, 400000)] == ["5s", "5m", "2h", "5d"]
    assert [size(n) for n in (0, 1536, 3 * 1024**3)] == ["0 B", "1.5 KiB", "3.0 GiB"]


def test_a_course_shows_gaps() -> None:
    assert spark([0, None, 7]) == "▁ █"
    assert spark([]) == ""
    assert len(spark([1.0] * 1000)) <= 24
    assert quantity(12.345, "percent") == "12.3 %"


def test_control_characters_never_reach_a_table() -> None:
    assert clean("a\x1b[2Jb\x07\u202ec\r") == "a[2Jbc"
