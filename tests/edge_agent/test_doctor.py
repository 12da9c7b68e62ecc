"""Every fault that the doctor names, produced for real: files, clocks, sockets, TLS, refusals."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest

from certs.authority import Authority
from certs.contexts import hub_join_context, hub_tunnel_context
from certs.keys import make_key_and_csr
from certs.servers import Role, ServerFiles, keep_current
from certs.tokens import JoinToken, encode_token, make_secret
from edge_agent.config import AgentConfig, save_config
from edge_agent.doctor import Finding, examine
from edge_agent.policy import default_policy
from edge_agent.state import StateDir
from hub.admission import Lane
from hub.enrolment import NodeRefused
from hub.enrolment import Refusal as Standing
from hub.listener import Listener, Route
from protocol.aio.websocket import Refusal, accept_websocket
from tests.proxies import ProxyServer

DAY = 86400.0
NODE_ID = str(uuid.uuid4())


@dataclass
class Lab:
    """A CA, a hub's front on loopback, and a node that joined it."""

    folder: Path
    authority: Authority
    state: StateDir
    hub: ServerFiles
    pages: ServerFiles
    url: str = ""
    refusal: Refusal = field(default_factory=lambda: Refusal(503, "this node dials too often"))
    clock: float = 0.0
    """How far the hub's clock is ahead."""
    ca_status: int = 200
    requests: list[str] = field(default_factory=list)

    def join(self, *, begun: float = 0.0, node_id: str = NODE_ID) -> None:
        """Make the node's files, for a certificate that began so many seconds ago."""
        key, csr = make_key_and_csr()
        issued = self.authority.issue_node(csr, node_id, time.time() - begun)
        self.state.prepare()
        self.state.write(self.state.key, key)
        self.state.write(self.state.certificate, issued.chain_pem)
        self.state.write(self.state.trust, self.authority.root_pem)
        self.state.write(self.state.policy, msgspec.json.encode(default_policy()))
        save_config(self.state, self.config)

    @property
    def config(self) -> AgentConfig:
        return AgentConfig(
            node_id=NODE_ID, mesh_id=self.authority.mesh_id, name="shop-7", hubs=[self.url]
        )

    def token(self, pin: bytes | None = None) -> str:
        pin = pin or self.authority.root_spki_sha256
        return encode_token(JoinToken(hubs=(self.url,), pin=pin, secret=make_secret()))

    async def look(self, **options: object) -> dict[str, Finding]:
        findings = await examine(
            self.state, step_s=3.0, environ=options.pop("environ", {}), **options  # type: ignore[arg-type]
        )  # fmt: skip
        assert all("\n" not in finding.detail + finding.advice for finding in findings)
        return {finding.check: finding for finding in findings}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.splitlines()[0].decode())
        date = formatdate(time.time() + self.clock, usegmt=True)
        body = self.authority.root_pem
        answer = (
            f"HTTP/1.1 {self.ca_status} x\r\nDate: {date}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(answer.encode() + body)
        await writer.drain()
        writer.close()

    def upgrade(self, request: object) -> Refusal:
        self.requests.append("upgrade")
        return self.refusal


@asynccontextmanager
async def listening(routes: dict[bytes, Route], default: Route) -> AsyncIterator[str]:
    sockets = [socket.create_server(("127.0.0.1", 0))]
    sockets[0].setblocking(False)
    port = sockets[0].getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(Listener(routes, default).serve(sockets))
        yield f"https://127.0.0.1:{port}"
        serving.cancel()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    now = time.time()
    authority = Authority.open(tmp_path / "ca", now)
    hub, _ = keep_current(tmp_path / "tls", Role.HUB, authority, ["127.0.0.1"], now)
    pages, _ = keep_current(tmp_path / "tls", Role.PAGES, authority, ["127.0.0.1"], now)
    made = Lab(tmp_path, authority, StateDir(tmp_path / "agent"), hub, pages)

    def http() -> asyncio.BaseProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), made.serve)

    join_route = Route(hub_join_context(hub.chain, hub.key), http, Lane())
    tunnel_route = Route(
        hub_tunnel_context(hub.chain, hub.key, authority.trust_pem),
        lambda: accept_websocket(made.upgrade),
        Lane(),
        fast=True,
    )
    routes = {b"mooring-join/1": join_route, b"mooring/1": tunnel_route}
    async with listening(routes, join_route) as url:
        made.url = url
        made.join()
        yield made


