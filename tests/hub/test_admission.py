"""Lanes: first come, first served; bounded in flight, in rate, in length and in patience."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from hub import admission
from hub.admission import Lane, TurnedAway
from hub.serve import come_back_s


class Visitor:
    """Takes a turn and holds it until told to go."""

    def __init__(
        self,
        lane: Lane,
        tasks: asyncio.TaskGroup,
        order: list[int],
        number: int,
        address: str = "192.0.2.1",
    ) -> None:
        self.go = asyncio.Event()
        self.in_turn = asyncio.Event()
        self.task = tasks.create_task(self._visit(lane.turn(address), order, number))

    async def _visit(
        self, turn: AbstractAsyncContextManager[None], order: list[int], number: int
    ) -> None:
        async with turn:
            order.append(number)
            self.in_turn.set()
            await self.go.wait()


async def settle() -> None:
    """Give everybody who can go on some turns of the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_first_is_first_and_only_so_many_are_in_flight() -> None:
    lane, order = Lane(in_flight=2), list[int]()
    async with asyncio.TaskGroup() as tasks:
        visitors = [Visitor(lane, tasks, order, number) for number in range(5)]
        await settle()
        assert (order, lane.waiting) == ([0, 1], 3)
        visitors[1].go.set()
        await visitors[2].in_turn.wait()
        assert (order, lane.waiting) == ([0, 1, 2], 2)
        for visitor in visitors:
            visitor.go.set()
    assert order == [0, 1, 2, 3, 4]
    assert (lane.waiting, lane.admitted.value, lane.turned_away.value) == (0, 5, 0)


async def test_a_rate_lets_nobody_begin_before_the_bucket_has_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "PATIENCE_S", 10_000.0)  # a line of ten
    lane, order = Lane(per_s=0.001), list[int]()
    async with asyncio.TaskGroup() as tasks:
        visitors = [Visitor(lane, tasks, order, number) for number in range(3)]
        visitors[0].go.set()
        await settle()
        assert (order, lane.waiting) == ([0], 2)
        for visitor in visitors[1:]:
            visitor.task.cancel()


async def test_a_rate_lets_the_line_go_on_by_itself() -> None:
    lane, order = Lane(per_s=200.0), list[int]()
    async with asyncio.TaskGroup() as tasks:
        for number in range(60):
            Visitor(lane, tasks, order, number).go.set()
        await settle()
        assert 4 <= len(order) < 60  # the burst, and what dripped in meanwhile
    assert order == list(range(60))


async def test_past_the_end_of_the_line_one_is_turned_away_at_once() -> None:
    lane, order = Lane(per_s=0.1), list[int]()  # a line of one
    async with asyncio.TaskGroup() as tasks:
        visitors = [Visitor(lane, tasks, order, number) for number in range(2)]
        await settle()
        with pytest.raises(TurnedAway, match="full"):
            async with lane.turn("192.0.2.1"):
                raise AssertionError
        assert lane.turned_away.value == 1
        visitors[1].task.cancel()
        visitors[0].go.set()


async def test_one_address_may_take_half_of_the_line() -> None:
    lane, order = Lane(per_s=0.4), list[int]()  # a line of six
    async with asyncio.TaskGroup() as tasks:
        visitors = [Visitor(lane, tasks, order, number) for number in range(4)]
        await settle()
        assert (order, lane.waiting) == ([0], 3)
        with pytest.raises(TurnedAway, match="3 connections from"):
            async with lane.turn("192.0.2.1"):
                raise AssertionError
        assert lane.turned_away.value == 1
        visitors += [Visitor(lane, tasks, order, 4, "192.0.2.2")]
        await settle()
        assert lane.waiting == 4
        for visitor in visitors[1:]:
            visitor.task.cancel()
        visitors[0].go.set()


async def test_who_loses_patience_leaves_the_line_and_its_place_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane, order = Lane(in_flight=1), list[int]()
    async with asyncio.TaskGroup() as tasks:
        first = Visitor(lane, tasks, order, 0)
        await settle()
        monkeypatch.setattr(admission, "PATIENCE_S", 0.02)
        with pytest.raises(TurnedAway, match="no turn"):
            async with lane.turn("192.0.2.1"):
                raise AssertionError
        monkeypatch.undo()
        second = Visitor(lane, tasks, order, 1)
        await settle()
        first.go.set()
        await second.in_turn.wait()
        second.go.set()
    assert order == [0, 1]
    assert (lane.waiting, lane.turned_away.value) == (0, 1)


async def test_who_is_cancelled_when_its_turn_comes_does_not_keep_the_place() -> None:
    lane, order = Lane(in_flight=1), list[int]()
    async with asyncio.TaskGroup() as tasks:
        async with lane.turn("192.0.2.1"):
            second = Visitor(lane, tasks, order, 1)
            await settle()
        second.task.cancel()  # its turn has come, it has not run yet
        third = Visitor(lane, tasks, order, 2)
        await third.in_turn.wait()
        third.go.set()
    assert order == [2]


def test_a_planned_stop_spreads_the_return_over_what_admission_takes() -> None:
    assert [come_back_s(agents, 250) for agents in (3, 10_000, 1_000_000)] == [15, 40, 300]
