"""Ourselves: a hub and agents as processes, and one `mooring forward` with three ports."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mooring.sdk import identity
from mooring.sdk.identity import Identity
from tests.bench.measure import cpu_s
from tests.bench.peers.tunnel import TunnelPeer, Via, straight
from tests.bench.programs import HOST, Program, free_port, wait_port
from tests.bench.targets import Ports
from tests.e2e.mesh import Mesh

NODE = "node-1"
NAME = "mooring"
JOINS_AT_ONCE = 4
ONLINE_TIMEOUT_S = 180.0


class Mooring:
    """A mesh on loopback; `NODE` is its first node."""

    def __init__(self, scratch: Path) -> None:
        self.mesh = Mesh(scratch / "mesh")
        self._scratch = scratch
        self.mesh.add(NODE)

    @property
    def hub(self) -> int:
        """The hub's process id."""
        return self.mesh.hub.child.pid

    def identity(self) -> Identity:
        """The local administrator."""
        return identity.load(self.mesh.env)

    def password(self) -> str:
        """The administrator's, for the browser's door."""
        return (self.mesh.state / "admin-password").read_text().strip()

    @contextmanager
    def tunnel(self, targets: Ports, via: Via = straight) -> Iterator[TunnelPeer]:
        """One `mooring forward` that carries all three ports; over a link to a node of its own."""
        local = Ports(free_port(), free_port(), free_port())
        forwards = [f"{here}:{HOST}:{there}" for here, there in zip(local, targets, strict=True)]
        with self._behind(via) as node:
            command = self.mesh.command("forward", node, *forwards)
            client = Program(command, self._scratch / "forward.log", env=self.mesh.env)
            try:
                wait_port(local.source, client)
                agent = self.mesh.agents[node].child.pid
                yield TunnelPeer(NAME, local, lambda: [self.hub], lambda: [agent], client.pids)
            finally:
                client.stop()

    @contextmanager
    def _behind(self, via: Via) -> Iterator[str]:
        """The name of a node that reaches the hub that way."""
        port = via(self.mesh.port)
        if port == self.mesh.port:
            yield NODE
            return
        name = f"far-{port}"
        try:
            self.mesh.add(name, url=f"https://{HOST}:{port}")
            yield name
        finally:
            if (agent := self.mesh.agents.pop(name, None)) is not None:
                agent.stop()

    def grow(self, count: int) -> float:
        """Have `count` agents online; returns the seconds until the last one was."""
        names = [f"node-{number}" for number in range(1, count + 1)]
        new = [name for name in names if name not in self.mesh.agents]
        if not new:
            return 0.0
        token = self.mesh.run("token", "create", "--uses", str(len(new))).stdout.strip()
        with ThreadPoolExecutor(JOINS_AT_ONCE) as pool:
            list(pool.map(lambda name: self.mesh.join(name, token=token), new))
        started = time.monotonic()
        for name in new:
            self.mesh.start_agent(name)
        while self._online() < count:
            if time.monotonic() - started > ONLINE_TIMEOUT_S:
                raise TimeoutError(f"not all of {count} agents came online")
            time.sleep(1.0)
        return time.monotonic() - started

    def _online(self) -> int:
        return len(self.mesh.json("nodes", "status==online"))

    def pids(self) -> Sequence[int]:
        """Of the hub and all agents."""
        return [self.hub, *(agent.child.pid for agent in self.mesh.agents.values())]

    def cpu_s(self) -> float:
        """CPU seconds that hub and agents have used."""
        return cpu_s(self.pids())

    def stop(self) -> None:
        """End everything and delete its state."""
        self.mesh.close()
