"""A simulated agent over a tunnel in memory: it answers, runs nothing, and refuses the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, save_config
from edge_agent.simulated import likeness
from edge_agent.simulated.agent import SimulatedAgent
from edge_agent.simulated.orders import Tally
from edge_agent.state import StateDir, StateError
from protocol.aio import Channel, ResetCode, StreamReset, Tunnel
from protocol.aio.memory import memory_pair
from protocol.messages import Exec, Pty
from protocol.record_types import Acknowledge, ExecFromHub, ExecFromNode, Exited, Output, Started


@pytest.fixture
def tally() -> Tally:
    return Tally()


@asynccontextmanager
async def hub_end(directory: Path, tally: Tally) -> AsyncIterator[Tunnel]:
    """The hub's end of a tunnel to a simulated agent."""
    state = StateDir(directory / "sim-1")
    state.prepare()
    hubs = ["https://hub.example"]
    save_config(state, AgentConfig(node_id="0" * 36, mesh_id="f" * 32, name="sim-1", hubs=hubs))
    agent = SimulatedAgent(state.root, 10.0, asyncio.Semaphore(1), tally)
    async with memory_pair(agent._answer, dialled_accepts=Exec) as (_, accepted):
        yield accepted


async def test_a_command_succeeds_at_once_and_is_not_run(tmp_path: Path, tally: Tally) -> None:
    never = tmp_path / "never"
    async with hub_end(tmp_path, tally) as hub:
        stream = await hub.open(Exec(run="r" * 32, argv=["touch", str(never)], stdout_offset=6))
        channel: Channel[ExecFromHub, ExecFromNode] = Channel(stream, ExecFromNode)
        started, output, exited = [await channel.receive() for _ in range(3)]
        said = f"touch {never}\n".encode()
        assert isinstance(started, Started)
        assert output == Output(stream=1, offset=6, data=said[6:])
        assert exited == Exited(exit_code=0, stdout_bytes=len(said))
        await channel.send(Acknowledge())
        assert await channel.receive() is None
    assert not never.exists()
    assert tally.commands == 1


async def test_what_is_not_simulated_is_refused(tmp_path: Path, tally: Tally) -> None:
    async with hub_end(tmp_path, tally) as hub:
        stream = await hub.open(Pty(session="s", argv=["sh"]))
        with pytest.raises(StreamReset) as refused:
            await stream.read()
    assert refused.value.code is ResetCode.UNKNOWN_KIND


async def test_a_directory_without_an_identity_is_no_agent(tmp_path: Path, tally: Tally) -> None:
    with pytest.raises(StateError):
        SimulatedAgent(tmp_path / "nobody", 10.0, asyncio.Semaphore(1), tally)


def test_facts_come_from_the_name_alone_and_samples_fit_the_schema() -> None:
    assert likeness.facts_of("sim-1", "1") == likeness.facts_of("sim-1", "1")
    assert likeness.facts_of("sim-1", "1") != likeness.facts_of("sim-2", "1")
    series = likeness.schema().series()
    assert len(series) == len({one.name for one in series}) == 114
    vitals = likeness.Vitals()
    samples = [vitals.sample().values[:] for _ in range(20)]
    assert {len(values) for values in samples} == {114}
    assert all(value is not None and value >= 0 for values in samples for value in values)


def test_tallies_of_several_fleets_add_up() -> None:
    total = Tally()
    for failure in ("no route", ""):
        total.add(Tally(agents=5, connected=3, handshakes=4, failures=1, last_failure=failure))
    assert total == Tally(agents=10, connected=6, handshakes=8, failures=2, last_failure="no route")
