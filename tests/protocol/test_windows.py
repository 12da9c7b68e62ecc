"""SPEC §5.1, §5.2: credit returns for what was read; windows grow with the path, not the load."""

from __future__ import annotations

from collections import deque

import pytest

from protocol.errors import RemoteProtocolError
from protocol.windows import (
    INITIAL_WINDOW,
    LARGE,
    MAX_WINDOW,
    NEAR_S,
    SLACK,
    TUNNEL_BUDGET,
    Budget,
    ReceiveWindow,
    SendWindow,
)


def settle(rate: float, rtt_s: float, budget: int = TUNNEL_BUDGET, *, alone: bool = False) -> int:
    """The window of a stream on a path of `rate` bytes/s after ten seconds."""
    window, now = ReceiveWindow(Budget(budget), 0.0), 0.0
    while now < 10.0:
        # One round trip: a window's worth, or what the path carries in that time.
        burst = min(window.size, int(rate * rtt_s) or 1)
        now += max(rtt_s, burst / rate)
        assert window.received(min(burst, window.credit))
        window.consumed(burst, now, rtt_s, alone=alone)
    return window.size


def share(rate: float, rtt_s: float) -> float:
    """How much of a path of `rate` bytes/s one stream fills once its window has settled."""
    window, now, size = ReceiveWindow(Budget(TUNNEL_BUDGET), 0.0), 0.0, 64 * 1024 - 16
    credit, returning, under_way = window.credit, deque[tuple[float, int]](), 0
    while now < 12.0:
        while returning and (returning[0][0] <= now or credit < size):
            at, more = returning.popleft()
            now, credit = max(now, at), credit + more
        credit -= size
        now += size / rate
        assert window.received(size)
        if more := window.consumed(size, now + rtt_s / 2, rtt_s):
            returning.append((now + rtt_s, more))
        under_way += size if now > 10.0 else 0
    return under_way / (rate * (now - 10.0))


class TestReceive:
    def test_credit_returns_in_halves_of_the_window(self) -> None:
        window = ReceiveWindow(Budget(0), 0.0)
        window.received(INITIAL_WINDOW)
        assert window.consumed(INITIAL_WINDOW // 2 - SLACK - 1, 1.0, 0.1) == 0
        assert window.consumed(1, 1.0, 0.1) == INITIAL_WINDOW // 2 - SLACK

    def test_credit_of_a_large_window_returns_in_quarters(self) -> None:
        window = ReceiveWindow(Budget(LARGE), 0.0)
        assert window.begin(LARGE) == LARGE - INITIAL_WINDOW
        window.received(LARGE)
        assert window.consumed(LARGE // 4 - SLACK - 1, 1.0, 0.1) == 0
        assert window.consumed(1, 1.0, 0.1) == LARGE // 4 - SLACK

    def test_credit_of_a_near_peer_returns_in_three_quarters(self) -> None:
        window = ReceiveWindow(Budget(0), 0.0)
        window.received(INITIAL_WINDOW)
        piece = 3 * INITIAL_WINDOW // 4 - SLACK
        assert window.consumed(piece - 1, 1.0, NEAR_S / 2) == 0
        assert window.consumed(1, 1.0, NEAR_S / 2) == piece
        assert INITIAL_WINDOW - piece > 16 * 1024, "a sender may wait with less credit"

    def test_more_than_the_credit_is_refused_and_not_counted(self) -> None:
        window = ReceiveWindow(Budget(0), 0.0)
        assert not window.received(INITIAL_WINDOW + 1)
        assert window.received(INITIAL_WINDOW)

    @pytest.mark.parametrize("rtt_s", [0.02, 0.1, 0.2])
    def test_a_long_fat_path_gets_at_least_its_bandwidth_delay_product(self, rtt_s: float) -> None:
        rate = 12.5e6  # 100 Mbit/s
        assert rate * rtt_s <= settle(rate, rtt_s) <= 4 * rate * rtt_s + INITIAL_WINDOW

    @pytest.mark.parametrize(("mib_per_s", "rtt_s"), [(10, 0.1), (50, 0.1), (100, 0.02)])
    def test_one_stream_fills_a_path_within_the_largest_window(
        self, mib_per_s: int, rtt_s: float
    ) -> None:
        assert share(mib_per_s * 2**20, rtt_s) > 0.97

    def test_a_longer_path_is_filled_almost_as_far_as_the_largest_window_goes(self) -> None:
        rate, rtt_s = 100 * 2**20, 0.1
        assert share(rate, rtt_s) > 0.8 * MAX_WINDOW / (rate * rtt_s)

    def test_a_near_peer_keeps_the_first_window_however_fast_it_is(self) -> None:
        assert settle(2e9, 0.9 * NEAR_S) == INITIAL_WINDOW

    def test_the_window_of_a_near_peer_grows_while_it_is_alone(self) -> None:
        assert settle(200e6, NEAR_S / 2, alone=True) == 2 * INITIAL_WINDOW
        assert settle(5e6, NEAR_S / 2, alone=True) == INITIAL_WINDOW

    def test_it_shrinks_when_another_stream_shares_the_tunnel(self) -> None:
        budget = Budget(TUNNEL_BUDGET)
        window, first, now = ReceiveWindow(budget, 0.0), 256 * 1024, 0.0
        window.begin(first)
        while window.size < 2 * first:
            now += 0.001
            window.received(first)
            window.consumed(first, now, NEAR_S / 2, alone=True)
        window.received(window.credit)
        credit, read = 0, 0
        while read < 2 * first:
            credit += window.consumed(64 * 1024, now, NEAR_S / 2)
            read += 64 * 1024
        assert (window.size, budget.used) == (first, first - INITIAL_WINDOW)
        assert credit <= first
        assert window.credit == credit, "what was kept back is never promised"

    def test_no_window_passes_the_maximum(self) -> None:
        assert settle(1e9, 0.2) == MAX_WINDOW

    def test_the_budget_stops_the_growth(self) -> None:
        assert settle(1e9, 0.2, budget=INITIAL_WINDOW) == 2 * INITIAL_WINDOW


class TestBudget:
    def test_a_tunnel_takes_from_the_process_too(self) -> None:
        process = Budget(100)
        first, second = Budget(80, process), Budget(80, process)
        assert first.reserve(80)
        assert not second.reserve(30)
        assert second.used == 0
        first.release(80)
        assert second.reserve(30)
        assert process.used == 30

    def test_a_closed_stream_gives_its_growth_back(self) -> None:
        budget = Budget(INITIAL_WINDOW)
        window = ReceiveWindow(budget, 0.0)
        assert window.begin(2 * INITIAL_WINDOW) == INITIAL_WINDOW
        window.close()
        assert budget.used == 0


def test_credit_beyond_the_range_is_a_violation() -> None:
    window = SendWindow()
    window.add(2**31 - 1 - INITIAL_WINDOW)
    with pytest.raises(RemoteProtocolError):
        window.add(1)
