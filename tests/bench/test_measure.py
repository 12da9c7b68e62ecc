"""Medians, ratios and spreads over rounds, also where a contestant has left."""

from __future__ import annotations

import pytest

from tests.bench.measure import Rounds, Spread, latency


def test_a_percentile_is_a_sample_in_milliseconds() -> None:
    found = latency([number / 1000 for number in range(100, 0, -1)])
    assert (found.count, found.p50, found.p99) == (100, 51.0, 100.0)


def test_no_samples_are_no_latency() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        latency([])


def test_a_ratio_is_the_median_of_the_ratios_within_rounds() -> None:
    rounds = Rounds()
    for number in rounds.each(3):
        drift = (1, 10, 100)[number - 1]
        rounds.add("ours", speed=drift * (1, 3, 2)[number - 1])
        rounds.add("theirs", speed=drift)
    assert rounds.ratio("ours", "theirs", "speed") == 2.0
    assert rounds.spread("ours", "speed", "theirs") == Spread(2.0, 1.0, 3.0)


def test_rounds_stay_aligned_when_a_contestant_misses_one() -> None:
    rounds = Rounds()
    for number in rounds.each(3):
        rounds.add("ours", speed=10 * number)
        if number != 2:
            rounds.add("theirs", speed=number)
    assert rounds.values["theirs"]["speed"] == [1, None, 3]
    assert rounds.spread("ours", "speed", "theirs") == Spread(10.0, 10.0, 10.0)
    assert rounds.median("theirs", "speed") == 2


def test_what_was_not_measured_has_no_figure() -> None:
    rounds = Rounds()
    for _ in rounds.each(1):
        rounds.add("ours", speed=1.0)
        rounds.add("idle", speed=0.0)
    assert rounds.median("ours", "delay") is None
    assert rounds.ratio("ours", "nobody", "speed") is None
    assert rounds.ratio("ours", "idle", "speed") is None


def test_the_summary_holds_median_and_spread_of_every_metric() -> None:
    rounds = Rounds()
    for number in rounds.each(3):
        rounds.add("ours", speed=number)
    assert rounds.summary() == {"ours": {"speed": Spread(2.0, 1.0, 3.0)}}
