"""Tasks against scripted nodes over real tunnels."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from hub.errors import BadRequest, Conflict, Forbidden, NotFound, NothingMatches, TooLarge
from hub.store.engine import Store
from hub.tasks import Tasks, TaskSpec, drive
from hub.tasks.output import HEAD_BYTES, TAIL_BYTES
from protocol.aio import ResetCode, Stream
from protocol.messages import Exec, Open
from protocol.record_types import Acknowledge, Cancel, Exited, Output, Started, Stdin
from tests.hub.world import (
    OPERATOR,
    VIEWER,
    NodeChannel,
    Script,
    World,
    agent,
    finished,
    make_world,
    say,
)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


def spec(target: str = "all", *argv: str, **more: Any) -> TaskSpec:
    return TaskSpec(target=target, argv=list(argv) or ["true"], **more)


async def say_nothing(_opened: Exec, _channel: NodeChannel) -> None:
    """A node that ends every stream at once."""


@asynccontextmanager
async def many_nodes(world: World, number: int, script: Script) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for index in range(number):
            await stack.enter_async_context(world.connected(f"n{index}", agent(script)))
        yield


async def lines_of(tasks: Tasks, task_id: str) -> list[dict[str, Any]]:
    async with asyncio.timeout(10):
        whole = b"".join([chunk async for chunk in await tasks.follow(task_id)])
    return [json.loads(line) for line in whole.splitlines()]


async def test_a_command_runs_on_all_nodes_and_its_results_are_stored(world: World) -> None:
    async def script(opened: Exec, channel: NodeChannel) -> None:
        await say(channel, out=b"hello " + opened.subject.encode(), err=b"oops")

    async with (
        world.tasks() as tasks,
        world.connected("web-1", agent(script)),
        world.connected("web-2", agent(script)),
    ):
        task = await tasks.create(OPERATOR, spec("all", "echo", "hello"))
        done = await finished(tasks, task)
    assert done.state == "succeeded"
    assert done.counts == {"succeeded": 2}
    assert isinstance(done.runs, list)
    assert [(run.node, run.state, run.exit_code) for run in done.runs] == [
        ("web-1", "succeeded", 0),
        ("web-2", "succeeded", 0),
    ]
    assert {(run.stdout, run.stderr, run.stdout_bytes) for run in done.runs} == {
        ("hello olga", "oops", 10)
    }


async def test_the_result_is_stored_before_it_is_acknowledged(world: World) -> None:
    stored_state: list[str] = []

    async with world.tasks() as tasks:

        async def script(opened: Exec, channel: NodeChannel) -> None:
            await channel.send(Exited(exit_code=3))
            assert isinstance(await channel.receive(), Acknowledge)
            view = await tasks.get(task.id)
            assert isinstance(view.runs, list)
            stored_state.append(view.runs[0].state)
            acknowledged.set()

        acknowledged = asyncio.Event()
        async with world.connected("web-1", agent(script)):
            task = await tasks.create(OPERATOR, spec())
            async with asyncio.timeout(5):
                await acknowledged.wait()
    assert stored_state == ["failed"]


@pytest.mark.parametrize(
    ("exited", "state"),
    [
        (Exited(exit_code=0), "succeeded"),
        (Exited(exit_code=7), "failed"),
        (Exited(signal=9), "failed"),
        (Exited(signal=15, reason="timeout"), "timed_out"),
        (Exited(signal=15, reason="cancelled"), "cancelled"),
        (Exited(reason="interrupted", detail="the machine went down"), "lost"),
        (Exited(exit_code=127, reason="not_started", detail="no such program"), "failed"),
        (Exited(exit_code=0, reason="output_limit"), "failed"),
    ],
)
async def test_what_the_node_says_becomes_the_state(
    world: World, exited: Exited, state: str
) -> None:
    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(exited)
        await channel.receive()

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        done = await finished(tasks, await tasks.create(OPERATOR, spec()))
    assert isinstance(done.runs, list)
    run = done.runs[0]
    assert (run.state, run.exit_code, run.signal) == (state, exited.exit_code, exited.signal)
    assert run.reason == (exited.detail or exited.reason)


async def test_a_node_that_refuses_is_rejected_with_its_reason(world: World) -> None:
    async def refuse(_message: Open, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "policy: exec is off")

    async with world.tasks() as tasks, world.connected("web-1", refuse):
        lines = await lines_of(tasks, (await tasks.create(OPERATOR, spec())).id)
    assert lines == [
        {
            "type": "result",
            "node": "web-1",
            "state": "rejected",
            "exit_code": None,
            "signal": None,
            "reason": "policy: exec is off",
        },
        {
            "type": "summary",
            "task": lines[1]["task"],
            "ok": 0,
            "failed": 1,
            "state": "failed",
            "counts": {"rejected": 1},
        },
    ]


async def test_an_offline_node_is_skipped(world: World) -> None:
    async with world.connected("web-1", agent(say_nothing)):
        pass
    async with world.tasks() as tasks:
        done = await finished(tasks, await tasks.create(OPERATOR, spec()))
    assert isinstance(done.runs, list)
    assert done.runs[0].state == "skipped"
    assert done.runs[0].reason == "offline since 1970-01-12 13:46:40 UTC"
    assert done.state == "failed"


async def test_long_output_keeps_head_and_tail_with_exact_counts(world: World) -> None:
    data = b"".join(b"%07d\n" % number for number in range(100_000))

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Started(pid=1, started_at=0.0))
        for start in range(0, len(data), 65_536):
            piece = data[start : start + 65_536]
            await channel.send(Output(stream=1, offset=start, data=piece))
        await channel.send(Exited(exit_code=0, stdout_bytes=len(data)))
        await channel.receive()

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        task = await tasks.create(OPERATOR, spec())
        done = await finished(tasks, task)
        lines = await lines_of(tasks, task.id)
    assert isinstance(done.runs, list)
    run = done.runs[0]
    left_out = len(data) - HEAD_BYTES - TAIL_BYTES
    text = data.decode()
    expected = f"{text[:HEAD_BYTES]}\n… {left_out} bytes left out …\n{text[-TAIL_BYTES:]}"
    assert run.stdout == expected
    assert (run.stdout_bytes, run.truncated) == (len(data), True)
    output = [line for line in lines if line["type"] == "output"]
    assert "".join(line["data"] for line in output) == expected
    assert sum(line.get("skipped_bytes", 0) for line in output) == left_out


async def test_the_stream_is_live_and_ends_with_the_summary(world: World) -> None:
    go_on = asyncio.Event()

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Started(pid=1, started_at=0.0))
        await channel.send(Output(stream=1, offset=0, data="ü".encode()[:1]))
        await channel.send(Output(stream=1, offset=1, data="ü".encode()[1:] + b"\n"))
        await go_on.wait()
        await channel.send(Output(stream=2, offset=0, data=b"\xff"))
        await channel.send(Exited(exit_code=1))
        await channel.receive()

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        task = await tasks.create(OPERATOR, spec())
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            async for chunk in await tasks.follow(task.id):
                lines += [json.loads(line) for line in chunk.splitlines()]
                if lines[-1].get("data", "").endswith("\n"):
                    go_on.set()
    kinds = [line["type"] for line in lines]
    assert kinds[-3:] == ["output", "result", "summary"]
    assert "".join(line["data"] for line in lines if line.get("stream") == "stdout") == "ü\n"
    assert lines[-3]["data"] == "\N{REPLACEMENT CHARACTER}"


async def test_stdin_arrives_whole_and_ends(world: World) -> None:
    stdin = bytes(range(256)) * 1000
    got = bytearray()

    async def script(opened: Exec, channel: NodeChannel) -> None:
        assert opened.has_stdin
        while isinstance(record := await channel.receive(), Stdin) and record.data:
            got.extend(record.data)
        await say(channel, out=b"read")

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        task = await tasks.create(OPERATOR, spec(stdin_base64=base64.b64encode(stdin).decode()))
        done = await finished(tasks, task)
    assert bytes(got) == stdin
    assert done.state == "succeeded"


async def test_no_more_than_parallel_runs_are_under_way(world: World) -> None:
    now, most = 0, 0

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await channel.send(Started(pid=1, started_at=0.0))
        await asyncio.sleep(0)
        now -= 1
        await channel.send(Exited(exit_code=0))
        await channel.receive()

    async with world.tasks() as tasks, many_nodes(world, 6, script):
        done = await finished(tasks, await tasks.create(OPERATOR, spec(parallel=2)))
    assert done.counts == {"succeeded": 6}
    assert most == 2


async def test_after_too_many_errors_nothing_more_is_sent(world: World) -> None:
    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await say(channel, code=1)

    async with world.tasks() as tasks, many_nodes(world, 6, script):
        done = await finished(tasks, await tasks.create(OPERATOR, spec(parallel=1, max_errors=1)))
    assert done.counts == {"failed": 2, "skipped": 4}


async def test_cancelling_ends_what_runs_and_what_is_queued(world: World) -> None:
    started = asyncio.Event()

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Started(pid=1, started_at=0.0))
        started.set()
        assert isinstance(await channel.receive(), Cancel)
        await channel.send(Exited(signal=15, reason="cancelled"))
        await channel.receive()

    async with world.tasks() as tasks, many_nodes(world, 3, script):
        task = await tasks.create(OPERATOR, spec(parallel=1))
        async with asyncio.timeout(5):
            await started.wait()
        cancelled = await tasks.cancel(OPERATOR, task.id)
        assert cancelled.state == "cancelled"
        done = await finished(tasks, task)
        with pytest.raises(Conflict):
            await tasks.cancel(OPERATOR, task.id)
    assert done.state == "cancelled"
    assert done.counts == {"cancelled": 3}


async def test_cancelling_does_not_wait_for_a_node_that_reads_nothing(world: World) -> None:
    deaf = asyncio.Event()

    async def says_nothing(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Started(pid=1, started_at=0.0))
        deaf.set()
        await asyncio.get_running_loop().create_future()

    stdin = base64.b64encode(b"x" * 1_000_000).decode()
    async with world.tasks() as tasks, world.connected("deaf", agent(says_nothing)):
        task = await tasks.create(OPERATOR, spec(stdin_base64=stdin))
        async with asyncio.timeout(5):
            await deaf.wait()
            for _ in range(2):
                assert (await tasks.cancel(OPERATOR, task.id)).state == "cancelled"


async def test_a_node_that_reads_nothing_does_not_hold_up_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "ACKNOWLEDGE_SEND_S", 0.05)

    async def deaf(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Exited(exit_code=0))
        await asyncio.get_running_loop().create_future()

    async def well(_opened: Exec, channel: NodeChannel) -> None:
        while await channel.receive() != Stdin(data=b""):
            pass
        await say(channel)

    stdin = base64.b64encode(b"x" * 1_000_000).decode()
    async with (
        world.tasks() as tasks,
        world.connected("a", agent(deaf)),
        world.connected("b", agent(well)),
    ):
        task = await tasks.create(OPERATOR, spec(stdin_base64=stdin, parallel=1))
        assert (await finished(tasks, task)).counts == {"succeeded": 2}


async def test_why_a_run_ended_is_free_of_what_does_not_print(world: World) -> None:
    async def rude(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Exited(exit_code=1, detail="\x1b[2Jno\u202e\r\n" + "A" * 4000))
        await channel.receive()

    async with world.tasks() as tasks, world.connected("web-1", agent(rude)):
        done = await finished(tasks, await tasks.create(OPERATOR, spec()))
    assert isinstance(done.runs, list)
    assert done.runs[0].reason.startswith("[2JnoAAA")
    assert len(done.runs[0].reason) == 256


async def test_a_node_has_one_worker_that_lets_it_forget(world: World) -> None:
    opens = 0

    async def hangs(opened: Exec, channel: NodeChannel) -> None:
        nonlocal opens
        if opened.argv:
            await say(channel)
        else:
            opens += 1
            await channel.receive()

    async with world.tasks() as tasks, world.connected("web-1", agent(hangs)) as node_id:
        task = await finished(tasks, await tasks.create(OPERATOR, spec()))
        assert isinstance(task.runs, list)
        for _ in range(20):
            tasks.node_came_online(node_id, [task.runs[0].id])
        await finished(tasks, await tasks.create(OPERATOR, spec()))
    assert opens <= 1


async def test_a_run_goes_on_after_a_cut_from_the_offsets_the_hub_has(world: World) -> None:
    attached = asyncio.Event()
    opens: list[Exec] = []

    async def first(opened: Exec, channel: NodeChannel) -> None:
        opens.append(opened)
        await channel.send(Started(pid=1, started_at=0.0))
        await channel.send(Output(stream=1, offset=0, data=b"before "))
        attached.set()
        await channel.receive()

    async def second(opened: Exec, channel: NodeChannel) -> None:
        opens.append(opened)
        await channel.send(Started(pid=1, started_at=0.0))
        await channel.send(Output(stream=1, offset=opened.stdout_offset, data=b"after"))
        await channel.send(Exited(exit_code=0, stdout_bytes=12))
        await channel.receive()

    async with world.tasks() as tasks:
        async with world.connected("web-1", agent(first)):
            task = await tasks.create(OPERATOR, spec())
            async with asyncio.timeout(5):
                await attached.wait()
        view = await tasks.get(task.id)
        assert view.counts in ({"running": 1}, {"sent": 1})
        async with world.connected("web-1", agent(second)) as node_id:
            tasks.node_came_online(node_id)
            done = await finished(tasks, task)
    assert isinstance(done.runs, list)
    assert done.runs[0].stdout == "before after"
    assert opens[0].run == opens[1].run
    assert opens[1].stdout_offset == 7
    assert opens[1].argv == [], "a run that was seen running is attached, never started again"


async def test_a_cut_that_costs_the_stream_is_no_fault_of_the_node(world: World) -> None:
    left = 2 * drive.ATTEMPTS

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        nonlocal left
        if left:
            left -= 1
            channel.reset(ResetCode.LOST)
            tasks.node_came_online("id-web-1")
        else:
            await say(channel, out=b"whole")

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        done = await finished(tasks, await tasks.create(OPERATOR, spec()))
    assert isinstance(done.runs, list)
    assert (done.runs[0].state, done.runs[0].stdout) == ("succeeded", "whole")


async def test_a_node_that_does_not_come_back_loses_its_run(world: World) -> None:
    started = asyncio.Event()

    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Started(pid=1, started_at=0.0))
        started.set()
        await channel.receive()

    async with world.tasks(lost_after_s=0.0) as tasks:
        async with world.connected("web-1", agent(script)):
            task = await tasks.create(OPERATOR, spec(timeout_s=0.1))
            async with asyncio.timeout(5):
                await started.wait()
        done = await finished(tasks, task)
    assert isinstance(done.runs, list)
    assert done.runs[0].state == "lost"


async def test_a_hub_that_starts_takes_up_what_the_last_one_sent(world: World) -> None:
    attached = asyncio.Event()

    async def first(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Output(stream=1, offset=0, data=b"seen by the first hub"))
        attached.set()
        await channel.receive()

    async def again(opened: Exec, channel: NodeChannel) -> None:
        assert opened.stdout_offset == 0, "a new hub has nothing yet: the node replays"
        await say(channel, out=b"seen by both")

    async with world.tasks() as tasks, world.connected("web-1", agent(first)):
        task = await tasks.create(OPERATOR, spec())
        async with asyncio.timeout(5):
            await attached.wait()
    async with world.tasks() as tasks:
        assert (await tasks.get(task.id)).state == "running"
        async with world.connected("web-1", agent(again)) as node_id:
            tasks.node_came_online(node_id)
            done = await finished(tasks, task)
    assert isinstance(done.runs, list)
    assert (done.runs[0].state, done.runs[0].stdout) == ("succeeded", "seen by both")


async def test_a_cancelled_task_is_not_started_after_a_restart(world: World) -> None:
    attached = asyncio.Event()

    async def first(_opened: Exec, channel: NodeChannel) -> None:
        attached.set()
        while await channel.receive() is not None:
            pass  # Cancel, which it does not live to obey

    async def again(opened: Exec, channel: NodeChannel) -> None:
        assert opened.argv == []
        channel.reset(ResetCode.NOT_FOUND, "unknown run")

    async with world.tasks() as tasks, world.connected("web-1", agent(first)):
        task = await tasks.create(OPERATOR, spec())
        async with asyncio.timeout(5):
            await attached.wait()
        await tasks.cancel(OPERATOR, task.id)
    async with world.tasks() as tasks, world.connected("web-1", agent(again)) as node_id:
        tasks.node_came_online(node_id)
        done = await finished(tasks, task)
    assert done.counts == {"cancelled": 1}


async def test_a_node_may_forget_what_it_reports_and_the_hub_has_stored(world: World) -> None:
    acknowledged = asyncio.Event()

    async def forgets_nothing(_opened: Exec, channel: NodeChannel) -> None:
        await channel.send(Exited(exit_code=0))

    async def replays(opened: Exec, channel: NodeChannel) -> None:
        assert opened.argv == []
        await channel.send(Exited(exit_code=0))
        assert isinstance(await channel.receive(), Acknowledge)
        acknowledged.set()

    async with world.tasks() as tasks:
        async with world.connected("web-1", agent(forgets_nothing)):
            done = await finished(tasks, await tasks.create(OPERATOR, spec()))
        assert isinstance(done.runs, list)
        async with world.connected("web-1", agent(replays)) as node_id:
            tasks.node_came_online(node_id, [done.runs[0].id, "unknown"])
            async with asyncio.timeout(5):
                await acknowledged.wait()


@pytest.mark.parametrize(
    "bad",
    [
        spec("all", ""),
        spec("all", "a\0b"),
        spec("all", "true", env={"A=B": "1"}),
        spec("all", "true", env={"A": "\ud800"}),
        spec("all", "true", stdin_base64="%%%"),
    ],
)
async def test_a_bad_command_is_refused_and_nothing_is_stored(world: World, bad: TaskSpec) -> None:
    await world.add_node("web-1")
    async with world.tasks() as tasks:
        with pytest.raises(BadRequest):
            await tasks.create(OPERATOR, bad)
        assert await tasks.page(10, None) == ([], None, 0)


async def test_what_is_too_large_is_refused(world: World) -> None:
    await world.add_node("web-1")
    async with world.tasks() as tasks:
        with pytest.raises(TooLarge):
            await tasks.create(OPERATOR, spec("all", "x" * 70_000))
        with pytest.raises(TooLarge):
            stdin = base64.b64encode(bytes(1024 * 1024 + 1)).decode()
            await tasks.create(OPERATOR, spec(stdin_base64=stdin))


async def test_who_may_not_run_commands_is_refused_and_audited(world: World) -> None:
    await world.add_node("web-1")
    async with world.tasks() as tasks:
        with pytest.raises(Forbidden):
            await tasks.create(VIEWER, spec())
        with pytest.raises(NothingMatches):
            await tasks.create(OPERATOR, spec("nobody-*"))
        with pytest.raises(NotFound):
            await tasks.get("nothing")
    entries = (await world.audit.entries(10)).entries
    assert [(entry.act, entry.outcome) for entry in entries] == [("task.create", "denied")]


async def test_tasks_are_listed_newest_first_in_pages(world: World) -> None:
    await world.add_node("web-1")
    async with world.tasks() as tasks:
        made = [await tasks.create(OPERATOR, spec("all", str(number))) for number in range(3)]
        for task in made:
            await finished(tasks, task)
        first, cursor, total = await tasks.page(2, None)
        rest, end, _ = await tasks.page(2, cursor)
    assert sorted(task.id for task in first + rest) == sorted(task.id for task in made)
    assert [task.id for task in first + rest] == sorted((t.id for t in made), reverse=True)
    assert (total, end) == (3, None)
    assert all(task.counts == {"skipped": 1} for task in first)


async def test_events_tell_of_the_task_and_of_each_run(world: World) -> None:
    async def script(_opened: Exec, channel: NodeChannel) -> None:
        await say(channel)

    async with world.tasks() as tasks, world.connected("web-1", agent(script)):
        with world.events.subscribe() as subscription:
            task = await tasks.create(OPERATOR, spec())
            async with asyncio.timeout(5):
                seen = [await anext(subscription) for _ in range(3)]
    assert {event.kind for event in seen} == {"task.created", "run.finished", "task.finished"}
    assert {event.data["task"] for event in seen} == {task.id}
