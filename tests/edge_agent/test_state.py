from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import AgentConfig, NotJoined, load_config, save_config
from edge_agent.state import StateDir, StateError, StateInUse

CONFIG = AgentConfig(
    node_id="01234567-89ab-cdef-0123-456789abcdef",
    mesh_id="f" * 32,
    name="web",
    hubs=["https://hub.example:8443"],
)


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "agent")
    state.prepare()
    return state


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_everything_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        state = StateDir(tmp_path / "a" / "b")
        state.prepare()
        state.write(state.key, b"secret")
    finally:
        os.umask(old)
    assert (mode(state.root), mode(state.key)) == (0o700, 0o600)


def test_an_open_directory_is_made_private_again(state: StateDir) -> None:
    state.root.chmod(0o755)
    state.prepare()
    assert mode(state.root) == 0o700


def test_a_write_replaces_all_or_nothing(state: StateDir) -> None:
    state.write(state.key, b"old")
    state.write(state.key, b"new")
    assert state.key.read_bytes() == b"new"
    assert [path.name for path in state.root.iterdir()] == ["key.pem"]
    (state.root / "runs").mkdir()
    with pytest.raises(StateError, match="can't be written"):
        state.write(state.runs, b"a file over a directory")
    assert sorted(path.name for path in state.root.iterdir()) == ["key.pem", "runs"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "agent").write_text("")
    with pytest.raises(StateError, match="agent can't be used"):
        StateDir(tmp_path / "agent").prepare()


def test_only_one_process_holds_the_directory(state: StateDir) -> None:
    script = (
        "import sys; from pathlib import Path; from edge_agent.state import StateDir\n"
        "with StateDir(Path(sys.argv[1])).lock():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(state.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(StateInUse, match="another mooring agent"), state.lock():
            pass
        other.kill()
    with state.lock():
        pass


def test_the_lock_passes_errors_on(state: StateDir) -> None:
    with pytest.raises(KeyError), state.lock():
        raise KeyError
    with state.lock():
        pass


def test_the_configuration_comes_back(state: StateDir) -> None:
    save_config(state, CONFIG)
    assert load_config(state) == CONFIG
    assert mode(state.config) == 0o600


def test_an_unused_directory_says_how_to_join(state: StateDir) -> None:
    with pytest.raises(NotJoined, match="mooring agent join"):
        load_config(state)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"node_id": 1}', b'{"hubs": ["http://x"]}']
)
def test_a_damaged_configuration_is_named(state: StateDir, content: bytes) -> None:
    state.write(state.config, content)
    with pytest.raises(StateError, match="damaged"):
        load_config(state)
