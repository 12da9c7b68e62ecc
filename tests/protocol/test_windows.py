"""SPEC §5.1, §5.2: credit returns for what was read; windows grow with the path, not the load."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.windows import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    SLACK,
    TUNNEL_BUDGET,
    Budget,
    ReceiveWindow,
    SendWindow,
)


def settle(rate: float, rtt_s: float, budget: int = TUNNEL_BUDGET) -> int:
    """The window of a stream on a path of `rate` bytes/s after ten seconds."""
    window, now = ReceiveWindow(Budget(budget), 0.0), 0.0
    while now < 10.0:
        # One round trip: a window's worth, or what the path carries in that time.
        burst = min(window.size, int(rate * rtt_s) or 1)
        now += max(rtt_s, burst / rate)
        assert window.received(min(burst, window.credit))
        window.consumed(burst, now, rtt_s)
    return window.size


class TestReceive:
    def test_credit_returns_in_halves_of_the_window(self) -> None:
        window = ReceiveWindow(Budget(0), 0.0)
        window.received(INITIAL_WINDOW)
        assert window.consumed(INITIAL_WINDOW // 2 - SLACK - 1, 1.0, 0.1) == 0
        assert window.consumed(1, 1.0, 0.1) == INITIAL_WINDOW // 2 - SLACK

    def test_more_than_the_credit_is_refused_and_not_counted(self) -> None:
        window = ReceiveWindow(Budget(0), 0.0)
        assert not window.received(INITIAL_WINDOW + 1)
        assert window.received(INITIAL_WINDOW)

    @pytest.mark.parametrize("rtt_s", [0.02, 0.1, 0.2])
    def test_a_long_fat_path_gets_at_least_its_bandwidth_delay_product(self, rtt_s: float) -> None:
        rate = 12.5e6  # 100 Mbit/s
        assert rate * rtt_s <= settle(rate, rtt_s) <= 4 * rate * rtt_s + INITIAL_WINDOW

    def test_a_short_path_keeps_small_windows_however_fast_it_is(self) -> None:
        assert settle(500e6, 0.0002) <= 256 * 1024

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
        assert window.grow(INITIAL_WINDOW)
        window.close()
        assert budget.used == 0


def test_credit_beyond_the_range_is_a_violation() -> None:
    window = SendWindow()
    window.add(2**31 - 1 - INITIAL_WINDOW)
    with pytest.raises(RemoteProtocolError):
        window.add(1)
