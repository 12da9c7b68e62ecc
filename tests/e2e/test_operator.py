"""What an operator does all day, against three real agents: commands, output, exit codes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import ssl
import subprocess
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.mesh import MOORING, Mesh, Process, wait_for

pytestmark = pytest.mark.e2e
NAMES = ["db-1", "web-1", "web-2"]


def make_package(path: Path, name: str, version: str, size: int = 1000) -> Path:
    """A tar.gz with a service.json and one file of `size` random bytes."""
    manifest = json.dumps({"name": name, "version": version, "description": "a test"}).encode()
    content = os.urandom(size)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member, data in (("service.json", manifest), ("bin/content", content)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


class TestNodes:
    def test_the_list_shows_every_node_online(self, mesh: Mesh) -> None:
        nodes = mesh.json("nodes")
        assert sorted(node["name"] for node in nodes) == NAMES
        assert {node["status"] for node in nodes} == {"online"}
        for node in nodes:
            assert {"id", "name", "status", "groups", "labels", "packages"} <= node.keys()

    def test_facts_are_those_of_this_machine(self, mesh: Mesh) -> None:
        facts = wait_for(lambda: mesh.json("nodes", "show", "web-1")["facts"])
        assert facts["cpus"] == os.cpu_count()
        assert facts["kernel"] == os.uname().release
        assert facts["boot_id"]

    def test_targets_select(self, mesh: Mesh) -> None:
        mesh.run("nodes", "label", "db-1", "role=db")
        for target, names in {
            "web-*": ["web-1", "web-2"],
            "label.role==db": ["db-1"],
            "all and not web-1": ["db-1", "web-2"],
            "~^web-[2]$": ["web-2"],
            "status==online and (web-1 or db-1)": ["db-1", "web-1"],
        }.items():
            assert sorted(node["name"] for node in mesh.json("nodes", target)) == names, target

    def test_a_target_that_does_not_parse_points_at_its_column(self, mesh: Mesh) -> None:
        done = mesh.run("nodes", "web-1 and (", code=2)
        assert "column 12" in done.stderr or "^" in done.stderr

    def test_groups_hold_nodes(self, mesh: Mesh) -> None:
        mesh.run("groups", "create", "web")
        mesh.run("groups", "add", "web", "web-1", "web-2")
        assert sorted(n["name"] for n in mesh.json("nodes", "group:web")) == ["web-1", "web-2"]
        mesh.run("groups", "drop", "web", "web-2")
        assert [n["name"] for n in mesh.json("nodes", "group:web")] == ["web-1"]
        mesh.run("--yes", "groups", "delete", "web")
        mesh.run("nodes", "group:web", code=4)

    def test_an_unknown_node_is_not_found(self, mesh: Mesh) -> None:
        assert "nosuch" in mesh.run("nodes", "show", "nosuch", code=4).stderr


class TestExec:
    def test_output_is_prefixed_with_the_nodes_name(self, mesh: Mesh) -> None:
        done = mesh.run("--yes", "exec", "all", "--", "echo", "hello")
        lines = sorted(line.split() for line in done.stdout.splitlines())
        assert [line[0].rstrip(":|") for line in lines] == NAMES
        assert all(line[-1] == "hello" for line in lines)

    def test_json_is_one_event_a_line_and_a_summary(self, mesh: Mesh) -> None:
        events = mesh.ndjson("exec", "web-*", "--", "sh", "-c", "echo out; echo err >&2")
        outputs = {(e["node"], e["stream"]): e["data"] for e in events if e["type"] == "output"}
        assert outputs == {
            (node, stream): text
            for node in ("web-1", "web-2")
            for stream, text in (("stdout", "out\n"), ("stderr", "err\n"))
        }
        results = [event for event in events if event["type"] == "result"]
        assert {(r["node"], r["state"], r["exit_code"]) for r in results} == {
            ("web-1", "succeeded", 0),
            ("web-2", "succeeded", 0),
        }
        assert events[-1]["type"] == "summary"
        assert (events[-1]["ok"], events[-1]["failed"]) == (2, 0)

    def test_a_failing_command_exits_with_1_and_tells_its_code(self, mesh: Mesh) -> None:
        events = mesh.ndjson("exec", "web-1", "--", "sh", "-c", "exit 7", code=1)
        assert [e["exit_code"] for e in events if e["type"] == "result"] == [7]

    def test_a_timeout_exits_with_124_and_ends_the_whole_group(self, mesh: Mesh) -> None:
        marker = f"31{os.getpid()}"
        script = f"sleep {marker} & sleep {marker}"
        mesh.run("exec", "web-1", "--timeout", "1s", "--", "sh", "-c", script, code=124)
        left = subprocess.run(["pgrep", "-f", f"sleep {marker}"], capture_output=True)
        assert left.stdout == b""

    def test_environment_directory_and_stdin_arrive(self, mesh: Mesh) -> None:
        done = mesh.run(
            "--json", "exec", "web-1", "--env", "WHO=sea", "--cwd", "/tmp", "--stdin", "--",
            "sh", "-c", "pwd; echo $WHO; cat",
            input="from stdin",
        )  # fmt: skip
        events = [json.loads(line) for line in done.stdout.splitlines()]
        text = "".join(event["data"] for event in events if event["type"] == "output")
        assert text == "/tmp\nsea\nfrom stdin"

    def test_a_command_that_does_not_exist_is_127(self, mesh: Mesh) -> None:
        events = mesh.ndjson("exec", "web-1", "--", "/no/such/thing", code=1)
        assert [e["exit_code"] for e in events if e["type"] == "result"] == [127]

    def test_output_larger_than_what_is_kept_is_counted_exactly(self, mesh: Mesh) -> None:
        size = 3_000_000
        task = mesh.json("exec", "web-1", "--detach", "--", "head", "-c", str(size), "/dev/zero")
        shown = mesh.wait_task(task["task"])
        (run,) = shown["runs"]
        assert run["state"] == "succeeded"
        assert run["stdout_bytes"] == size
        assert run["truncated"] is True
        assert len(run["stdout"]) < 300_000

    def test_live_output_arrives_before_the_end(self, mesh: Mesh) -> None:
        child = subprocess.Popen(
            mesh.command("--json", "exec", "web-1", "--", "sh", "-c", "echo first; read x"),
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env=mesh.env,
        )
        with child:
            assert child.stdout is not None
            assert json.loads(child.stdout.readline())["data"] == "first\n"

    def test_cancel_ends_it(self, mesh: Mesh) -> None:
        task = mesh.json("exec", "web-1", "--detach", "--", "sleep", "60")["task"]
        wait_for(lambda: mesh.task(task)["runs"][0]["state"] == "running")
        mesh.run("tasks", "cancel", task)
        assert mesh.wait_task(task)["runs"][0]["state"] == "cancelled"

    @pytest.mark.parametrize(
        ("arguments", "code"),
        [
            (("exec", "nosuch", "--", "true"), 4),
            (("exec", "web-1 and and", "--", "true"), 2),
            (("exec", "web-1"), 2),
            (("exec", "web-1", "--timeout", "never", "--", "true"), 2),
            (("tasks", "show", "nosuch"), 4),
            (("shell", "nosuch"), 4),
            (("nosuchcommand",), 2),
        ],
    )
    def test_bad_input_has_its_exit_code_and_one_clear_line(
        self, mesh: Mesh, arguments: tuple[str, ...], code: int
    ) -> None:
        done = mesh.run(*arguments, code=code)
        assert done.stderr.strip()
        assert not done.stdout

    def test_without_a_token_it_is_3_and_without_a_hub_5(self, mesh: Mesh) -> None:
        mesh.run("nodes", code=3, env={"MOORING_TOKEN": "moor_wrong"})
        mesh.run("nodes", code=5, env={"MOORING_URL": "https://127.0.0.1:1"})


class TestShell:
    def test_a_command_in_a_terminal(self, mesh: Mesh) -> None:
        done = mesh.run(
            "shell", "web-1", "--", "sh", "-c", "tty && echo héllo", code=None, input=""
        )
        assert "/dev/pts/" in done.stdout
        assert "héllo" in done.stdout

    def test_its_exit_status_is_ours(self, mesh: Mesh) -> None:
        mesh.run("shell", "web-1", "--", "sh", "-c", "exit 3", code=3)

    def test_sessions_are_listed_and_end(self, mesh: Mesh) -> None:
        sessions = mesh.json("sessions", "list")
        assert all(session["ended_at"] for session in sessions)


class TestPackages:
    def test_push_deploy_update_uninstall(self, mesh: Mesh, tmp_path: Path) -> None:
        for version in ("1.0.0", "1.1.0"):
            mesh.run("packages", "push", str(make_package(tmp_path / "p.tgz", "site", version)))
        mesh.run("--yes", "deploy", "site@1.0.0", "all")
        for node in mesh.json("nodes"):
            assert [(p["name"], p["version"]) for p in node["packages"]] == [("site", "1.0.0")]
        mesh.run("--yes", "deploy", "site", "web-*", "--action", "update")
        versions = {node["name"]: node["packages"][0]["version"] for node in mesh.json("nodes")}
        assert versions == {"db-1": "1.0.0", "web-1": "1.1.0", "web-2": "1.1.0"}
        assert [n["name"] for n in mesh.json("nodes", "pkg.site < 1.1.0")] == ["db-1"]
        current = mesh.agent_dir("web-1") / "packages" / "site" / "current"
        assert current.is_symlink()
        assert json.loads((current / "service.json").read_text())["version"] == "1.1.0"
        mesh.run("--yes", "deploy", "site", "all", "--action", "uninstall")
        assert all(node["packages"] == [] for node in mesh.json("nodes"))
        assert not current.exists()

    def test_a_version_is_pushed_once(self, mesh: Mesh, tmp_path: Path) -> None:
        first = make_package(tmp_path / "a.tgz", "once", "1.0")
        mesh.run("packages", "push", str(first))
        other = make_package(tmp_path / "b.tgz", "once", "1.0")
        assert "once" in mesh.run("packages", "push", str(other), code=None).stderr
        assert [p["version"] for p in mesh.json("packages", "list") if p["name"] == "once"] == [
            "1.0"
        ]

    def test_an_archive_that_leaves_its_directory_is_refused(
        self, mesh: Mesh, tmp_path: Path
    ) -> None:
        path = tmp_path / "evil-1.0.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../outside", "x")
        before = mesh.json("packages", "list")
        done = mesh.run("packages", "push", str(path), code=None)
        assert done.returncode != 0
        assert ".." in done.stderr
        assert mesh.json("packages", "list") == before

    def test_a_wrong_checksum_and_a_truncated_upload_change_nothing(
        self, mesh: Mesh, tmp_path: Path
    ) -> None:
        data = make_package(tmp_path / "c.tgz", "check", "1.0").read_bytes()
        before = mesh.json("packages", "list")
        wrong = {"X-Checksum-SHA256": hashlib.sha256(b"other").hexdigest()}
        assert upload(mesh, data, wrong) == (400, "bad_request")
        cut_off_upload(mesh, data)
        assert upload(mesh, b"", {"Content-Length": str(5 * 1024**3)})[1] == "too_large"
        assert mesh.json("packages", "list") == before


def request(mesh: Mesh, path: str, data: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """A raw POST; the status and the problem's code."""
    context = ssl.create_default_context(cafile=mesh.env["MOORING_CA"])
    call = urllib.request.Request(
        mesh.env["MOORING_URL"] + path,
        data=data,
        headers={"Authorization": f"Bearer {mesh.env['MOORING_TOKEN']}"} | headers,
    )
    try:
        with urllib.request.urlopen(call, context=context, timeout=20) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())["code"]


