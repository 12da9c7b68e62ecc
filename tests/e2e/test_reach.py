"""Ways to reach a hub: two ports, the operator's own certificate, what browsers see."""

from __future__ import annotations

import hashlib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.servers import Role, keep_current
from tests.e2e.mesh import Mesh, wait_for

pytestmark = pytest.mark.e2e
Make = Callable[..., Mesh]


def fingerprint(port: int, alpn: str, cafile: str | None = None) -> str:
    """The SHA-256 of the certificate that a connection with this ALPN name is shown."""
    context = ssl.create_default_context(cafile=cafile)
    if cafile is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        return hashlib.sha256(connection.getpeercert(True) or b"").hexdigest()


def test_tunnels_on_a_port_of_their_own(fresh_mesh: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mesh = fresh_mesh(options=["--tunnel-port", str(port)])
    token = mesh.token()
    mesh.join("one", url=f"https://127.0.0.1:{port}", token=token)
    agent = mesh.start_agent("one")
    mesh.wait_status("one", "online")
    assert f"connected to https://127.0.0.1:{port}" in agent.text()
    mesh.run("exec", "one", "--", "true")


def test_the_operators_own_certificate_serves_the_pages_and_is_read_again(
    fresh_mesh: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("own")
    own = Authority.open(directory / "ca", time.time())
    files, _ = keep_current(directory, Role.PAGES, own, ["127.0.0.1"], time.time())
    root = directory / "root.pem"
    root.write_bytes(own.root_pem)
    options = ["--tls-cert", str(files.chain), "--tls-key", str(files.key)]
    mesh = fresh_mesh(options=options)
    first = fingerprint(mesh.port, "http/1.1", str(root))
    assert fingerprint(mesh.port, "mooring-join/1") != first
    mesh.run("nodes", env={"MOORING_CA": str(root)})
    files.chain.unlink()
    keep_current(directory, Role.PAGES, own, ["127.0.0.1", "localhost"], time.time())
    wait_for(lambda: fingerprint(mesh.port, "http/1.1", str(root)) != first)
    mesh.run("nodes", env={"MOORING_CA": str(root)})


def test_browsers_are_never_asked_for_a_certificate(mesh: Mesh) -> None:
    asked: list[bool] = []
    context = ssl.create_default_context(cafile=mesh.env["MOORING_CA"])
    context._msg_callback = lambda _c, way, _v, _t, kind, _d: asked.append(  # type: ignore[attr-defined]
        way == "read" and kind == 13  # CertificateRequest, RFC 8446 §4.3.2
    )
    with (
        socket.create_connection(("127.0.0.1", mesh.port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1"),
    ):
        pass
    assert asked
    assert not any(asked)


def test_state_directories_are_private(mesh: Mesh) -> None:
    for root in (mesh.state, mesh.agent_dir("web-1")):
        assert root.stat().st_mode & 0o777 == 0o700
        for path in root.rglob("*"):
            if path.is_file() and not path.is_relative_to(root / "packages"):
                assert path.stat().st_mode & 0o077 == 0, path


def test_the_token_is_not_in_any_command_line(mesh: Mesh) -> None:
    secret = mesh.env["MOORING_TOKEN"].encode()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret not in process.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
