"""The hub's services with the agent's own handlers: real processes, terminals and sockets."""

from __future__ import annotations

import asyncio
import base64
import getpass
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.commands.run import handle_exec
from edge_agent.commands.runs import Runs
from edge_agent.forward import handle_forward
from edge_agent.policy import PolicyFile
from edge_agent.terminal import handle_pty
from hub.shells import Terminal
from hub.store.engine import Store
from hub.tasks import Run, Task, TaskSpec
from protocol.aio import Channel, Handler, Stream
from protocol.messages import ClientForward, ClientShell, Exec, Forward, Open, Pty
from protocol.record_types import Input, PtyFromHub, PtyFromNode, Screen
from tests.hub.test_clients import client
from tests.hub.test_shells import shells_of
from tests.hub.world import OPERATOR, World, finished, make_world


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        yield world


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    async with Runs(tmp_path / "runs") as runs:
        yield runs


@pytest.fixture
def node(tmp_path: Path, runs: Runs) -> Handler:
    """What an agent serves; its policy allows this user, and forwards to itself."""
    path = tmp_path / "policy.json"
    allowed = {
        "verbs": ["exec", "shell", "forward"],
        "users": [getpass.getuser()],
        "forward": ["127.0.0.1:*"],
    }
    path.write_text(json.dumps(allowed))
    path.chmod(0o600)
    policy = PolicyFile(path)

    async def handle(message: Open, stream: Stream) -> None:
        match message:
            case Exec():
                await handle_exec(message, stream, runs, policy)
            case Pty():
                await handle_pty(message, stream, policy)
            case Forward():
                await handle_forward(message, stream, policy)

    return handle


def spec(*argv: str, stdin: bytes | None = None, timeout_s: float = 20.0) -> TaskSpec:
    encoded = None if stdin is None else base64.b64encode(stdin).decode()
    return TaskSpec(target="all", argv=list(argv), stdin_base64=encoded, timeout_s=timeout_s)


def only_run(task: Task) -> Run:
    assert isinstance(task.runs, list)
    (run,) = task.runs
    return run


async def test_commands_run_and_the_node_forgets_them(
    world: World, node: Handler, runs: Runs
) -> None:
    async with world.tasks() as tasks, world.connected("web-1", node):
        shell = await tasks.create(OPERATOR, spec("sh", "-c", "echo out; echo err >&2; exit 4"))
        run = only_run(await finished(tasks, shell))
        assert (run.state, run.exit_code, run.stdout, run.stderr) == (
            "failed",
            4,
            "out\n",
            "err\n",
        )
        cat = await tasks.create(OPERATOR, spec("cat", stdin=b"x" * 300_000))
        run = only_run(await finished(tasks, cat))
        assert (run.state, run.stdout_bytes, run.truncated) == ("succeeded", 300_000, True)
        missing = await tasks.create(OPERATOR, spec("/no/such/program"))
        run = only_run(await finished(tasks, missing))
        assert (run.state, run.exit_code) == ("failed", 127)
        late = await tasks.create(OPERATOR, spec("sleep", "60", timeout_s=0.2))
        assert only_run(await finished(tasks, late)).state == "timed_out"
        async with asyncio.timeout(5):
            for name in runs.unacknowledged():
                held = runs.find(name)
                assert held is not None
                await held.acknowledged.wait()
    assert runs.unacknowledged() == []


async def test_a_cancelled_command_is_ended(world: World, node: Handler) -> None:
    async with world.tasks() as tasks, world.connected("web-1", node):
        task = await tasks.create(OPERATOR, spec("sh", "-c", "echo up; exec sleep 60"))
        async with asyncio.timeout(10):
            async for chunk in await tasks.follow(task.id):
                if b"up" in chunk:
                    await tasks.cancel(OPERATOR, task.id)
        run = only_run(await tasks.get(task.id))
    assert (run.state, run.stdout) == ("cancelled", "up\n")


async def test_a_command_survives_a_cut_and_a_new_hub(
    world: World, node: Handler, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after"
    async with world.tasks() as tasks, world.connected("web-1", node):
        task = await tasks.create(OPERATOR, spec("sh", "-c", script))
        async with asyncio.timeout(10):
            async for chunk in await tasks.follow(task.id):
                if b"before" in chunk:
                    break
    async with world.tasks() as tasks:
        gate.touch()
        async with world.connected("web-1", node) as node_id:
            tasks.node_came_online(node_id)
            run = only_run(await finished(tasks, task))
    assert (run.state, run.stdout) == ("succeeded", "before\nafter\n")


async def test_a_user_the_policy_does_not_allow_is_rejected(world: World, node: Handler) -> None:
    other = "nobody" if getpass.getuser() != "nobody" else "root"
    async with world.tasks() as tasks, world.connected("web-1", node):
        task = await tasks.create(OPERATOR, TaskSpec(target="all", argv=["id"], user=other))
        run = only_run(await finished(tasks, task))
    assert run.state == "rejected"
    assert other in run.reason


async def test_a_terminal_answers_and_ends(world: World, node: Handler) -> None:
    shells = shells_of(world)
    terminal = Terminal(argv=[sys.executable, "-c", "print(input().upper())"])
    async with (
        world.connected("web-1", node),
        asyncio.timeout(10),
        shells.open(OPERATOR, "web-1", terminal, "browser") as shell,
    ):
        await shell.send(Input(data=b"hello\r"))
        seen = b""
        while (screen := await shell.receive()) is not None:
            seen += screen.data
    assert b"HELLO" in seen
    assert shell.exited is not None
    assert shell.exited.exit_code == 0


async def test_a_clients_forward_and_shell_reach_the_node(world: World, node: Handler) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello " + await reader.read())
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, world.connected("web-1", node), client(world) as (tunnel, _, _):
        async with asyncio.timeout(10):
            forward = await tunnel.open(ClientForward(node="web-1", host="127.0.0.1", port=port))
            await forward.write(b"world")
            forward.finish()
            seen = b""
            while data := await forward.read():
                seen += data
            assert seen == b"hello world"
            stream = await tunnel.open(ClientShell(node="web-1", argv=["cat"]))
            channel: Channel[PtyFromHub, PtyFromNode] = Channel(stream, PtyFromNode)
            await channel.send(Input(data=b"typed\r"))
            screen = b""
            while b"typed" not in screen:
                record = await channel.receive()
                assert isinstance(record, Screen)
                screen += record.data
