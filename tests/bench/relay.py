"""The bare relay: the least that a TLS relay in Python can do, as the yardstick of B1.

The same shape as a forward: a client takes plain TCP and speaks TLS to the relay, which speaks TLS
to an agent, which connects to the target. Blocking sockets, one thread a connection, bytes one way
or a question and its answer in turn, no framing, no flow control but TCP's: it is a lower bound on
CPU and delay, not a product.

    python -m tests.bench.relay client|relay|agent turns|to|from CERTIFICATE KEY FROM_PORT:TO_PORT
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

from tests.bench.peers.tunnel import TunnelPeer, Via, straight
from tests.bench.programs import HOST, Program, free_port, tool, wait_port
from tests.bench.targets import Ports

RELAY = "bare relay"
PIECE = 64 * 1024


def serve(role: str, direction: str, certificate: str, key: str, ports: str) -> None:
    """Accept connections on the first port and pump each to the second one, for ever."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(certificate, key)
    dialling = ssl.create_default_context(cafile=certificate)
    dialling.check_hostname = False
    come, go = (int(port) for port in ports.split(":"))

    carriers: dict[str, Callable[[socket.socket, socket.socket], None]] = {
        "turns": take_turns,
        "to": pump,
        "from": lambda near, far: pump(far, near),
    }

    def carry(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near = connection
            if role != "client":
                near = accepting.wrap_socket(connection, server_side=True)
            far = socket.create_connection((HOST, go))
            if role != "agent":
                far = dialling.wrap_socket(far)
            with near, far:
                carriers[direction](near, far)

    with socket.create_server((HOST, come), backlog=256) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=carry, args=(connection,), daemon=True).start()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends."""
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    while count := source.recv_into(buffer):
        sink.sendall(view[:count])


def take_turns(asking: socket.socket, answering: socket.socket) -> None:
    """Carry each question, and as many bytes back, until the asking side ends."""
    while question := asking.recv(PIECE):
        answering.sendall(question)
        left = len(question)
        while left and (answer := answering.recv(left)):
            asking.sendall(answer)
            left -= len(answer)


@contextmanager
def bare_relay(scratch: Path, targets: Ports, via: Via = straight) -> Iterator[TunnelPeer]:
    """Run client, relay and agent for each port; over a link between relay and agent."""
    certificate, key = make_certificate(scratch)
    programs: dict[str, list[Program]] = {"agent": [], "relay": [], "client": []}

    def start(role: str, direction: str, to: int) -> int:
        port = free_port()
        argv = [sys.executable, "-m", "tests.bench.relay", role, direction]
        argv += [str(certificate), str(key), f"{port}:{to}"]
        program = Program(argv, scratch / f"relay-{role}-{direction}.log")
        programs[role].append(program)
        wait_port(port, program)
        return port

    def pids(role: str) -> Callable[[], list[int]]:
        return lambda: [program.pid for program in programs[role]]

    try:
        local = []
        for direction, to in zip(("turns", "to", "from"), targets, strict=True):
            relay = start("relay", direction, via(start("agent", direction, to)))
            local.append(start("client", direction, relay))
        yield TunnelPeer(RELAY, Ports(*local), pids("relay"), pids("agent"), pids("client"))
    finally:
        for program in (*programs["client"], *programs["relay"], *programs["agent"]):
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
