"""Every way through a node, with real processes: forwards both ways, SOCKS, ssh, links."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.bench.peers.openssh import OpenSSH
from tests.bench.programs import Missing
from tests.e2e.mesh import MOORING, Mesh, Process, wait_for
from tests.e2e.test_operator import echo_server

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSSH]:
    """Debian's sshd, on a port and in a directory of its own."""
    try:
        server = OpenSSH(tmp_path_factory.mktemp("sshd"))
    except Missing as reason:
        pytest.skip(str(reason))
    try:
        yield server
    finally:
        server.stop()


class TestSsh:
    """`ssh` and what is built on it, through `mooring ssh-proxy`."""

    @pytest.fixture
    def options(self, mesh: Mesh, ssh: OpenSSH) -> list[str]:
        config = str(ssh.directory / "ssh_config")
        return ["-F", config, "-o", f"ProxyCommand={MOORING} ssh-proxy web-1 %p"]

    def run(
        self, mesh: Mesh, *argv: str, code: int = 0, **options: object
    ) -> subprocess.CompletedProcess[bytes]:
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            argv, capture_output=True, timeout=120, env=mesh.env, **options  # type: ignore[call-overload]
        )  # fmt: skip
        assert done.returncode == code, (argv, done.returncode, done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr
        return done

    def test_exit_codes_output_and_input_are_those_of_ssh(
        self, mesh: Mesh, options: list[str]
    ) -> None:
        done = self.run(mesh, "ssh", *options, "node", "echo out; echo err >&2; exit 7", code=7)
        assert done.stdout == b"out\n"
        assert b"err\n" in done.stderr
        data = bytes(range(256)) * 4096
        assert self.run(mesh, "ssh", *options, "node", "cat", input=data).stdout == data

    def test_scp_carries_20_megabytes_both_ways(
        self, mesh: Mesh, options: list[str], tmp_path: Path
    ) -> None:
        here, there, back = (tmp_path / name for name in ("here", "there", "back"))
        here.write_bytes(os.urandom(20_000_000))
        self.run(mesh, "scp", "-q", *options, str(here), f"node:{there}")
        self.run(mesh, "scp", "-q", *options, f"node:{there}", str(back))
        assert digest(there) == digest(back) == digest(here)

    def test_rsync_carries_a_tree(self, mesh: Mesh, options: list[str], tmp_path: Path) -> None:
        if shutil.which("rsync") is None:
            pytest.skip("rsync is not installed (Debian: apt-get install rsync)")
        here, there = tmp_path / "here", tmp_path / "there"
        for number in range(20):
            path = here / f"d{number % 3}" / f"{number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(number * 5000))
        over = shlex.join(["ssh", *options])
        self.run(mesh, "rsync", "-a", "-e", over, f"{here}/", f"node:{there}/")
        for path in here.rglob("*"):
            if path.is_file():
                assert digest(there / path.relative_to(here)) == digest(path)

    def test_a_node_that_is_not_there_is_one_error_and_no_traceback(self, mesh: Mesh) -> None:
        done = self.run(mesh, MOORING, "ssh-proxy", "nosuch", code=4)
        assert (done.stdout, done.stderr.count(b"\n")) == (b"", 2)
        assert b"nosuch" in done.stderr

    def test_a_port_where_nobody_listens_is_said(self, mesh: Mesh) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        done = self.run(mesh, MOORING, "ssh-proxy", "web-1", str(port), code=1)
        assert b"refused" in done.stderr.lower()

    def test_the_target_may_end_its_side_first(self, mesh: Mesh) -> None:
        with Proxy(mesh) as proxy:
            proxy.target.sendall(b"bye")
            proxy.target.shutdown(socket.SHUT_WR)
            assert proxy.child.stdout.read() == b"bye"  # type: ignore[union-attr]
            assert proxy.child.poll() is None
            proxy.child.stdin.write(b"and you")  # type: ignore[union-attr]
            proxy.child.stdin.close()  # type: ignore[union-attr]
            assert read_all(proxy.target) == b"and you"
            assert proxy.child.wait(10) == 0

    def test_its_standard_input_may_end_first(self, mesh: Mesh) -> None:
        with Proxy(mesh) as proxy:
            proxy.child.stdin.close()  # type: ignore[union-attr]
            assert read_all(proxy.target) == b""
            proxy.target.sendall(b"late")
            proxy.target.close()
            assert proxy.child.stdout.read() == b"late"  # type: ignore[union-attr]
            assert proxy.child.wait(10) == 0

    @pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_without_a_word(self, mesh: Mesh, number: signal.Signals) -> None:
        with Proxy(mesh) as proxy:
            proxy.child.send_signal(number)
            assert proxy.child.wait(10) == 128 + number
            assert proxy.child.stderr.read() == b""  # type: ignore[union-attr]
            assert read_all(proxy.target) == b""

    def test_a_closed_pipe_ends_it_without_a_word(self, mesh: Mesh) -> None:
        with Proxy(mesh) as proxy:
            proxy.child.stdout.close()  # type: ignore[union-attr]
            proxy.target.sendall(b"nobody reads this")
            assert proxy.child.wait(10) == 128 + signal.SIGPIPE
            assert proxy.child.stderr.read() == b""  # type: ignore[union-attr]


@contextmanager
def running(
    mesh: Mesh, log: Path, *words: str, lines: int = 1
) -> Iterator[tuple[Process, list[Any]]]:
    """A `mooring --json` command that stays, and the first events that it printed."""
    process = Process([MOORING, "--json", *words], log, mesh.env)

    def events() -> list[Any]:
        found = [json.loads(line) for line in process.text().splitlines() if line[:1] == "{"]
        assert process.alive, process.text()
        return found if len(found) >= lines else []

    try:
        yield process, wait_for(events)
    finally:
        assert process.stop() == 0, process.text()
        assert "Traceback" not in process.text()


def sent_and_received(place: str, payload: bytes) -> bytes:
    """What comes back for `payload` and the end of our side."""
    with socket.create_connection(address_of(place), 20) as connection:

        def send() -> None:
            with suppress(OSError):  # it was ended first
                connection.sendall(payload)
                connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = read_all(connection)
        sender.join()
    return received


def address_of(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


class TestReverse:
    def test_bytes_go_both_ways_and_a_half_close_arrives(self, mesh: Mesh, tmp_path: Path) -> None:
        with echo_server() as target:
            words = ("forward", "web-1", "-R", f"0:localhost:{target}")
            with running(mesh, tmp_path / "log", *words) as (_, (event,)):
                assert (event["direction"], event["node"]) == ("reverse", "web-1")
                assert event["local"] == f"localhost:{target}"
                payload = os.urandom(3_000_000)
                assert sent_and_received(event["remote"], payload) == payload

    def test_several_both_ways_at_once(self, mesh: Mesh, tmp_path: Path) -> None:
        with echo_server() as target:
            there, here = f"0:localhost:{target}", f"0:127.0.0.1:{target}"
            words = ("forward", "db-1", there, there, "-R", here, "--reverse", here)
            with running(mesh, tmp_path / "log", *words, lines=4) as (_, events):
                places = [e["local" if e["direction"] == "local" else "remote"] for e in events]
                assert len(set(places)) == 4
                for place in places:
                    assert sent_and_received(place, b"hello") == b"hello"

    def test_where_nobody_listens_here_the_connection_ends_and_it_is_said(
        self, mesh: Mesh, tmp_path: Path
    ) -> None:
        with echo_server() as closed:
            pass
        words = ("forward", "web-1", "-R", f"0:127.0.0.1:{closed}")
        with running(mesh, tmp_path / "log", *words) as (process, (event,)):
            assert sent_and_received(event["remote"], b"") == b""
            wait_for(lambda: "could not be carried" in process.text())

    def test_a_port_that_the_node_does_not_give_is_a_clear_error(self, mesh: Mesh) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            spec = f"{taken.getsockname()[1]}:localhost:80"
            assert "in use" in mesh.run("forward", "web-1", "-R", spec, code=1).stderr
        refused = mesh.run("forward", "web-1", "-R", "0.0.0.0:0:localhost:80", code=3)
        assert "policy" in refused.stderr
        mesh.run("forward", "web-1", code=2)
        mesh.run("forward", "web-1", "-R", "x", code=2)
        mesh.run("forward", "nosuch", "-R", "0:localhost:80", code=4)

    def test_it_comes_back_after_the_agent_and_after_the_hub(
        self, fresh_mesh: Callable[..., Mesh], tmp_path: Path
    ) -> None:
        mesh = fresh_mesh("one")
        with echo_server() as target:
            words = ("forward", "one", "-R", f"0:localhost:{target}", f"0:localhost:{target}")
            log = tmp_path / "forward.log"
            with running(mesh, log, *words, lines=2) as (_, (local, reverse)):
                places = [local["local"], reverse["remote"]]

                def is_back() -> bool:
                    try:
                        return all(sent_and_received(place, b"x") == b"x" for place in places)
                    except OSError:
                        return False

                assert is_back()
                mesh.agents["one"].kill()
                mesh.start_agent("one")
                wait_for(is_back, 60)
                mesh.hub.kill()
                mesh.start_hub()
                wait_for(is_back, 60)


class TestForwards:
    """What is open is listed, and closed by whoever may."""

    def find(self, mesh: Mesh, **fields: object) -> Any:
        """The one forward with these fields; None while there is none."""
        found = [f for f in mesh.json("forwards") if fields.items() <= f.items()]
        assert len(found) <= 1, found
        return found[0] if found else None

    def test_a_forward_is_one_entry_with_its_connections(self, mesh: Mesh, tmp_path: Path) -> None:
        with echo_server() as target:
            words = ("forward", "web-2", f"0:127.0.0.1:{target}")
            with running(mesh, tmp_path / "log", *words) as (_, (event,)):
                with socket.create_connection(address_of(event["local"]), 20) as connection:
                    connection.sendall(b"hello")
                    assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
                    listed = self.find(mesh, kind="local", node="web-2", port=target)
                    assert (listed["connections"], listed["sent_bytes"]) == (1, 5)
                    shown = mesh.json("forwards", "show", listed["id"])
                    assert len(shown["open_connections"]) == 1
                    assert str(target) in mesh.run("forwards").stdout
                    assert "1 open" in mesh.run("forwards", "show", listed["id"]).stdout
        wait_for(lambda: self.find(mesh, kind="local", node="web-2", port=target) is None)
        mesh.run("forwards", "show", listed["id"], code=4)

    def test_closing_one_ends_its_connections_and_says_why(
        self, mesh: Mesh, tmp_path: Path
    ) -> None:
        with echo_server() as target:
            words = ("forward", "web-2", f"0:127.0.0.1:{target}")
            with running(mesh, tmp_path / "log", *words) as (process, (event,)):
                with socket.create_connection(address_of(event["local"]), 20) as connection:
                    connection.sendall(b"x")
                    assert connection.recv(1) == b"x"
                    listed = self.find(mesh, kind="local", node="web-2", port=target)
                    mesh.run("forwards", "close", listed["id"])
                    assert read_all(connection) == b""
                wait_for(lambda: "closed by admin" in process.text())
        mesh.run("forwards", "close", listed["id"], code=4)

    def test_closing_a_reverse_one_ends_its_command(self, mesh: Mesh, tmp_path: Path) -> None:
        argv = [MOORING, "forward", "web-2", "-R", "0:localhost:80"]
        process = Process(argv, tmp_path / "log", mesh.env)
        try:
            listed = wait_for(lambda: self.find(mesh, kind="reverse", node="web-2"))
            assert listed["listen_port"]
            mesh.run("forwards", "close", listed["id"])
            assert process.child.wait(20) == 3
            assert "closed by admin" in process.text()
        finally:
            process.stop()


def test_a_link_joins_two_nodes_until_it_is_disabled(mesh: Mesh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with echo_server() as target:
        words = ("--from", f"web-1:{port}", "--to", f"db-1:localhost:{target}")
        mesh.run("links", "add", "echo", *words)
        mesh.run("links", "add", "echo", *words, code=1)
        wait_for(lambda: mesh.json("links", "show", "echo")["state"] == "up")
        place = f"127.0.0.1:{port}"
        assert sent_and_received(place, b"hello") == b"hello"
        shown = mesh.run("links", "list").stdout
        assert f"web-1:{place}" in shown
        assert f"db-1:localhost:{target}" in shown
        (listed,) = [f for f in mesh.json("forwards") if f["kind"] == "link"]
        assert "disable" in mesh.run("forwards", "close", listed["id"], code=1).stderr
        with socket.create_connection(address_of(place), 20) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            mesh.run("links", "disable", "echo")
            assert read_all(connection) == b""
        assert mesh.json("links", "show", "echo")["state"] == "disabled"
        mesh.run("links", "enable", "echo")
        wait_for(lambda: mesh.json("links", "show", "echo")["state"] == "up")
        mesh.run("links", "remove", "echo")
        mesh.run("links", "show", "echo", code=4)


def test_a_service_is_published_listed_and_withdrawn(mesh: Mesh) -> None:
    words = ("publish", "web-1", "3000", "--name", "site")
    url = mesh.run(*words).stdout.strip()
    assert url.startswith(mesh.env["MOORING_URL"])
    mesh.run(*words, code=1)
    assert [one["url"] for one in mesh.json("published", "list")] == [url]
    assert url in mesh.run("published", "list").stdout
    assert "web-1" in mesh.run("published", "show", "site").stdout
    named = ("--host-name", "site.localhost", "--scheme", "https", "--verify")
    made = mesh.json("publish", "web-1", "localhost:3000", "--name", "other", *named)
    assert (made["host"], made["scheme"], made["verify"]) == ("localhost", "https", True)
    assert made["url"].startswith("https://site.localhost")
    for name in ("site", "other"):
        mesh.run("published", "remove", name)
    mesh.run("published", "show", "site", code=4)


@pytest.fixture(scope="module")
def proxy(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SOCKS proxy through web-1."""
    log = tmp_path_factory.mktemp("socks") / "log"
    with running(mesh, log, "socks", "web-1", "0") as (_, (event,)):
        assert (event["type"], event["direction"]) == ("forwarding", "socks")
        yield event["local"]


class TestSocks:
    def ask(self, proxy: str, kind: int, address: bytes, port: int) -> tuple[socket.socket, int]:
        """A connection through the proxy, and how its reply begins."""
        connection = socket.create_connection(address_of(proxy), 20)
        connection.sendall(b"\x05\x01\x00")
        assert connection.recv(2) == b"\x05\x00"
        connection.sendall(bytes((5, 1, 0, kind)) + address + port.to_bytes(2, "big"))
        answer = connection.recv(10, socket.MSG_WAITALL)
        assert (len(answer), answer[0]) == (10, 5)
        return connection, answer[1]

    @pytest.mark.parametrize(
        ("kind", "address"), [(1, bytes((127, 0, 0, 1))), (3, b"\x09localhost")]
    )
    def test_bytes_go_both_ways_and_a_half_close_arrives(
        self, proxy: str, kind: int, address: bytes
    ) -> None:
        with echo_server() as port:
            connection, answer = self.ask(proxy, kind, address, port)
            with connection:
                assert answer == 0
                connection.sendall(b"hello")
                connection.shutdown(socket.SHUT_WR)
                assert read_all(connection) == b"hello"

    def test_a_closed_port_and_a_forbidden_place_have_their_codes(self, proxy: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            closed = server.getsockname()[1]
        for address, port, code in (
            (bytes((127, 0, 0, 1)), closed, 4),
            (bytes((192, 0, 2, 1)), 80, 2),
        ):
            connection, answer = self.ask(proxy, 1, address, port)
            with connection:
                assert answer == code
                assert read_all(connection) == b""

    def test_curl_fetches_through_it(self, proxy: str, tmp_path: Path) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed (Debian: apt-get install curl)")
        (tmp_path / "page").write_bytes(os.urandom(2_000_000))
        handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://localhost:{server.server_port}/page"
            argv = ["curl", "-sS", "--noproxy", "", "--socks5-hostname", proxy, url]
            done = subprocess.run(argv, capture_output=True, timeout=60)
            server.shutdown()
        assert done.returncode == 0, done.stderr
        assert done.stdout == (tmp_path / "page").read_bytes()

    def test_a_port_for_everybody_gets_a_warning(self, mesh: Mesh, tmp_path: Path) -> None:
        with running(mesh, tmp_path / "log", "socks", "web-1", "0.0.0.0:0") as (process, _):
            assert "warning" in process.text()


class Proxy:
    """`mooring ssh-proxy` with pipes, and the connection that it made."""

    def __init__(self, mesh: Mesh) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.child = subprocess.Popen(
                [MOORING, "ssh-proxy", "web-1", str(server.getsockname()[1])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=mesh.env,
            )
            server.settimeout(20)
            self.target, _ = server.accept()
        self.target.settimeout(20)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.target.close()
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert pipe is not None
            pipe.close()


def read_all(connection: socket.socket) -> bytes:
    """What comes until its end, or until it is reset."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
