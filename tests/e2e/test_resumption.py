"""Connections cut by a relay at random moments: what was open goes on, to the last byte.

Agent and client dial the hub through a relay each; a cut resets the TCP connection both ways.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hub.artifacts import CHUNK_BYTES
from hub.deployments.carry import WINDOW
from tests.bench.peers.openssh import OpenSSH
from tests.bench.programs import Missing
from tests.e2e.mesh import MOORING, Mesh, Process, wait_for
from tests.e2e.terminal import Counting, Terminal
from tests.e2e.test_forwarding import address_of
from tests.e2e.test_operator import echo_server, make_package
from tests.relay import Relay

pytestmark = pytest.mark.e2e
NODE = "one"


class Cuttable:
    """A mesh of one node whose agent and whose client dial through relays."""

    def __init__(self, directory: Path) -> None:
        self.mesh = Mesh(directory)
        self.agent_relay = Relay(self.mesh.port)
        self.client_relay = Relay(self.mesh.port)
        self.mesh.join(NODE)
        self.direct(NODE, f"https://127.0.0.1:{self.agent_relay.port}")
        self.start_agent()

    def direct(self, agent: str, hub: str) -> None:
        """Give an agent that does not run yet another address to dial."""
        config = self.mesh.agent_dir(agent) / "agent.json"
        whole = json.loads(config.read_text())
        config.write_text(json.dumps(whole | {"hubs": [hub]}))

    def start_agent(self) -> Process:
        agent = self.mesh.start_agent(NODE)
        self.mesh.wait_status(NODE, "online")
        return agent

    def restart_agent(self) -> Process:
        """One that has not lost a connection yet: the next ones are dialled soon."""
        self.mesh.agents[NODE].stop()
        return self.start_agent()

    @property
    def env(self) -> dict[str, str]:
        """Of an operator whose way to the hub is the client's relay."""
        url = f"https://127.0.0.1:{self.client_relay.port}"
        return self.mesh.env | {"MOORING_URL": url}

    @contextmanager
    def forward(self, log: Path, *words: str) -> Iterator[tuple[str, int]]:
        """`mooring forward` through the client's relay: where it listens."""
        argv = [MOORING, "--json", "forward", NODE, *words]
        process = Process(argv, log, self.env)
        try:
            wait_for(lambda: '"forwarding"' in process.text() or not process.alive)
            event = next(line for line in process.text().splitlines() if line[:1] == "{")
            side = "local" if "-R" not in words else "remote"
            yield address_of(json.loads(event)[side])
        finally:
            assert process.stop() == 0, process.text()
            assert "Traceback" not in process.text(), process.text()

    def close(self) -> None:
        self.mesh.close()
        self.agent_relay.close()
        self.client_relay.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cuttable]:
    made = Cuttable(tmp_path_factory.mktemp("resumption"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("MOORING_SEED", random.SystemRandom().randrange(10**9)))
    print(f"MOORING_SEED={seed}")
    return random.Random(seed)


def cut_at_random(chance: random.Random, *relays: Relay, times: int) -> None:
    """Cut each relay's connections so many times, each a random moment after it is back."""
    for _ in range(times):
        for relay in relays:
            select.select([], [], [], chance.uniform(0.05, 0.5))
            wait_for(relay.cut, 30)


class Echoed:
    """Bulk through an echo, both ways at once, compared by its hash."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._is_over = threading.Event()
        self.sent, self.received = hashlib.sha256(), hashlib.sha256()
        self.size = 0
        self._sender = threading.Thread(target=self._send)
        self._receiver = threading.Thread(target=self._receive)

    def __enter__(self) -> Echoed:
        self._sender.start()
        self._receiver.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._sender.join(60)
        self._receiver.join(60)

    def _send(self) -> None:
        block = os.urandom(1 << 20)
        while not self._is_over.is_set():
            self._connection.sendall(block)
            self.sent.update(block)
            self.size += len(block)
        self._connection.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while data := self._connection.recv(1 << 16):
            self.received.update(data)


class TestForwards:
    @pytest.mark.parametrize("side", ["agent", "client"])
    def test_bulk_both_ways_arrives_whole_however_often_one_side_is_cut(
        self, place: Cuttable, chance: random.Random, tmp_path: Path, side: str
    ) -> None:
        relay = place.agent_relay if side == "agent" else place.client_relay
        with echo_server() as target:
            with place.forward(tmp_path / "log", f"0:127.0.0.1:{target}") as here:
                with socket.create_connection(here, 60) as connection:
                    connection.settimeout(90)
                    with Echoed(connection) as bulk:
                        cut_at_random(chance, relay, times=3)
                    assert bulk.size
                    assert bulk.received.digest() == bulk.sent.digest()

    def test_a_reverse_forward_keeps_its_port_and_its_connections(
        self, place: Cuttable, chance: random.Random, tmp_path: Path
    ) -> None:
        with echo_server() as target:
            with place.forward(tmp_path / "log", "-R", f"0:127.0.0.1:{target}") as there:
                with socket.create_connection(there, 60) as connection:
                    for relay in (place.agent_relay, place.client_relay):
                        wait_for(relay.cut, 30)
                        connection.sendall(b"during")
                        assert connection.recv(6, socket.MSG_WAITALL) == b"during"
                with socket.create_connection(there, 60) as connection:
                    connection.sendall(b"after")
                    assert connection.recv(5, socket.MSG_WAITALL) == b"after"


class TestSsh:
    def test_a_session_goes_on_when_either_side_was_cut(
        self, place: Cuttable, tmp_path: Path
    ) -> None:
        try:
            server = OpenSSH(tmp_path / "sshd")
        except Missing as reason:
            pytest.skip(str(reason))
        place.restart_agent()
        argv = server.command("-o", f"ProxyCommand={MOORING} ssh-proxy {NODE} %p", "node", "cat")
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.env, bufsize=0
        ) as ssh:
            assert ssh.stdin is not None
            assert ssh.stdout is not None
            try:
                for number, relay in enumerate(
                    (place.agent_relay, place.client_relay, place.client_relay, place.agent_relay)
                ):
                    line = f"line {number}\n".encode()
                    ssh.stdin.write(line)
                    assert ssh.stdout.read(len(line)) == line
                    wait_for(relay.cut, 30)
                ssh.stdin.write(b"end\n")
                ssh.stdin.close()
                assert ssh.stdout.read() == b"end\n"
                assert ssh.wait(60) == 0
            finally:
                ssh.kill()
                server.stop()


class TestShells:
    @pytest.mark.parametrize("side", ["agent", "client"])
    def test_what_is_typed_and_what_is_printed_arrive_once_and_in_order(
        self, place: Cuttable, tmp_path: Path, side: str
    ) -> None:
        relay = place.agent_relay if side == "agent" else place.client_relay
        place.restart_agent()
        counting, typed = Counting(tmp_path), []
        with Terminal(place.env, NODE, counting.script) as terminal:
            terminal.read_until("count 1\r\n")
            for number in range(3):
                typed += [f"before {number}", f"after {number}"]
                terminal.type(typed[-2])
                wait_for(relay.cut, 30)
                terminal.type(typed[-1])
                terminal.read_until(f"typed {typed[-1]}\r\n")
            terminal.type("over")
            assert terminal.exit_code() == 3
        counting.check(terminal.shown, typed)


class TestDeployments:
    def test_a_transfer_whose_connection_is_cut_goes_on_where_it_was(
        self, place: Cuttable, tmp_path: Path
    ) -> None:
        agent, relay, mesh = place.restart_agent(), place.agent_relay, place.mesh
        size, cuts = 24 << 20, 3
        package = make_package(tmp_path / "big.tgz", "big", "1.0", size)
        mesh.run("packages", "push", str(package))
        said, carried = len(agent.text()), relay.carried
        relay.cut_each(size // (cuts + 1), cuts)
        mesh.run("--yes", "deploy", "big", NODE, timeout_s=120)
        assert relay.cuts_left == 0
        assert agent.text()[said:].count("the streams wait for another") == cuts
        assert "the tunnel ended" not in agent.text()[said:]
        assert relay.carried - carried < size + (cuts * WINDOW + 1) * CHUNK_BYTES, "sent again"
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        (kept,) = (mesh.agent_dir(NODE) / "artifacts").iterdir()
        assert kept.name == digest == hashlib.sha256(kept.read_bytes()).hexdigest()
        (shown,) = mesh.json("nodes", "show", NODE)["packages"]
        assert (shown["name"], shown["version"]) == ("big", "1.0")


class TestCommands:
    def test_output_is_neither_lost_nor_doubled(
        self, place: Cuttable, chance: random.Random, tmp_path: Path
    ) -> None:
        script = "for i in $(seq 1 3000); do echo line $i; done; read x < " + str(tmp_path / "go")
        os.mkfifo(tmp_path / "go")
        argv = ("exec", NODE, "--detach", "--", "sh", "-c", script + "; echo end")
        task = place.mesh.json(*argv)["task"]
        for _ in range(2):
            wait_for(place.agent_relay.cut, 30)
        place.mesh.wait_status(NODE, "online", 60)
        (tmp_path / "go").write_text("x\n")
        (run,) = place.mesh.wait_task(task)["runs"]
        expected = [*(f"line {number}" for number in range(1, 3001)), "end"]
        assert run["stdout"].splitlines() == expected
        assert run["state"] == "succeeded"


def test_a_link_waits_while_its_node_is_away_and_keeps_its_port(place: Cuttable) -> None:
    mesh = place.mesh
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with echo_server() as target:
        mesh.run(
            "links", "add", "own", "--from", f"{NODE}:{port}", "--to", f"{NODE}:127.0.0.1:{target}"
        )
        wait_for(lambda: mesh.json("links", "show", "own")["state"] == "up")
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(b"before")
            assert connection.recv(6, socket.MSG_WAITALL) == b"before"
            place.agent_relay.refuse()
            wait_for(lambda: mesh.json("links", "show", "own")["state"] == "waiting")
            assert "not connected" in mesh.json("links", "show", "own")["reason"]
            connection.sendall(b"during")
            place.agent_relay.admit()
            assert connection.recv(6, socket.MSG_WAITALL) == b"during"
            wait_for(lambda: mesh.json("links", "show", "own")["state"] == "up")
        mesh.run("links", "remove", "own")


def another_boot(directory: Path) -> list[str]:
    """Stands before a command that is to see another boot id; nothing unless root may mount."""
    made = directory / "boot_id"
    made.write_text("2b00711d-0000-4000-8000-000000000000\n")
    inside = f'mount --bind {made} /proc/sys/kernel/random/boot_id && exec "$@"'
    prefix = ["unshare", "--mount", "sh", "-c", inside, "sh"]
    tried = subprocess.run([*prefix, "true"], capture_output=True)
    return [] if tried.returncode else prefix


class TestCopiedKeys:
    """A thief has the node's state directory, and no session's name: that is kept in memory."""

    def test_a_copy_gets_nothing_that_was_open_and_both_are_quarantined(
        self, tmp_path: Path
    ) -> None:
        place = Cuttable(tmp_path / "mesh")
        mesh = place.mesh
        try:
            shutil.copytree(mesh.agent_dir(NODE), mesh.agent_dir("copy"))
            place.direct("copy", mesh.env["MOORING_URL"])
            with Terminal(mesh.env, NODE, "echo shell $$.; read line; echo $line") as shell:
                shell.read_until(".\r\n")
                process = shell.shown.removeprefix("shell ").removesuffix(".\r\n")
                place.agent_relay.refuse()
                mesh.wait_status(NODE, "offline")
                shell.type("secret")
                thief = mesh.start_agent("copy", prefix=another_boot(tmp_path))
                assert shell.exit_code() != 0
            assert "newer tunnel of this node took over" in shell.shown
            assert "secret" not in shell.shown
            place.agent_relay.admit()
            mesh.wait_status(NODE, "quarantined", 60)
            wait_for(lambda: not Path("/proc", process).exists())
            wait_for(lambda: "two machines use this node's key" in thief.text())
            wait_for(lambda: "refused: quarantined" in mesh.agents[NODE].text())
            events = mesh.get(f"/api/v1/nodes/{NODE}/events")["items"]
            assert "node.quarantined" in [event["kind"] for event in events]
            assert "quarantined" in mesh.run("exec", NODE, "--", "true", code=1).stderr
        finally:
            place.close()


class TestStopping:
    def test_an_agent_that_waits_for_its_hub_stops_at_once(self, place: Cuttable) -> None:
        agent = place.restart_agent()
        place.agent_relay.swallow()
        place.agent_relay.cut()
        came = place.agent_relay.accepted
        wait_for(lambda: place.agent_relay.accepted > came, 30)
        begun = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - begun < 5
        assert "Traceback" not in agent.text(), agent.text()[-3000:]
        place.agent_relay.admit()
        place.start_agent()

    def test_a_hub_that_restarted_meanwhile_gets_a_new_session(
        self, place: Cuttable, tmp_path: Path
    ) -> None:
        mesh, agent = place.mesh, place.mesh.agents[NODE]
        with echo_server() as target:
            with place.forward(tmp_path / "log", "-R", f"0:127.0.0.1:{target}") as there:
                with socket.create_connection(there, 60) as connection:
                    connection.sendall(b"x")
                    assert connection.recv(1) == b"x"
                    mesh.hub.stop(signal.SIGKILL)
                    mesh.start_hub()
                    mesh.wait_status(NODE, "online", 60)
                    assert read_to_end(connection) == b""

                def is_open_again() -> bool:
                    try:
                        with socket.create_connection(there, 5) as again:
                            again.sendall(b"again")
                            return again.recv(5, socket.MSG_WAITALL) == b"again"
                    except OSError:
                        return False

                wait_for(is_open_again, 60)
        assert agent.alive
        assert mesh.run("--yes", "exec", NODE, "--", "true").returncode == 0


def read_to_end(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""