def said(finding: Finding, status: str, *words: str) -> None:
    """The finding has a status, says these words, and what to do unless all is well."""
    assert finding.status == status, finding
    text = f"{finding.detail}: {finding.advice}"
    assert all(word in text for word in words), text
    assert bool(finding.advice) == (status in ("warning", "failed")), finding


async def test_a_healthy_node_is_called_healthy(lab: Lab) -> None:
    found = await lab.look()
    assert {check: finding.status for check, finding in found.items()} == {
        "directory": "ok", "files": "ok", "disk": "ok", "identity": "ok", "certificate": "ok",
        "validity": "ok", "policy": "ok", "agent": "warning", "way out": "ok", "name": "ok",
        "tcp": "ok", "tls": "ok", "hub": "ok", "clock": "ok", "tunnel": "failed",
    }  # fmt: skip
    assert lab.requests == ["GET /api/v1/ca HTTP/1.1", "upgrade"]


async def test_nothing_is_changed(lab: Lab) -> None:
    def snapshot() -> dict[str, tuple[int, int, bytes]]:
        paths = [lab.state.root, *lab.state.root.rglob("*")]
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_mode, b"" if path.is_dir()
                        else path.read_bytes())
            for path in paths
        }  # fmt: skip

    before = snapshot()
    await lab.look()
    assert snapshot() == before


async def test_no_finding_holds_a_secret(lab: Lab) -> None:
    token = lab.token()
    async with ProxyServer("http", ("ann", "pw-secret")).open() as proxy:
        findings = await lab.look(token_text=token, proxy=proxy.url)
        wrong = await lab.look(token_text=token, proxy=proxy.url_of("ann", "pw-other"))
    text = json.dumps([str(finding) for finding in (*findings.values(), *wrong.values())])
    for secret in ("pw-", "PRIVATE", token, token.removeprefix("moor1.")[-40:]):
        assert secret not in text


