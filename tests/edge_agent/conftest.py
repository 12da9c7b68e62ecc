"""Fixtures of the agent's tests: a policy, the journal of commands, the hub's end of a tunnel."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from edge_agent.commands.run import handle_exec
from edge_agent.commands.runs import Limits, Runs
from edge_agent.policy import Policy, PolicyFile, default_policy
from protocol.aio import Channel, Stream, Tunnel, memory_pair
from protocol.messages import Exec, Message
from protocol.record_types import ExecFromHub, ExecFromNode, Exited, Output

HubEnd: TypeAlias = Callable[..., AbstractAsyncContextManager[Tunnel]]
ExecChannel: TypeAlias = Channel[ExecFromHub, ExecFromNode]


def write_policy(path: Path, policy: Policy) -> PolicyFile:
    path.write_bytes(msgspec.json.encode(policy))
    path.chmod(0o600)
    return PolicyFile(path)


@pytest.fixture
def policy(tmp_path: Path) -> PolicyFile:
    return write_policy(tmp_path / "policy.json", default_policy())


@asynccontextmanager
async def hub_end(serve: Callable[[Any, Stream], Awaitable[None]]) -> AsyncIterator[Tunnel]:
    """The hub's end of a tunnel whose agent serves every stream with `serve`."""
    async with memory_pair(dialled_handler=serve) as (_, hub):
        yield hub


@pytest.fixture
def exec_hub(tmp_path: Path, policy: PolicyFile) -> HubEnd:
    """The hub's end of a tunnel to an agent that serves `exec`, with a journal in tmp_path/runs."""

    @asynccontextmanager
    async def connect(limits: Limits | None = None) -> AsyncIterator[Tunnel]:
        async with (
            Runs(tmp_path / "runs", limits) as runs,
            hub_end(partial(handle_exec, runs=runs, policy=policy)) as hub,
        ):
            yield hub

    return connect


async def open_exec(hub: Tunnel, opening: Exec) -> ExecChannel:
    return Channel(await hub.open(opening), ExecFromNode)


async def records_until_end(channel: ExecChannel) -> list[Message]:
    """Everything the node says, `Exited` last."""
    records: list[Message] = []
    while (record := await channel.receive()) is not None:
        records.append(record)
        if isinstance(record, Exited):
            break
    return records


def bytes_of(records: list[Message], stream: int) -> bytes:
    """One of the streams put together; fails when an offset doesn't continue."""
    content = b""
    for record in records:
        if isinstance(record, Output) and record.stream == stream:
            assert record.offset == len(content)
            content += record.data
    return content


def exited(records: list[Message]) -> Exited:
    assert isinstance(records[-1], Exited)
    return records[-1]
