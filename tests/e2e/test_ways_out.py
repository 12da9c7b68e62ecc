"""Agents that reach their hub through proxies, also where there is no other way out."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certs.authority import Authority
from certs.servers import Role, keep_current
from edge_agent.config import load_config
from edge_agent.state import StateDir
from tests.e2e.mesh import MOORING, Mesh, Process, wait_for
from tests.e2e.nat import Nat, why_not
from tests.proxies import ProxyServer

pytestmark = pytest.mark.e2e
Make = Callable[..., Mesh]
LOGIN = ("ann", "p:w@/%")
NEIGHBOUR = "192.168.77.3"


def use(mesh: Mesh, name: str) -> None:
    """The node is online and does something in both directions."""
    mesh.wait_status(name, "online")
    done = mesh.run("exec", name, "--", "head", "-c", "300000", "/dev/zero")
    assert len(done.stdout) >= 300_000


@pytest.mark.parametrize("kind", ["http", "socks5", "https"])
def test_an_agent_joins_and_serves_through_a_proxy_of_the_environment(
    fresh_mesh: Make, tmp_path: Path, kind: str
) -> None:
    mesh = fresh_mesh()
    server = ProxyServer(kind, LOGIN)
    if kind == "https":
        own = Authority.open(tmp_path / "ca", time.time())
        files, _ = keep_current(tmp_path, Role.PAGES, own, ["localhost"], time.time())
        (tmp_path / "root.pem").write_bytes(own.root_pem)
        server.kind, server.tls = "http", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(files.chain, files.key)
        mesh.base_env["SSL_CERT_FILE"] = str(tmp_path / "root.pem")
    with server.in_thread():
        mesh.base_env["HTTPS_PROXY"] = server.url
        mesh.join("one")
        joined = len(server.targets)
        assert joined >= 1
        agent = mesh.start_agent("one")
        mesh.base_env.pop("HTTPS_PROXY")
        use(mesh, "one")
        assert server.targets[joined:] == [f"127.0.0.1:{mesh.port}"]
        assert LOGIN[1] not in agent.text()
        agent.stop()


def test_no_proxy_is_honoured(fresh_mesh: Make) -> None:
    mesh = fresh_mesh()
    mesh.base_env |= {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.0/8"}
    mesh.add("one")


def test_a_proxy_given_when_joining_is_kept_for_the_agent(fresh_mesh: Make) -> None:
    mesh = fresh_mesh()
    with ProxyServer("socks5", LOGIN).in_thread() as server:
        mesh.base_env |= {"MOORING_PROXY": server.url, "HTTPS_PROXY": "http://127.0.0.1:1"}
        mesh.join("one")
        mesh.base_env.pop("MOORING_PROXY")
        agent = mesh.start_agent("one")
        use(mesh, "one")
        assert load_config(StateDir(mesh.agent_dir("one"))).proxy == server.url
        agent.stop()


def test_an_agent_says_what_its_proxy_lacks(fresh_mesh: Make) -> None:
    mesh = fresh_mesh()
    with ProxyServer("http", LOGIN).in_thread() as server:
        mesh.base_env["HTTPS_PROXY"] = server.url_of("ann", "not-it")
        done = mesh.join("one", code=5)
        assert "did not take the user and password" in done.stderr
        assert "not-it" not in done.stderr
        mesh.base_env["HTTPS_PROXY"] = server.url
        mesh.join("one")
        mesh.base_env["HTTPS_PROXY"] = server.url_of(None)
        agent = mesh.start_agent("one")
        wait_for(lambda: "wants a user and password (407)" in agent.text())
        agent.stop()


def doctor(
    mesh: Mesh, name: str, *options: str, prefix: list[str] | None = None, code: int = 0
) -> dict[str, Any]:
    """What the doctor says of an agent, by check."""
    argv = [*(prefix or []), MOORING, "agent", "doctor", "--json"]
    argv += ["--state-dir", str(mesh.agent_dir(name)), *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=mesh.base_env)
    assert done.returncode == code, (done.stdout, done.stderr)
    said = json.loads(done.stdout)
    assert said["ok"] is (code == 0)
    return {finding["check"]: finding for finding in said["findings"]}


def test_the_doctor_disturbs_no_tunnel_and_says_what_the_hub_says(fresh_mesh: Make) -> None:
    mesh = fresh_mesh()
    token = mesh.directory / "token"
    token.write_text(mesh.token())
    mesh.base_env["MOORING_JOIN_TOKEN"] = ""
    found = doctor(mesh, "one", "--token-file", str(token), "--hub", mesh.env["MOORING_URL"])
    assert found["hub"]["detail"] == "the one that made the join token"
    mesh.join("one", token=token.read_text())
    agent = mesh.start_agent("one")
    mesh.wait_status("one", "online")
    for _ in range(3):
        found = doctor(mesh, "one")
        assert {finding["status"] for finding in found.values()} == {"ok"}
        assert found["agent"]["detail"] == "runs on this directory"
    assert agent.text().count("connected to") == 1
    assert mesh.status("one") == "online"
    shown = mesh.run("agent", "doctor", "--state-dir", str(mesh.agent_dir("one")))
    assert "ok       tunnel       the hub lets this node in" in shown.stdout
    agent.stop()
    mesh.run("--yes", "nodes", "remove", "one")
    found = doctor(mesh, "one", code=1)
    assert found["tunnel"]["status"] == "failed"
    assert "it was removed" in found["tunnel"]["advice"]


@pytest.mark.netns
class TestNoOtherWayOut:
    """Node a has no route; only its neighbour b, which runs the proxy, reaches the hub."""

    @pytest.fixture(scope="class")
    @classmethod
    def nat(cls) -> Iterator[Nat]:
        reason = why_not()
        if reason is not None:
            pytest.skip(reason)
        made = Nat()
        try:
            made.run("a", "ip", "route", "del", "default")
            yield made
        finally:
            made.close()

    @pytest.mark.parametrize("kind", ["http", "socks5"])
    def test_a_node_lives_behind_a_proxy(self, nat: Nat, tmp_path: Path, kind: str) -> None:
        mesh = Mesh(tmp_path / "mesh", hub_prefix=nat.prefix("hub"), bind=Nat.HUB_ADDRESS)
        port = {"http": "3128", "socks5": "1080"}[kind]
        argv = [sys.executable, "-m", "tests.proxies", kind, NEIGHBOUR, port, "ann:pw"]
        proxy = Process([*nat.prefix("b"), *argv], tmp_path / "proxy.log", mesh.base_env)
        try:
            wait_for(lambda: "ready" in proxy.text())
            url = f"https://{Nat.HUB_ADDRESS}:{mesh.port}"
            token = mesh.token()
            mesh.join("a", prefix=nat.prefix("a"), url=url, token=token, code=5)
            mesh.base_env["ALL_PROXY"] = f"{kind}://ann:pw@{NEIGHBOUR}:{port}"
            mesh.join("a", prefix=nat.prefix("a"), url=url, token=token)
            mesh.start_agent("a", prefix=nat.prefix("a"))
            found = doctor(mesh, "a", prefix=nat.prefix("a"))
            assert found["proxy"]["status"] == "ok"
            mesh.base_env.pop("ALL_PROXY")
            use(mesh, "a")
            found = doctor(mesh, "a", prefix=nat.prefix("a"), code=1)
            assert "no route" in found["tcp"]["detail"]
        finally:
            mesh.close()
            proxy.kill()

    def test_a_firewall_that_drops_is_told_from_a_closed_port_and_a_host_that_is_gone(
        self, nat: Nat, tmp_path: Path
    ) -> None:
        rules = """
table inet shut {
  chain in { type filter hook input priority 0; tcp dport 9 drop
  }
}
"""
        path = tmp_path / "rules.nft"
        path.write_text(rules)
        nat.run("hub", "nft", "-f", str(path))
        words = {}
        for place in (f"{Nat.HUB_ADDRESS}:9", f"{Nat.HUB_ADDRESS}:10", "10.77.0.99:9"):
            argv = [*nat.prefix("b"), MOORING, "--json", "agent", "doctor", "--hub"]
            argv += [f"https://{place}", "--state-dir", str(tmp_path / "nowhere"), "--no-proxy"]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
            findings = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
            words[place] = findings["tcp"]["detail"].partition(": ")[2]
        assert list(words.values()) == ["no answer", "refuses", "no route"]
