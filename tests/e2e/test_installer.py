"""The line a person pastes, run for real: curl, pip, the registry, until the node is online.

Under root the line runs as the user nobody, so that nothing outside a temporary home is touched;
otherwise as whoever runs the tests.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh, wait_for

INSTALL_TIMEOUT_S = 300.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHON_IS_ENOUGH = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"


@dataclass(frozen=True)
class Visitor:
    """A plain user with an empty home and nothing of ours on the way to programs."""

    home: Path
    prefix: tuple[str, ...]

    @property
    def env(self) -> dict[str, str]:
        """Only what finds the system's programs, and how this machine's pip reaches a registry."""
        pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return pip | {"PATH": SYSTEM_PATH, "HOME": str(self.home), "LANG": "C.UTF-8"}

    def run(self, *argv: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.prefix, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.env,
            cwd=self.home,
        )


@pytest.fixture
def visitor() -> Iterator[Visitor]:
    prefix: tuple[str, ...] = ()
    home = Path(tempfile.mkdtemp(prefix="mooring-visitor-"))
    try:
        if os.geteuid() == 0:
            if shutil.which("setpriv") is None:
                pytest.skip("there is no setpriv (util-linux) to become a plain user with")
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            prefix = (
                "setpriv",
                f"--reuid={nobody.pw_uid}",
                f"--regid={nobody.pw_gid}",
                "--clear-groups",
            )
        made = Visitor(home, prefix)
        if not distribution("mooring").requires:
            pytest.skip("the hub would serve a wheel without dependencies: pip install -e . first")
        if shutil.which("curl", path=SYSTEM_PATH) is None:
            pytest.skip("there is no curl")
        if made.run("python3", "-c", PYTHON_IS_ENOUGH).returncode != 0:
            pytest.skip("the system's python3 is missing, older than 3.11, or has no venv")
        yield made
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.e2e
def test_the_pasted_line_brings_a_node_online(mesh: Mesh, visitor: Visitor) -> None:
    mesh.run("groups", "create", "pasted")
    token = mesh.json("token", "create", "--group", "pasted")
    installed = visitor.home / ".local/share/mooring"
    pids: list[int] = []
    try:
        done = visitor.run("sh", "-c", token["command"], timeout_s=INSTALL_TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        pids.append(agent_pid(installed))
        assert "done: this machine belongs to" in done.stdout
        assert token["token"] not in done.stdout + done.stderr
        name = only_node(mesh, "group:pasted")
        mesh.wait_status(name, "online")
        ran = mesh.run("exec", name, "--", "id", "-u")
        assert ran.stdout.split()[-1] == str(installed.stat().st_uid)
        assert (installed / "agent/key.pem").stat().st_mode & 0o777 == 0o600

        # Pasted again, the used token and all: it updates, keeps the identity, starts afresh.
        done = visitor.run("sh", "-c", token["command"], timeout_s=INSTALL_TIMEOUT_S)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "keeping the identity" in done.stdout
        pids.append(agent_pid(installed))
        assert pids[0] != pids[1]
        wait_for(lambda: not is_agent(pids[0], installed))
        wait_for(lambda: mesh.run("exec", name, "--", "true", code=None).returncode == 0, 30)
    finally:
        for pid in pids:
            end(pid, installed)
        for row in mesh.json("nodes"):
            if "pasted" in row["groups"]:
                mesh.run("--yes", "nodes", "remove", row["name"])
        mesh.run("--yes", "groups", "delete", "pasted")


def agent_pid(installed: Path) -> int:
    return int((installed / "agent.pid").read_text())


def only_node(mesh: Mesh, target: str) -> str:
    [row] = mesh.json("nodes", target)
    return str(row["name"])


def is_agent(pid: int, installed: Path) -> bool:
    """Tell whether the process is the agent that was installed there, and not its remains."""
    try:
        return str(installed).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def end(pid: int, installed: Path) -> None:
    """End the agent that the script left in the background, if it is still that agent."""
    if is_agent(pid, installed):
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: not is_agent(pid, installed))