class TestHome:
    async def test_a_missing_directory(self, lab: Lab) -> None:
        lab.state = StateDir(lab.folder / "nowhere")
        said((await lab.look())["directory"], "failed", "does not exist", "mooring agent join")
        said((await lab.look(hub_url=lab.url))["directory"], "skipped", "not there yet")

    async def test_a_file_where_a_directory_should_be(self, lab: Lab) -> None:
        lab.state = StateDir(lab.state.key)
        said((await lab.look())["directory"], "failed", "not a directory")

    async def test_a_directory_that_others_can_read(self, lab: Lab) -> None:
        lab.state.root.chmod(0o755)
        said((await lab.look())["directory"], "failed", "mode 755", "chmod 700")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    async def test_another_users_directory(self, lab: Lab) -> None:
        place = Path(tempfile.mkdtemp())
        try:
            place.chmod(0o755)
            lab.state = StateDir(place)
            os.seteuid(65534)
            try:
                said((await lab.look())["directory"], "failed", "belongs to root")
                lab.state = StateDir(lab.folder / "agent")
                said((await lab.look())["directory"], "failed", "can't be looked at")
            finally:
                os.seteuid(0)
        finally:
            shutil.rmtree(place)

    async def test_files_that_others_can_read(self, lab: Lab) -> None:
        lab.state.key.chmod(0o644)
        said((await lab.look())["files"], "failed", "key.pem", "chmod 600")

    @pytest.fixture
    def mount(self, lab: Lab) -> Iterator[Callable[[str], None]]:
        mounted = []

        def make(options: str) -> None:
            argv = ["mount", "-t", "tmpfs", "-o", options, "mooring-test", str(lab.state.root)]
            made = subprocess.run(argv, capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"file systems can't be mounted here: {made.stderr.strip()}")
            mounted.append(lab.state.root)

        yield make
        for path in mounted:
            subprocess.run(["umount", str(path)], check=True)

    async def test_a_full_disk(self, lab: Lab, mount: Callable[[str], None]) -> None:
        mount("size=1m,mode=700")
        said((await lab.look())["disk"], "failed", "make room")

    async def test_a_disk_that_cannot_be_written(
        self, lab: Lab, mount: Callable[[str], None]
    ) -> None:
        mount("ro,mode=700")
        said((await lab.look())["disk"], "failed", "read-only")

    async def test_a_directory_without_an_identity(self, lab: Lab) -> None:
        lab.state.config.unlink()
        said((await lab.look())["identity"], "failed", "belongs to no hub yet", "agent join --hub")

    async def test_a_damaged_identity(self, lab: Lab) -> None:
        lab.state.config.write_bytes(b"{")
        said((await lab.look())["identity"], "failed", "damaged", "--force")

    @pytest.mark.parametrize("name", ["key", "certificate", "trust"])
    async def test_credentials_that_are_missing(self, lab: Lab, name: str) -> None:
        path: Path = getattr(lab.state, name)
        path.unlink()
        found = await lab.look()
        said(found["certificate"], "failed", path.name, "--force")
        said(found["tunnel"], "skipped")

    @pytest.mark.parametrize("name", ["key", "certificate", "trust"])
    async def test_credentials_that_are_damaged(self, lab: Lab, name: str) -> None:
        getattr(lab.state, name).write_bytes(b"-----BEGIN nothing")
        found = await lab.look()
        said(found["certificate"], "failed", "can't be", "--force")
        said(found["tunnel"], "skipped")

    async def test_a_key_that_is_not_the_certificates(self, lab: Lab) -> None:
        lab.state.write(lab.state.key, make_key_and_csr()[0])
        found = await lab.look()
        said(found["certificate"], "failed", "for another key")
        said(found["tunnel"], "skipped")

    async def test_another_nodes_certificate(self, lab: Lab) -> None:
        lab.join(node_id=str(uuid.uuid4()))
        said((await lab.look())["certificate"], "failed", "another node's")

    async def test_another_meshs_certificate(self, lab: Lab) -> None:
        other = Authority.open(lab.folder / "other", time.time())
        lab.state.write(lab.state.trust, other.root_pem)
        said((await lab.look())["certificate"], "failed", "not of this mesh")

    async def test_an_expired_certificate_and_one_of_the_future(self, lab: Lab) -> None:
        lab.join(begun=8 * DAY)
        said((await lab.look())["validity"], "failed", "it ended", "clock", "--force")
        lab.join(begun=-DAY)
        said((await lab.look())["validity"], "failed", "it begins", "set the clock")

    async def test_a_certificate_that_was_not_renewed(self, lab: Lab) -> None:
        lab.join(begun=6 * DAY)
        said((await lab.look())["validity"], "warning", "should have been renewed")

    async def test_a_policy_that_refuses_everything_because_it_is_broken(self, lab: Lab) -> None:
        lab.state.policy.write_bytes(b"{}")
        said((await lab.look())["policy"], "failed", "missing required field", "repair")
        lab.state.policy.unlink()
        said((await lab.look())["policy"], "failed", "is missing")
        lab.state.write(lab.state.policy, b"{}")
        lab.state.policy.chmod(0o666)
        said((await lab.look())["policy"], "failed", "writable by others")

    async def test_whether_an_agent_runs(self, lab: Lab) -> None:
        said((await lab.look())["agent"], "warning", "none runs", "start it")
        with lab.state.lock():
            said((await lab.look())["agent"], "ok", "runs")
        with lab.state.lock():
            pass  # the doctor let go


class TestAddress:
    async def test_an_address_that_is_none(self, lab: Lab) -> None:
        said((await lab.look(hub_url="hub.example"))["address"], "failed", "https://HOST", "--hub")

    async def test_no_address_at_all(self, lab: Lab) -> None:
        lab.state = StateDir(lab.folder / "nowhere")
        said((await lab.look())["address"], "failed", "--hub URL")

    async def test_a_token_that_is_damaged(self, lab: Lab) -> None:
        said((await lab.look(token_text="moor1.x"))["join token"], "failed", "damaged", "new one")

    async def test_before_joining_a_token_tells_whether_the_hub_is_the_right_one(
        self, lab: Lab
    ) -> None:
        lab.state = StateDir(lab.folder / "nowhere")
        found = await lab.look(token_text=lab.token())
        said(found["join token"], "ok", "only joining tells")
        said(found["hub"], "ok", "join token")
        said(found["tunnel"], "skipped")
        assert not lab.state.root.exists()
        wrong = await lab.look(token_text=lab.token(pin=b"x" * 32))
        said(wrong["hub"], "failed", "not the one that the join token names")


