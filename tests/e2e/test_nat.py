"""The promise of the project: nodes that the hub cannot reach by any port, and everything works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import MOORING, Mesh, Process, wait_for
from tests.e2e.nat import Nat, why_not
from tests.e2e.test_operator import make_package

pytestmark = [pytest.mark.e2e, pytest.mark.netns]

SERVE_ONCE = """
import socket
server = socket.create_server(("127.0.0.1", 8099))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(b"from behind the router " + connection.recv(100))
    connection.close()
"""
ASK = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(b"ping")
answer = b""
while data := connection.recv(100):
    answer += data
print(answer.decode())
"""


@pytest.fixture(scope="module")
def nat() -> Iterator[Nat]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made = Nat()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def natted(nat: Nat, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    mesh = Mesh(tmp_path_factory.mktemp("nat"), hub_prefix=nat.prefix("hub"), bind=Nat.HUB_ADDRESS)
    try:
        for node in Nat.NODES:
            mesh.add(node, prefix=nat.prefix(node), url=f"https://{Nat.HUB_ADDRESS}:{mesh.port}")
        yield mesh
    finally:
        mesh.close()


def test_the_hub_cannot_reach_the_nodes(nat: Nat, natted: Mesh) -> None:
    assert nat.run("hub", "ip", "route", "get", "192.168.77.2", code=None).returncode != 0
    nat.run("hub", "ip", "route", "add", "192.168.77.0/24", "via", "10.77.0.254")
    try:
        probe = "import socket; socket.create_connection(('192.168.77.2', 22), 1)"
        assert nat.run("hub", "python3", "-c", probe, code=None).returncode != 0
    finally:
        nat.run("hub", "ip", "route", "del", "192.168.77.0/24")


def test_commands_run(natted: Mesh) -> None:
    events = natted.ndjson("--yes", "exec", "all", "--", "ip", "-4", "-o", "addr")
    output = {event["node"]: event["data"] for event in events if event["type"] == "output"}
    assert "192.168.77.2/24" in output["a"]
    assert "192.168.77.3/24" in output["b"]


def test_shells_open(natted: Mesh) -> None:
    done = natted.run("shell", "a", "--", "sh", "-c", "tty; ip -4 -o addr", input="")
    assert "/dev/pts/" in done.stdout
    assert "192.168.77.2/24" in done.stdout


def test_packages_install(natted: Mesh, tmp_path: Path) -> None:
    natted.run("packages", "push", str(make_package(tmp_path / "p.tgz", "site", "1.0", 3_000_000)))
    natted.run("--yes", "deploy", "site", "all")
    assert all(node["packages"][0]["version"] == "1.0" for node in natted.json("nodes"))


def test_forwards_reach_a_service_on_the_node(nat: Nat, natted: Mesh, tmp_path: Path) -> None:
    env = natted.env
    service = Process(
        [*nat.prefix("a"), "python3", "-c", SERVE_ONCE], tmp_path / "service.log", env
    )
    wait_for(lambda: "listening" in service.text())
    forward = Process(
        [*nat.prefix("hub"), MOORING, "forward", "a", "8098:127.0.0.1:8099"],
        tmp_path / "forward.log",
        env,
    )
    try:
        wait_for(lambda: "forward" in forward.text() or not forward.alive)
        assert nat.run("hub", "python3", "-c", ASK, "8098").stdout == (
            "from behind the router ping\n"
        )
    finally:
        forward.stop()
        service.kill()


def test_a_pulled_cable_is_noticed_and_a_command_outlives_it(nat: Nat, natted: Mesh) -> None:
    script = "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); sleep 0.2; done"
    task = natted.json("exec", "b", "--detach", "--timeout", "120s", "--", "sh", "-c", script)[
        "task"
    ]
    wait_for(lambda: natted.task(task)["runs"][0]["state"] == "running")
    nat.cut("b")
    natted.wait_status("b", "offline", 60)
    nat.mend("b")
    natted.wait_status("b", "online", 90)
    (run,) = natted.wait_task(task)["runs"]
    assert run["state"] == "succeeded"
    assert run["stdout"] == "".join(f"{number}\n" for number in range(50))
