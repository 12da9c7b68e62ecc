from __future__ import annotations

from hub.buckets import Buckets


def test_a_full_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(per_s=0.5, burst=3)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("a", 0.0) == 2.0
    assert buckets.take("a", 1.0) == 1.0
    assert buckets.take("a", 2.0) == 0.0


def test_keys_do_not_share() -> None:
    buckets = Buckets(per_s=1, burst=1)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("b", 0.0) == 0.0


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    buckets = Buckets(per_s=1, burst=1)
    buckets.take("a", 100.0)
    assert buckets.take("a", 0.0) > 0


def test_memory_is_bounded() -> None:
    buckets = Buckets(per_s=1, burst=1, limit=2)
    for key in "abc":
        buckets.take(key, 0.0)
    assert buckets.take("c", 0.0) > 0
    assert buckets.take("a", 0.0) == 0.0


def test_what_is_given_back_may_be_taken_again_and_never_exceeds_the_burst() -> None:
    buckets = Buckets(per_s=1.0, burst=2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    buckets.give_back("a")
    assert [buckets.take("a", 0.0) for _ in range(2)] == [0.0, 1.0]
    for _ in range(5):
        buckets.give_back("a")
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    buckets.give_back("stranger")
    assert buckets.take("stranger", 0.0) == 0.0
