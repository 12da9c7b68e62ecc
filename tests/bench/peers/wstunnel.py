"""wstunnel from npm: an upper bound rather than a like-for-like peer.

It only forwards (no reverse mode, so no agent that dials out), encrypts nothing and opens one
WebSocket for each connection: one hop where a forward of ours has two, both with TLS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers.npm import install
from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.programs import HOST, Program, free_port, tool, wait_port
from tests.bench.targets import Ports

NAME = "wstunnel, one plain hop"


@contextmanager
def wstunnel(scratch: Path, targets: Ports) -> Iterator[TunnelPeer]:
    """Run its server, and a client for each local port, because one client takes only one.

    Raises:
        Missing: no Node.js, no package, or it does not come up.
    """
    program = [tool("node", "nodejs"), str(install("wstunnel") / "bin" / "wstt.js")]
    local, port = Ports(free_port(), free_port(), free_port()), free_port()
    log = scratch / "wstunnel.log"
    programs = [Program([*program, "-s", f"{HOST}:{port}"], log)]
    try:
        wait_port(port, programs[0])
        for here, there in zip(local, targets, strict=True):
            argv = ["-t", f"{HOST}:{here}:{HOST}:{there}", f"ws://{HOST}:{port}"]
            programs.append(Program([*program, *argv], log))
            wait_port(here, programs[-1])
        server, *clients = (program.pid for program in programs)
        yield TunnelPeer(NAME, local, server=lambda: [server], client=lambda: clients)
    finally:
        for running in programs:
            running.stop()
