"""A long link's lane: when bytes arrive, and how many it holds."""

from __future__ import annotations

import pytest

from tests.bench.link import QUEUE_S, Lane

DELAY_S = 0.05
RATE = 1_000_000.0


@pytest.fixture
def lane() -> Lane:
    return Lane(DELAY_S, RATE)


def test_a_piece_arrives_after_it_has_left_and_the_delay(lane: Lane) -> None:
    lane.send(b"x" * 1000, now=1.0)
    assert lane.next_s == pytest.approx(1.0 + 0.001 + DELAY_S)
    assert lane.arrived(1.0 + DELAY_S) == b""
    assert lane.arrived(1.0 + 0.002 + DELAY_S) == b"x" * 1000


def test_pieces_leave_one_after_the_other_at_the_rate(lane: Lane) -> None:
    for letter in b"abc":
        lane.send(bytes([letter]) * 10_000, now=1.0)
    assert lane.arrived(1.0 + 0.0201 + DELAY_S) == b"a" * 10_000 + b"b" * 10_000
    assert lane.next_s == pytest.approx(1.0 + 0.03 + DELAY_S)


def test_time_in_which_nothing_was_sent_is_not_caught_up(lane: Lane) -> None:
    lane.send(b"a", now=1.0)
    lane.send(b"b" * 10_000, now=9.0)
    lane.arrived(9.0)
    assert lane.next_s == pytest.approx(9.0 + 0.01 + DELAY_S)


def test_it_holds_what_is_under_way_and_a_queue(lane: Lane) -> None:
    limit = int((DELAY_S + QUEUE_S) * RATE)
    fullness = []
    for size in (limit - 1, 1):
        lane.send(b"x" * size, now=1.0)
        fullness.append(lane.full)
    lane.arrived(2.0)
    assert [*fullness, lane.full] == [False, True, False]
    assert lane.held_bytes == 0


def test_the_end_arrives_behind_the_last_byte(lane: Lane) -> None:
    lane.send(b"last", now=1.0)
    lane.send(b"", now=1.0)
    seen = [(lane.arrived(now), lane.ended) for now in (1.0, 2.0)]
    assert seen == [(b"", False), (b"last", True)]
