"""`mooring up` as a process: what it says, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mooring.cli.up import read_operator
from mooring.sdk import Client, calls
from tests.mooring.conftest import wait_for_line

UP = [sys.executable, "-m", "mooring.cli.main", "up", "--port", "0", "--state-dir"]


@contextmanager
def running(state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An `up` that is ready; it is killed with what it started if the test did not end it."""
    with (state.parent / "log").open("wb") as log:
        child = subprocess.Popen([*UP, str(state)], stdout=subprocess.PIPE, stderr=log)
    family = [psutil.Process(child.pid)]
    try:
        assert wait_for_line(child, b"ready\n", 60), (state.parent / "log").read_text()
        family += family[0].children(recursive=True)
        yield child
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_it_brings_a_node_online_says_no_twice_and_ends_cleanly(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state) as child:
        with Client(read_operator(state)) as hub:
            assert [node.status for node in hub.each(calls.nodes())] == ["online"]
        again = subprocess.run([*UP, str(state)], capture_output=True, text=True, timeout=30)
        assert again.returncode == 1
        assert f"process {child.pid}" in again.stderr
        assert len(again.stderr.splitlines()) == 2
        children = psutil.Process(child.pid).children(recursive=True)
        assert len(children) == 2
        child.terminate()
        assert child.wait(10) == 0
        assert psutil.wait_procs(children, timeout=5)[1] == []
    with running(state), Client(read_operator(state)) as hub:
        assert hub.count(calls.nodes()) == 1  # the same node again, at another port


def test_a_child_that_dies_ends_the_rest_with_1(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state) as child:
        children = psutil.Process(child.pid).children()
        (agent,) = [process for process in children if "agent" in process.cmdline()]
        agent.send_signal(signal.SIGKILL)
        assert child.wait(10) == 1
        assert psutil.wait_procs(children, timeout=5)[1] == []
    assert "the agent ended by itself (signal 9)" in (tmp_path / "log").read_text()


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with running(tmp_path / "state") as child:
        children = psutil.Process(child.pid).children()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert psutil.wait_procs(children, timeout=10)[1] == []
