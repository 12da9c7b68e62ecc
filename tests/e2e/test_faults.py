"""What comes back after kill -9 on either side, and who is turned away, by name."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.keys import key_from_pem, make_request
from certs.tokens import decode_token, encode_token
from tests.e2e.mesh import Mesh, wait_for
from tests.e2e.test_operator import make_package

pytestmark = pytest.mark.e2e
Make = Callable[..., Mesh]
COUNT = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.1; done"
LINES = "".join(f"line {number}\n" for number in range(60))


def started(mesh: Mesh, task: str) -> None:
    wait_for(lambda: mesh.task(task)["runs"][0]["state"] == "running")


class TestKills:
    def test_a_command_survives_its_agent(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh("one")
        task = mesh.json("exec", "one", "--detach", "--", "sh", "-c", COUNT)["task"]
        started(mesh, task)
        mesh.agents["one"].kill()
        mesh.wait_status("one", "offline")
        mesh.start_agent("one")
        (run,) = mesh.wait_task(task)["runs"]
        assert (run["state"], run["exit_code"], run["stdout"]) == ("succeeded", 0, LINES)

    def test_a_command_survives_its_hub(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh("one")
        task = mesh.json("exec", "one", "--detach", "--", "sh", "-c", COUNT)["task"]
        started(mesh, task)
        mesh.hub.kill()
        mesh.start_hub()
        (run,) = mesh.wait_task(task, 90)["runs"]
        assert (run["state"], run["exit_code"], run["stdout"]) == ("succeeded", 0, LINES)

    def test_a_transfer_goes_on_after_the_agent_and_after_the_hub(
        self, fresh_mesh: Make, tmp_path: Path
    ) -> None:
        mesh = fresh_mesh("one")
        package = make_package(tmp_path / "big.tgz", "big", "1.0", size=150_000_000)
        mesh.run("packages", "push", str(package))

        deployment = mesh.json("--yes", "deploy", "big", "one", "--no-wait")["deployment"]

        def moving() -> bool:
            (node,) = mesh.get(f"/api/v1/deployments/{deployment}")["nodes"]
            assert node["state"] != "succeeded", "too fast to be killed in the middle"
            return 0 < int(node["done_bytes"]) < int(node["total_bytes"])

        wait_for(moving)
        mesh.agents["one"].kill()
        before = (mesh.agent_dir("one") / "artifacts").rglob("*")
        assert sum(path.stat().st_blocks for path in before if path.is_file()) > 0
        mesh.start_agent("one")
        wait_for(moving, 60)
        mesh.hub.kill()
        mesh.start_hub()

        def installed() -> bool:
            packages = mesh.json("nodes", "show", "one")["packages"]
            return [p["name"] for p in packages] == ["big"]

        wait_for(installed, 120)

    def test_an_idle_mesh_comes_back(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh("one", "two")
        mesh.hub.kill()
        mesh.start_hub()
        for name in ("one", "two"):
            mesh.wait_status(name, "online", 60)
        assert mesh.agents["one"].alive
        assert mesh.agents["two"].alive
        mesh.run("--yes", "exec", "all", "--", "true")

    def test_sigterm_ends_hub_and_agent_cleanly(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh("one")
        begun = time.monotonic()
        assert mesh.agents["one"].stop(signal.SIGTERM) == 0
        mesh.wait_status("one", "offline")
        mesh.start_agent("one")
        mesh.wait_status("one", "online")
        assert mesh.hub.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 30
        wait_for(lambda: "the hub is stopping" in mesh.agents["one"].text())

    def test_a_second_hub_on_the_same_directory_is_refused(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh()
        done = mesh.run("hub", "serve", "--state-dir", str(mesh.state), "--port", "0", code=None)
        assert done.returncode != 0
        assert "another hub" in done.stderr


class TestRefusals:
    def test_a_token_works_once(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh()
        token = mesh.token()
        mesh.join("one", token=token)
        done = mesh.join("two", token=token, code=3)
        assert "used" in done.stderr
        assert not (mesh.agent_dir("two") / "certificate.pem").exists()

    def test_a_wrong_pin_is_refused_before_the_secret_is_sent(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh()
        genuine = decode_token(mesh.token())
        forged = encode_token(
            type(genuine)(hubs=genuine.hubs, pin=bytes(32), secret=genuine.secret)
        )
        done = mesh.join("one", token=forged, code=3)
        assert "pin" in done.stderr
        mesh.join("one", token=encode_token(genuine))  # the secret was not used up

    def test_revocation_cuts_the_tunnel_and_removal_forgets_the_node(
        self, fresh_mesh: Make
    ) -> None:
        mesh = fresh_mesh("one")
        mesh.run("--yes", "nodes", "remove", "one")
        wait_for(lambda: "may not connect" in mesh.agents["one"].text(), 5)
        assert mesh.json("nodes") == []
        mesh.agents["one"].kill()
        mesh.start_agent("one", log="again")
        wait_for(lambda: "unknown_node" in mesh.agents["again"].text())
        assert "node.refuse" in {entry["act"] for entry in mesh.json("audit")}

    def test_an_expired_certificate_is_refused_by_name(self, fresh_mesh: Make) -> None:
        mesh = fresh_mesh()
        mesh.join("one")
        directory = mesh.agent_dir("one")
        node_id = mesh.json("nodes")[0]["id"]
        authority = Authority.open(mesh.state / "ca", time.time())
        key = key_from_pem((directory / "key.pem").read_bytes())
        week = 7 * 86400.0
        old = authority.issue_node(make_request(key), node_id, time.time() - 2 * week, week)
        (directory / "certificate.pem").write_bytes(old.chain_pem)
        agent = mesh.start_agent("one")
        wait_for(lambda: "expired" in agent.text())
        assert mesh.status("one") in ("never", "offline")

    def test_a_certificate_of_another_mesh_is_refused(
        self, fresh_mesh: Make, tmp_path: Path
    ) -> None:
        mesh = fresh_mesh()
        mesh.join("one")
        node_id = mesh.json("nodes")[0]["id"]
        directory = mesh.agent_dir("one")
        other = Authority.open(tmp_path / "other-ca", time.time())
        key = key_from_pem((directory / "key.pem").read_bytes())
        foreign = other.issue_node(make_request(key), node_id, time.time())
        (directory / "certificate.pem").write_bytes(foreign.chain_pem)
        agent = mesh.start_agent("one")
        wait_for(lambda: "its issuer is not of this mesh" in agent.text())
        wait_for(
            lambda: any(
                entry["act"] == "node.refuse" and "other_ca" in json.dumps(entry["detail"])
                for entry in mesh.json("audit")
            )
        )

    @pytest.mark.parametrize(
        "garbage", [os.urandom(512), b"\x16\x03\x01\xff\xff" + bytes(600), b"\x00"]
    )
    def test_binary_garbage_on_the_port_harms_nobody(self, mesh: Mesh, garbage: bytes) -> None:
        with socket.create_connection(("127.0.0.1", mesh.port), timeout=20) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            try:
                connection.recv(1000)
            except ConnectionResetError:
                pass
        assert len(mesh.json("nodes")) == 3
