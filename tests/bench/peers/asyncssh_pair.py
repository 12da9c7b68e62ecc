"""asyncssh at both ends of a reverse tunnel, on uvloop, with AES-128-GCM, its fastest cipher.

python -m tests.bench.peers.asyncssh_pair server PORT
python -m tests.bench.peers.asyncssh_pair client PORT HERE:THERE...
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import uvloop

from tests.bench.peers.tunnel import TunnelPeer, Via, straight
from tests.bench.programs import HOST, Missing, Program, free_port, wait_port
from tests.bench.targets import Ports

NAME = "asyncssh AES-GCM"
CIPHERS = ["aes128-gcm@openssh.com"]
MODULE = "tests.bench.peers.asyncssh_pair"


@contextmanager
def asyncssh_tunnel(scratch: Path, targets: Ports, via: Via = straight) -> Iterator[TunnelPeer]:
    """Run both ends.

    Raises:
        Missing: asyncssh isn't installed.
    """
    if find_spec("asyncssh") is None:
        raise Missing("asyncssh is not installed (pip install 'mooring[bench]')")
    port, local = free_port(), Ports(free_port(), free_port(), free_port())
    server = Program(
        [sys.executable, "-m", MODULE, "server", str(port)], scratch / "asyncssh-s.log"
    )
    client = None
    try:
        wait_port(port, server)
        argv = [sys.executable, "-m", MODULE, "client", str(via(port)), *local.pairs(targets)]
        client = Program(argv, scratch / "asyncssh-c.log")
        wait_port(local.source, client)
        yield TunnelPeer(NAME, local, server.pids, client.pids)
    finally:
        if client is not None:
            client.stop()
        server.stop()


async def _serve(port: int) -> None:
    import asyncssh

    # Made at run time, because asyncssh may be absent where types are checked.
    methods = {
        "begin_auth": lambda self, username: False,  # loopback, throw-away
        "server_requested": lambda self, listen_host, listen_port: True,
    }
    server = type("Server", (asyncssh.SSHServer,), methods)
    key = asyncssh.generate_private_key("ssh-ed25519")
    await asyncssh.listen(
        HOST, port, server_factory=server, server_host_keys=[key], encryption_algs=CIPHERS
    )
    await asyncio.Event().wait()


async def _dial(port: int, pairs: list[str]) -> None:
    import asyncssh

    connection = await asyncssh.connect(
        HOST,
        port,
        username="bench",
        known_hosts=None,
        client_keys=None,
        config=None,
        encryption_algs=CIPHERS,
    )
    for pair in pairs:
        here, there = pair.split(":")
        await connection.forward_remote_port(HOST, int(here), HOST, int(there))
    await connection.wait_closed()


if __name__ == "__main__":
    role, number, *rest = sys.argv[1:]
    uvloop.run(_serve(int(number)) if role == "server" else _dial(int(number), rest))
