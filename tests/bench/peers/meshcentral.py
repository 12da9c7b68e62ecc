"""MeshCentral from npm, with its own Linux agent, both on loopback.

The package is installed once into the cache directory, the data directory is made afresh for each
run. Server and agent run in the foreground; the agent's settings come from the server itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tests.bench.peers.meshcentral_api import USER, Account, Control, trusting
from tests.bench.peers.npm import install
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.programs import (
    HOST,
    Missing,
    Program,
    free_port,
    tool,
    wait_port,
)
from tests.bench.targets import Ports

NAME = "MeshCentral"
AGENTS = {"x86_64": "meshagent_x86-64", "aarch64": "meshagent_arm64"}
ROUTER = "tests.bench.peers.meshcentral_router"


class MeshCentral:
    """A running server with one connected agent, whose id is `node`."""

    def __init__(self, scratch: Path) -> None:
        """Install what is missing and start both.

        Raises:
            Missing: no Node.js, no package, or it does not come up.
        """
        self._scratch = scratch / "meshcentral"
        self._node_js = tool("node", "nodejs")
        self._package = install("meshcentral")
        machine = platform.machine()
        if machine not in AGENTS:
            raise Missing(f"MeshCentral ships no agent that the bench knows for {machine}")
        self.account = Account(free_port(), secrets.token_urlsafe(12) + "aA1!")
        self._configure()
        self.server = Program(
            self._command(), self._scratch / "server.log", env=self._env(), cwd=self._place
        )
        self.agent: Program | None = None
        try:
            wait_port(self.account.port, self.server, 120)
            self.node = asyncio.run(self._connect_agent(AGENTS[machine]))
        except BaseException:
            self.stop()
            raise

    def _command(self, *arguments: str) -> list[str]:
        data, files = self._scratch / "data", self._scratch / "files"
        paths = ["--datapath", str(data), "--filespath", str(files)]
        return [self._node_js, "node_modules/meshcentral", *paths, *arguments]

    @property
    def _place(self) -> Path:
        return self._package.parent.parent

    @staticmethod
    def _env() -> dict[str, str]:
        return os.environ | {"NODE_ENV": "production"}

    def _configure(self) -> None:
        for name in ("data", "files", "agent"):
            (self._scratch / name).mkdir(parents=True)
        settings = {
            "cert": HOST,
            "port": self.account.port,
            "portBind": HOST,
            "exactPorts": True,
            "redirPort": 0,
            "mpsPort": 0,
            "WANonly": True,
            "selfUpdate": False,
            "noAgentUpdate": 1,
            "autoBackup": False,
            "plugins": {"enabled": False},
            "webRTC": False,
            "agentTimeStampServer": False,
            "maxInvalidLogin": {"time": 1, "count": 1000},
        }
        document = {"settings": settings, "domains": {"": {"newAccounts": False}}}
        (self._scratch / "data" / "config.json").write_text(json.dumps(document))
        for arguments in (
            ("--createaccount", USER, "--pass", self.account.password),
            ("--adminaccount", USER),
        ):
            subprocess.run(
                self._command(*arguments),
                capture_output=True,
                timeout=120,
                env=self._env(),
                cwd=self._place,
            )

    async def _connect_agent(self, binary: str) -> str:
        control = await Control.open(self.account)
        group = await control.group()
        url = f"https://{HOST}:{self.account.port}/meshsettings?id={quote(group, safe='')}"
        settings = urllib.request.urlopen(url, context=trusting(), timeout=20).read()
        folder = self._scratch / "agent"
        (folder / "meshagent.msh").write_bytes(settings)
        shutil.copy(self._package / "agents" / binary, folder / "meshagent")
        (folder / "meshagent").chmod(0o755)
        await asyncio.sleep(5)  # the server takes a while to sign its agents
        self.agent = Program([str(folder / "meshagent")], self._scratch / "agent.log", cwd=folder)
        for _ in range(100):
            if node := await control.online_node():
                await control.close()
                return node
            await asyncio.sleep(0.5)
        raise Missing("MeshCentral's agent did not connect in 50 s")

    @contextmanager
    def tunnel(self, targets: Ports) -> Iterator[TunnelPeer]:
        """Local ports joined to relay sockets by a small router of ours, a process of its own."""
        local = Ports(free_port(), free_port(), free_port())
        pairs = local.pairs(targets)
        argv = [sys.executable, "-m", ROUTER, str(self.account.port), self.node, *pairs]
        env = os.environ | {"MESHCENTRAL_PASSWORD": self.account.password}
        assert self.agent is not None, "it is connected"
        router = Program(argv, self._scratch / "router.log", env=env)
        try:
            wait_port(local.source, router)
            yield TunnelPeer(
                NAME, local, self.server.pids, self.agent.pids, client=lambda: [router.pid]
            )
        finally:
            router.stop()

    def stop(self) -> None:
        """End agent and server."""
        if self.agent is not None:
            self.agent.stop()
        self.server.stop()
