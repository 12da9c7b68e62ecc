"""Strangers at the real listener, with both of its TLS stacks: each refusal has a name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
import uuid
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.contexts import agent_context, explain_ssl_error, hub_tunnel_context
from certs.errors import Reason
from certs.keys import make_key_and_csr
from certs.servers import Role, keep_current
from hub.admission import Lane
from hub.listener import Listener, Route, bind


class Silent(asyncio.Protocol):
    """Must never be told of a byte."""

    def __init__(self, heard: list[bytes]) -> None:
        self.heard = heard

    def data_received(self, data: bytes) -> None:
        self.heard.append(data)


def contexts(folder: Path, authority: Authority) -> list[tuple[ssl.SSLContext, Reason]]:
    """Agents that must be refused, and why."""
    now = time.time()
    other = Authority.open(folder / "other", now)
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname = False
    bare.load_verify_locations(cadata=authority.root_pem.decode())
    bare.set_alpn_protocols(["mooring/1"])
    made = [(bare, Reason.NO_CERTIFICATE)]
    for signer, at, reason in (
        (authority, now - 8 * 86400, Reason.EXPIRED),
        (authority, now + 86400, Reason.NOT_YET_VALID),
        (other, now, Reason.OTHER_CA),
    ):
        key, csr = make_key_and_csr()
        issued = signer.issue_node(csr, str(uuid.uuid4()), at)
        (folder / "key.pem").write_bytes(key)
        (folder / "chain.pem").write_bytes(issued.chain_pem)
        context = agent_context(folder / "chain.pem", folder / "key.pem", authority.root_pem)
        made.append((context, reason))
    return made


@pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "aiofastnet"])
async def test_a_refused_certificate_is_named_and_nothing_is_read(
    tmp_path: Path, fast: bool
) -> None:
    authority = Authority.open(tmp_path / "ca", time.time())
    files, _ = keep_current(tmp_path / "tls", Role.HUB, authority, [], time.time())
    named: asyncio.Queue[Reason] = asyncio.Queue()
    heard: list[bytes] = []
    route = Route(
        hub_tunnel_context(files.chain, files.key, authority.trust_pem),
        lambda: Silent(heard),
        Lane(),
        fast=fast,
        on_tls_error=lambda _, error: named.put_nowait(explain_ssl_error(error)),
    )
    sockets = bind("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(Listener({b"mooring/1": route}, route).serve(sockets))
        for context, reason in contexts(tmp_path, authority):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=context, server_hostname="hub"
                )
                writer.write(b"an application byte")
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(10):
                assert await named.get() is reason
        serving.cancel()
    assert heard == []