def upload(mesh: Mesh, data: bytes, headers: dict[str, str]) -> tuple[int, str]:
    path = "/api/v1/packages?filename=check-1.0.tar.gz"
    return request(mesh, path, data, {"Content-Type": "application/octet-stream"} | headers)


def cut_off_upload(mesh: Mesh, data: bytes) -> None:
    """Send half of what Content-Length says, then go away."""
    context = ssl.create_default_context(cafile=mesh.env["MOORING_CA"])
    with (
        socket.create_connection(("127.0.0.1", mesh.port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        head = (
            "POST /api/v1/packages?filename=check-1.0.tar.gz HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {mesh.env['MOORING_TOKEN']}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        connection.sendall(head.encode() + data[: len(data) // 2])


@contextmanager
def echo_server() -> Iterator[int]:
    """A TCP server on loopback that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=copy, args=(connection,), daemon=True).start()

        def copy(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class TestForward:
    def test_bytes_through_client_hub_and_agent(self, mesh: Mesh, tmp_path: Path) -> None:
        port = free_port()
        with echo_server() as target:
            forward = Process(
                [MOORING, "forward", "web-1", f"{port}:127.0.0.1:{target}"],
                tmp_path / "forward.log",
                mesh.env,
            )
            try:
                wait_for(lambda: "forward" in forward.text() or not forward.alive)
                payload = os.urandom(3_000_000)
                with socket.create_connection(("127.0.0.1", port)) as connection:

                    def send() -> None:
                        connection.sendall(payload)
                        connection.shutdown(socket.SHUT_WR)

                    sender = threading.Thread(target=send)
                    sender.start()
                    received = b""
                    while data := connection.recv(1 << 20):
                        received += data
                    sender.join()
                assert received == payload
            finally:
                forward.stop()

    def test_the_nodes_policy_allows_only_the_node_itself(self, mesh: Mesh, tmp_path: Path) -> None:
        port = free_port()
        forward = Process(
            [MOORING, "forward", "web-1", f"{port}:192.0.2.1:80"], tmp_path / "f.log", mesh.env
        )
        try:
            wait_for(lambda: "forward" in forward.text())
            with socket.create_connection(("127.0.0.1", port)) as connection:
                assert connection.recv(10) == b""
            wait_for(lambda: "policy" in forward.text() or "allow" in forward.text())
        finally:
            forward.stop()

    def test_a_taken_port_is_a_clear_error(self, mesh: Mesh) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = mesh.run("forward", "web-1", f"{port}:127.0.0.1:80", code=None)
        assert done.returncode in (1, 2)
        assert "in use" in done.stderr


class TestApi:
    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"argv": 3}', b"\xff\xfe", b'{"target": "x"}'])
    def test_malformed_json_is_a_problem_document(self, mesh: Mesh, body: bytes) -> None:
        status, code = request(mesh, "/api/v1/tasks", body, {"Content-Type": "application/json"})
        assert (status, code) == (400, "bad_request")

    def test_audit_names_who_did_what(self, mesh: Mesh) -> None:
        acts = {entry["act"] for entry in mesh.json("audit")}
        assert any(act.startswith("task.") for act in acts)
