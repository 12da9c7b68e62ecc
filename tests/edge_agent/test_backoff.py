from __future__ import annotations

from edge_agent.backoff import (
    CAP_S,
    REFUSED_S,
    REPLACED_S,
    RESTART_ATTEMPTS,
    SOON_CAP_S,
    STABLE_S,
    Backoff,
)
from protocol.errors import GoAwayCode
from protocol.events import PeerGoesAway


def highest() -> float:
    return 1.0


def test_the_ceiling_doubles_up_to_a_minute() -> None:
    backoff = Backoff(highest)
    assert [backoff.lost(0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, CAP_S, CAP_S]


def test_the_whole_range_is_used() -> None:
    assert Backoff(lambda: 0.0).lost(0) == 0


def test_a_short_life_does_not_reset_it() -> None:
    backoff = Backoff(highest)
    for _ in range(4):
        backoff.lost(STABLE_S - 1)
    assert backoff.lost(STABLE_S - 1) == 16


def test_a_stable_tunnel_resets_it() -> None:
    backoff = Backoff(highest)
    for _ in range(6):
        backoff.lost(0)
    assert backoff.lost(STABLE_S) == 1


def test_the_hub_may_ask_for_more_patience() -> None:
    assert Backoff(highest).lost(120, retry_after_s=30) == 30


def test_a_refusal_waits_five_to_fifteen_minutes() -> None:
    assert Backoff(lambda: 0.0).refused() == REFUSED_S
    assert Backoff(highest).refused() == 3 * REFUSED_S


def test_what_the_hub_said_at_the_end_decides() -> None:
    def after(code: GoAwayCode, retry_after_s: float = 0.0) -> float:
        return Backoff(highest).ended(1.0, PeerGoesAway(code, "", retry_after_s))

    assert Backoff(highest).ended(1.0, None) == Backoff(highest).lost(1.0)
    assert after(GoAwayCode.SHUTDOWN, 40.0) == Backoff(highest).lost(1.0, 40.0) > 30
    assert after(GoAwayCode.REVOKED) >= REFUSED_S
    assert after(GoAwayCode.REPLACED) == REPLACED_S


def test_while_streams_wait_several_attempts_fit_their_minute() -> None:
    backoff = Backoff(highest)
    assert [backoff.lost(0, resuming=True) for _ in range(6)] == [1, 2, 4, 8, *[SOON_CAP_S] * 2]


def test_a_hub_that_said_it_stops_is_tried_again_soon_for_a_while() -> None:
    backoff = Backoff(highest)
    backoff.ended(STABLE_S, PeerGoesAway(GoAwayCode.SHUTDOWN, "", 40.0))
    waits = [backoff.lost(0) for _ in range(RESTART_ATTEMPTS)]
    assert max(waits[:-1]) == SOON_CAP_S
    assert waits[-1] == CAP_S
