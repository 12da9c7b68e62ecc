"""A link between two real nodes: its bytes, its life through kill -9, and a policy that forbids."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.e2e.mesh import Mesh, wait_for

pytestmark = pytest.mark.e2e
Make = Callable[..., Mesh]
DATA = bytes(range(256)) * 4096


@pytest.fixture
def target() -> Iterator[int]:
    """The port of an echo server on loopback."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    def echo(client: socket.socket) -> None:
        with suppress(OSError), client:
            while data := client.recv(65536):
                client.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def link(mesh: Mesh, target: int) -> int:
    """Declare a link from `one` to `two`; gives its port on `one`."""
    port = free_port()
    new = {"name": "db", "from_node": "one", "port": port, "to_node": "two", "to_port": target}
    assert mesh.call("POST", "/api/v1/links", new)["enabled"]
    return port


def wait_for_state(mesh: Mesh, state: str, timeout_s: float = 60.0) -> Any:
    def shown() -> Any:
        view = mesh.get("/api/v1/links/db")
        return view if view["state"] == state else None

    return wait_for(shown, timeout_s)


def echoed(port: int, data: bytes = b"ping") -> bytes:
    """What comes back through the port; less than `data` when the connection was refused."""
    answer = b""
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 20) as client:
        sending = threading.Thread(target=send, args=(client, data))
        sending.start()
        while len(answer) < len(data) and (piece := client.recv(65536)):
            answer += piece
        sending.join()
    return answer


def send(client: socket.socket, data: bytes) -> None:
    with suppress(OSError):
        client.sendall(data)


def allow_forwards(mesh: Mesh, node: str, rules: list[str]) -> None:
    path = mesh.agent_dir(node) / "policy.json"
    policy = json.loads(path.read_text())
    path.write_text(json.dumps(policy | {"forward": rules}))


def test_a_link_carries_bytes_and_is_listed_as_a_forward(fresh_mesh: Make, target: int) -> None:
    mesh = fresh_mesh("one", "two")
    port = link(mesh, target)
    up = wait_for_state(mesh, "up")
    assert echoed(port, DATA) == DATA
    (forward,) = mesh.get("/api/v1/forwards")["items"]
    assert (forward["id"], forward["kind"], forward["name"]) == (up["forward"], "link", "db")
    wait_for(lambda: mesh.get(f"/api/v1/forwards/{up['forward']}")["connections"] == 0)
    counted = mesh.get(f"/api/v1/forwards/{up['forward']}")
    assert (counted["sent_bytes"], counted["received_bytes"]) == (len(DATA), len(DATA))
    mesh.call("DELETE", "/api/v1/links/db")
    wait_for(lambda: echoed(port) == b"")
    assert mesh.get("/api/v1/links")["items"] == []


def test_a_link_survives_kill_9_of_hub_and_of_each_agent(fresh_mesh: Make, target: int) -> None:
    mesh = fresh_mesh("one", "two")
    port = link(mesh, target)
    wait_for_state(mesh, "up")
    for name in ("one", "two"):
        mesh.agents[name].kill()
        waiting = wait_for_state(mesh, "waiting")
        assert name in waiting["reason"]
        assert echoed(port) == b""
        mesh.start_agent(name)
        wait_for_state(mesh, "up")
        assert echoed(port) == b"ping"
    mesh.hub.kill()
    mesh.start_hub()
    wait_for_state(mesh, "up", 90)
    assert echoed(port) == b"ping"


def test_the_policy_of_the_second_node_is_asked(fresh_mesh: Make, target: int) -> None:
    mesh = fresh_mesh("one", "two")
    allow_forwards(mesh, "two", ["node:1"])
    port = link(mesh, target)
    wait_for_state(mesh, "up")
    assert echoed(port) == b""
    refused = wait_for_state(mesh, "refused")
    assert f'two: 127.0.0.1:{target} is not among the "forward" targets' in refused["reason"]
    allow_forwards(mesh, "two", ["node"])
    assert echoed(port) == b"ping"
    wait_for_state(mesh, "up")