class TestWay:
    async def test_a_proxy_that_is_malformed(self, lab: Lab) -> None:
        found = await lab.look(environ={"HTTPS_PROXY": "gopher://p"})
        said(found["way out"], "failed", "HTTPS_PROXY")

    async def test_the_way_is_told(self, lab: Lab) -> None:
        said((await lab.look())["way out"], "ok", "direct", "no proxy is set")
        environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "127.0.0.0/8"}
        said((await lab.look(environ=environ))["way out"], "ok", "NO_PROXY names 127.0.0.0/8")

    async def test_everything_is_seen_through_a_proxy(self, lab: Lab) -> None:
        async with ProxyServer("socks5").open() as proxy:
            found = await lab.look(environ={"ALL_PROXY": proxy.url})
        said(found["way out"], "ok", "socks5://127.0.0.1", "ALL_PROXY")
        said(found["proxy"], "ok")
        said(found["hub"], "ok")

    async def test_a_proxy_that_refuses(self, lab: Lab) -> None:
        async with ProxyServer("http", ("ann", "pw")).open() as proxy:
            found = await lab.look(environ={"HTTPS_PROXY": proxy.url_of(None)})
        said(found["proxy"], "failed", "wants a user and password (407)", "USER:PASSWORD")
        assert "tls" not in found

    async def test_a_name_that_does_not_resolve(self, lab: Lab) -> None:
        found = await lab.look(hub_url="https://hub.invalid:8443")
        said(found["name"], "failed", "hub.invalid can't be resolved", "resolv.conf")
        assert "tcp" not in found

    async def test_a_closed_port(self, lab: Lab) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        found = await lab.look(hub_url=f"https://127.0.0.1:{port}")
        said(found["tcp"], "failed", "refuses", f"port {port}", "check the port")

    async def test_something_that_speaks_no_tls(self, lab: Lab) -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 mail.example ESMTP\r\n")
            await reader.read(1)
            writer.close()

        async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            said((await lab.look(hub_url=url))["tls"], "failed", "speaks no TLS", "the port")

    async def test_a_handshake_that_is_cut(self, lab: Lab) -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.transport.abort()

        async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            said((await lab.look(hub_url=url))["tls"], "failed", "cut off", "in between")


@asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[str]:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(nothing, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def plain_tls(files: ServerFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    return context


@pytest.fixture
def inspector(tmp_path: Path) -> ssl.SSLContext:
    """What a company's proxy shows that opens TLS: a certificate by a CA of its own."""
    key, chain = tmp_path / "corp.key", tmp_path / "corp.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/O=Corp/CN=Corp TLS Inspection", "-keyout", str(key),
         "-out", str(chain)],
        check=True, capture_output=True,
    )  # fmt: skip
    return plain_tls(ServerFiles(chain, key))


