"""The bare relay: the least that a TLS relay in Python can do, as the yardstick of B1.

The same shape as a forward: a client takes plain TCP and speaks TLS to the relay, which speaks TLS
to an agent, which connects to the target. Blocking sockets, one thread a connection, one direction,
no framing, no flow control but TCP's: it is a lower bound on CPU, not a product.

    python -m tests.bench.relay client|relay|agent to|from CERTIFICATE KEY FROM_PORT:TO_PORT
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers.tunnel import TunnelPeer
from tests.bench.programs import HOST, Program, free_port, tool, wait_port
from tests.bench.targets import Ports

PIECE = 64 * 1024


def serve(role: str, direction: str, certificate: str, key: str, ports: str) -> None:
    """Accept connections on the first port and pump each to the second one, for ever."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(certificate, key)
    dialling = ssl.create_default_context(cafile=certificate)
    dialling.check_hostname = False
    come, go = (int(port) for port in ports.split(":"))

    def carry(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near = connection
            if role != "client":
                near = accepting.wrap_socket(connection, server_side=True)
            far = socket.create_connection((HOST, go))
            if role != "agent":
                far = dialling.wrap_socket(far)
            with near, far:
                pump(near, far) if direction == "to" else pump(far, near)

    with socket.create_server((HOST, come), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=carry, args=(connection,), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    while count := source.recv_into(buffer):
        sink.sendall(view[:count])


@contextmanager
def bare_relay(scratch: Path, targets: Ports) -> Iterator[TunnelPeer]:
    """Run the three programs for each of the sink and the source; there is no echo."""
    certificate, key = make_certificate(scratch)
    programs: list[Program] = []

    def start(role: str, direction: str, to: int) -> int:
        port = free_port()
        argv = [sys.executable, "-m", "tests.bench.relay", role, direction]
        argv += [str(certificate), str(key), f"{port}:{to}"]
        programs.append(Program(argv, scratch / f"relay-{role}-{direction}.log"))
        wait_port(port, programs[-1])
        return port

    try:
        local = [
            start("client", direction, start("relay", direction, start("agent", direction, to)))
            for direction, to in (("to", targets.sink), ("from", targets.source))
        ]
        servers: Callable[[], list[int]] = lambda: [programs[1].pid, programs[4].pid]  # noqa: E731
        yield TunnelPeer(
            "bare relay",
            Ports(0, *local),
            servers,
            lambda: [program.pid for program in programs],
        )
    finally:
        for program in programs:
            program.stop()


def make_certificate(scratch: Path) -> tuple[Path, Path]:
    """A throw-away self-signed P-256 certificate for 127.0.0.1, and its key."""
    certificate, key = scratch / "relay.pem", scratch / "relay.key"
    argv = [tool("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-nodes"]
    argv += ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", f"/CN={HOST}", "-days", "2"]
    subprocess.run(
        [*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return certificate, key


if __name__ == "__main__":
    serve(*sys.argv[1:6])
