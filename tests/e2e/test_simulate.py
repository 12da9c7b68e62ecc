"""`mooring simulate` against a real hub that dies: everybody comes back, by the agents' rules."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, Process, wait_for

pytestmark = pytest.mark.e2e
AGENTS = 50


def simulate(mesh: Mesh, state: Path, log: str, *options: str) -> Process:
    command = mesh.command("simulate", "--agents", str(AGENTS), "--state-dir", str(state), "--json")
    return Process([*command, *options], state.with_name(log), mesh.env)


def tally(simulation: Process) -> Any:
    """What it said last; {} before that."""
    lines = [line for line in simulation.text().splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {}


def all_connected(simulation: Process) -> Callable[[], bool]:
    return lambda: tally(simulation).get("connected") == AGENTS


def echo(mesh: Mesh) -> None:
    *_, summary = mesh.ndjson("exec", "sim-*", "--", "echo", "hi")
    assert (summary["ok"], summary["failed"]) == (AGENTS, 0)


def test_simulated_agents_come_back_to_a_hub_that_was_killed(
    fresh_mesh: Callable[..., Mesh], tmp_path: Path
) -> None:
    mesh, state = fresh_mesh(), tmp_path / "simulated"
    simulation = simulate(mesh, state, "first.log", "--processes", "2")
    try:
        wait_for(all_connected(simulation), 60)
        assert tally(simulation)["joined"] == AGENTS
        echo(mesh)
        mesh.hub.kill()
        mesh.start_hub()
        wait_for(lambda: len(mesh.json("nodes", "status==online")) == AGENTS, 60)
        assert simulation.alive
        echo(mesh)
        assert tally(simulation)["joined"] == AGENTS  # and not twice as many
    finally:
        assert simulation.stop(signal.SIGINT) == 0, simulation.text()
    wait_for(lambda: len(mesh.json("nodes", "status==offline")) == AGENTS)

    again = simulate(mesh, state, "second.log")
    try:
        wait_for(all_connected(again), 60)
        assert tally(again)["joined"] == 0
        done = mesh.run("shell", "sim-00001", "--", "true", code=1)
        assert "error:" in done.stderr
    finally:
        again.stop(signal.SIGINT)
    mesh.run("--yes", "simulate", "--clean", "--state-dir", str(state))
    assert mesh.json("nodes") == []
    assert list(state.iterdir()) == []


def test_a_directory_of_another_hub_is_refused_and_left_alone(
    fresh_mesh: Callable[..., Mesh], tmp_path: Path
) -> None:
    mesh, state = fresh_mesh(), tmp_path / "simulated"
    node = state / "sim-00001"
    node.mkdir(parents=True)
    config = {"node_id": "0" * 36, "mesh_id": "f" * 32, "name": "a", "hubs": ["https://h"]}
    (node / "agent.json").write_text(json.dumps(config))
    done = mesh.run("simulate", "--agents", "1", "--state-dir", str(state), code=2)
    assert "belongs to another hub" in done.stderr
    assert [path.name for path in node.iterdir()] == ["agent.json"]