class TestHub:
    async def test_tls_inspection_is_named_by_its_issuer(
        self, lab: Lab, inspector: ssl.SSLContext
    ) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            inspector.maximum_version = version
            async with tls_server(inspector) as url:
                found = await lab.look(hub_url=url)
            said(found["tls"], "failed", "CN=Corp TLS Inspection", "pass untouched")

    async def test_tls_inspection_that_keeps_alpn_is_named_too(
        self, lab: Lab, inspector: ssl.SSLContext
    ) -> None:
        inspector.set_alpn_protocols(["mooring-join/1", "mooring/1"])
        async with tls_server(inspector) as url:
            found = await lab.look(hub_url=url)
        said(found["hub"], "failed", "CN=Corp TLS Inspection", "pass untouched")

    async def test_a_front_that_ends_tls_with_our_certificate(self, lab: Lab) -> None:
        async with tls_server(plain_tls(lab.pages)) as url:
            found = await lab.look(hub_url=url)
        said(found["tls"], "failed", "ALPN is none", "pass TCP through")

    async def test_another_meshs_hub(self, lab: Lab) -> None:
        other = Authority.open(lab.folder / "other", time.time())
        files, _ = keep_current(lab.folder / "o", Role.HUB, other, ["127.0.0.1"], time.time())
        async with tls_server(hub_join_context(files.chain, files.key)) as url:
            said((await lab.look(hub_url=url))["hub"], "failed", "another mesh's hub")

    async def test_a_certificate_of_the_mesh_that_is_not_the_hubs(self, lab: Lab) -> None:
        async with tls_server(hub_join_context(lab.pages.chain, lab.pages.key)) as url:
            said((await lab.look(hub_url=url))["hub"], "failed", "not our mesh's hub", "wrong_name")

    async def test_a_hub_whose_certificate_ended(self, lab: Lab) -> None:
        old = time.time() - 400 * DAY
        files, _ = keep_current(lab.folder / "old", Role.HUB, lab.authority, ["127.0.0.1"], old)
        async with tls_server(hub_join_context(files.chain, files.key)) as url:
            said((await lab.look(hub_url=url))["hub"], "failed", "expired", "clock")

    async def test_a_hub_that_says_nothing(self, lab: Lab) -> None:
        async with tls_server(hub_join_context(lab.hub.chain, lab.hub.key)) as url:
            said((await lab.look(hub_url=url))["hub"], "failed", "closed the connection", "log")

    async def test_a_hub_that_cannot_tell_its_ca(self, lab: Lab) -> None:
        lab.ca_status = 503
        said((await lab.look())["hub"], "failed", "answers 503", "/readyz")

    @pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
    async def test_clocks_that_disagree(self, lab: Lab, ahead: float) -> None:
        lab.clock = ahead
        word = "behind" if ahead > 0 else "ahead of"
        said((await lab.look())["clock"], "failed", word, "timedatectl")


class TestTunnel:
    @pytest.mark.parametrize(
        ("standing", "advice"),
        [
            (Standing.REVOKED, "an administrator revoked it"),
            (Standing.QUARANTINED, "two machines"),
            (Standing.UNKNOWN_NODE, "it was removed"),
            (Standing.EXPIRED, "join again"),
        ],
    )
    async def test_a_refusal_is_named(self, lab: Lab, standing: Standing, advice: str) -> None:
        lab.refusal = Refusal(403, str(NodeRefused(standing, NODE_ID)))
        said((await lab.look())["tunnel"], "failed", standing, advice)

    @pytest.mark.parametrize(
        ("refusal", "words"),
        [
            (Refusal(404, "tunnels are at /tunnel"), ("not at this address", "--public-url")),
            (Refusal(503, "this node dials too often: wait"), ("dials too often", "a minute")),
            (Refusal(500, "oh"), ("answers 500", "log")),
        ],
    )
    async def test_another_answer_is_named(
        self, lab: Lab, refusal: Refusal, words: tuple[str, ...]
    ) -> None:
        lab.refusal = refusal
        said((await lab.look())["tunnel"], "failed", *words)

    async def test_a_hub_that_does_not_take_our_certificate(self, lab: Lab) -> None:
        """Our CA was replaced at the tunnels' side only: TLS refuses after its handshake."""
        other = Authority.open(lab.folder / "other", time.time())
        context = hub_tunnel_context(lab.hub.chain, lab.hub.key, other.trust_pem)
        tunnel = Route(context, lambda: accept_websocket(lab.upgrade), Lane(), fast=True)
        join = Route(
            hub_join_context(lab.hub.chain, lab.hub.key),
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), lab.serve),
            Lane(),
        )
        async with listening({b"mooring-join/1": join, b"mooring/1": tunnel}, join) as url:
            found = await lab.look(hub_url=url)
        said(found["hub"], "ok")
        assert found["tunnel"].status == "failed"
        assert lab.requests == ["GET /api/v1/ca HTTP/1.1"]


async def test_the_lock_of_a_starting_agent_is_not_held(lab: Lab) -> None:
    await lab.look()
    descriptor = os.open(lab.state.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)
