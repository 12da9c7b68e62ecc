"""Links that fail in every way a link can: what was open goes on, and nobody restarts anything."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.peers.openssh import OpenSSH
from tests.bench.programs import Missing
from tests.e2e.mesh import MOORING, Mesh, Process, wait_for
from tests.e2e.nat import Nat, why_not
from tests.e2e.terminal import Counting

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

NODES = ("down", "silent", "moved", "unmapped", "slow")
OPERATOR = "operator"
PORT = 8200
ECHO = f"""
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
socketserver.ThreadingTCPServer.daemon_threads = True
server = socketserver.ThreadingTCPServer(("127.0.0.1", {PORT}), Echo)
print("listening", flush=True)
server.serve_forever()
"""
CLIENT = """
import os, socket, sys, threading
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def show():
    while data := connection.recv(65536):
        os.write(1, data)
    os._exit(1)
threading.Thread(target=show).start()
while data := os.read(0, 65536):
    connection.sendall(data)
"""


class Connection:
    """A connection through a forward, held by a process in the hub's network."""

    def __init__(self, prefix: list[str], port: int) -> None:
        self._child = subprocess.Popen(
            [*prefix, "python3", "-c", CLIENT, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def send(self, data: bytes) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(data)

    def receive(self, size: int, timeout_s: float) -> bytes:
        """What comes back, `size` bytes of it; less when the connection ended or time is up."""
        assert self._child.stdout is not None
        received, deadline = b"", time.monotonic() + timeout_s
        while len(received) < size and (left := deadline - time.monotonic()) > 0:
            if select.select([self._child.stdout], [], [], left)[0]:
                data = self._child.stdout.read(size - len(received))
                if not data:
                    break
                received += data
        return received

    def close(self) -> None:
        self._child.kill()
        self._child.wait()
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close(), self._child.stdout.close()


@pytest.fixture(scope="module")
def nat() -> Iterator[Nat]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = Nat((*NODES, OPERATOR))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def cut_mesh(nat: Nat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("cuts"), hub_prefix=nat.prefix("hub"), bind=Nat.HUB_ADDRESS)
    services = []
    try:
        for node in NODES:
            mesh.join(node, prefix=nat.prefix(node), url=f"https://{Nat.HUB_ADDRESS}:{mesh.port}")
            mesh.start_agent(node, prefix=nat.prefix(node))
            services.append(
                Process(
                    [*nat.prefix(node), "python3", "-c", ECHO],
                    mesh.directory / f"echo-{node}.log",
                    mesh.base_env,
                )
            )
        wait_for(lambda: all("listening" in service.text() for service in services))
        for node in NODES:
            mesh.wait_status(node, "online")
        yield mesh
    finally:
        for service in services:
            service.kill()
        mesh.close()


@pytest.fixture
def connections(nat: Nat, cut_mesh: Mesh, tmp_path: Path) -> Iterator[dict[str, Connection]]:
    """An open connection to each node, which has carried something already."""
    forwards, made = [], {}
    try:
        for number, node in enumerate(NODES):
            command = cut_mesh.command("forward", node, f"{PORT + 1 + number}:127.0.0.1:{PORT}")
            forwards.append(Process(command, tmp_path / f"forward-{node}.log", cut_mesh.env))
        wait_for(lambda: all("forwarding" in forward.text() for forward in forwards))
        for number, node in enumerate(NODES):
            made[node] = Connection(nat.prefix("hub"), PORT + 1 + number)
            made[node].send(b"before ")
            assert made[node].receive(7, 20) == b"before "
        yield made
    finally:
        for connection in made.values():
            connection.close()
        for forward in forwards:
            forward.stop()


def pids(mesh: Mesh) -> dict[str, int]:
    return {node: agent.child.pid for node, agent in mesh.agents.items() if agent.alive}


def test_open_connections_survive_every_kind_of_cut(
    nat: Nat, cut_mesh: Mesh, connections: dict[str, Connection]
) -> None:
    before = pids(cut_mesh)
    nat.forget()
    nat.cut("down")
    nat.silence("silent")
    nat.readdress("moved")
    cut_at = time.monotonic()
    for connection in connections.values():
        connection.send(b"during ")
    # Nobody was told: the hub finds out by silence, 35 s after the last byte (45 s at worst). The
    # nodes that have a way out come back by themselves, those that have none stay away.
    for node in ("down", "silent"):
        cut_mesh.wait_status(node, "offline", 60)
    assert time.monotonic() - cut_at > 20, "it was noticed by other means than silence"
    nat.mend("down")
    nat.unsilence("silent")
    for node, connection in connections.items():
        assert connection.receive(7, 90) == b"during ", node
        connection.send(b"after ")
        assert connection.receive(6, 20) == b"after ", node
    assert pids(cut_mesh) == before, "an agent was restarted"


def test_ssh_of_an_operator_who_was_silent_for_ten_seconds_goes_on(
    nat: Nat, cut_mesh: Mesh, tmp_path: Path
) -> None:
    node = "unmapped"
    counting = Counting(tmp_path)
    try:
        server = OpenSSH(tmp_path, nat.prefix(node))
    except Missing as reason:
        pytest.skip(str(reason))
    proxy = f"ProxyCommand={MOORING} ssh-proxy {node} %p"
    argv = [*nat.prefix(OPERATOR), *server.command("-o", proxy, "node", counting.script)]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=cut_mesh.env, text=True, bufsize=1
    ) as ssh:
        assert ssh.stdin and ssh.stdout
        try:
            shown = ssh.stdout.readline()
            nat.silence(OPERATOR)
            ssh.stdin.write("meanwhile\n")
            unheard = counting.count + 10 / Counting.TICK_S
            wait_for(lambda: counting.count > unheard, 60)
            nat.unsilence(OPERATOR)
            ssh.stdin.write("over\n")
            shown += ssh.stdout.read()
            assert ssh.wait(30) == 3
        finally:
            ssh.kill()
            server.stop()
    counting.check(shown, ["meanwhile"])


def test_a_killed_hub_is_found_again_by_every_agent(nat: Nat, cut_mesh: Mesh) -> None:
    before = pids(cut_mesh)
    cut_mesh.hub.kill()
    cut_mesh.start_hub()
    for node in NODES:
        cut_mesh.wait_status(node, "online", 60)
    assert pids(cut_mesh) == before
    done = cut_mesh.run("--yes", "exec", "all", "--", "true")
    assert done.returncode == 0


def test_a_saturated_slow_link_stays_up_and_commands_get_through(
    nat: Nat, cut_mesh: Mesh, connections: dict[str, Connection]
) -> None:
    nat.throttle("slow", "1mbit")
    seen = cut_mesh.json("nodes", "show", "slow")["status_since"]
    data = bytes(range(256)) * 4096  # 1 MiB each way: about ten seconds
    connections["slow"].send(data)
    task = cut_mesh.json("exec", "slow", "--timeout", "30s", "--detach", "--", "echo", "through")
    (run,) = cut_mesh.wait_task(task["task"], 30)["runs"]
    assert (run["state"], run["stdout"]) == ("succeeded", "through\n")
    assert connections["slow"].receive(len(data), 90) == data
    assert cut_mesh.json("nodes", "show", "slow")["status_since"] == seen, "the link was given up"
