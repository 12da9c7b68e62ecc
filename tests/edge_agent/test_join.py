"""Joining a hub on loopback with real TLS; `join` blocks, so it runs in a thread."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import Authority
from certs.contexts import agent_context
from certs.keys import make_key_and_csr
from certs.servers import Role as Face
from certs.tokens import JoinToken, decode_token, encode_token
from edge_agent.config import AgentConfig, load_config
from edge_agent.join import TRIES, JoinFailed, Reason, join
from edge_agent.policy import PolicyFile, default_policy
from edge_agent.state import StateDir
from tests.edge_agent.join_hub import JoinHub, join_hub
from tests.proxies import ProxyServer


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[JoinHub]:
    async with join_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path / "agent")


async def do_join(token: str, state: StateDir, **options: object) -> AgentConfig:
    return await asyncio.to_thread(join, token, state, **options)  # type: ignore[arg-type]


async def failure(token: str, state: StateDir, **options: object) -> JoinFailed:
    with pytest.raises(JoinFailed) as caught:
        await do_join(token, state, **options)
    return caught.value


async def test_a_node_joins_and_has_all_it_needs(hub: JoinHub, state: StateDir) -> None:
    token = await hub.token()
    config = await do_join(token, state, name="shop-7")
    assert config == load_config(state)
    assert (config.name, config.mesh_id) == ("shop-7", hub.authority.mesh_id)
    assert config.hubs == [hub.url]
    agent_context(state.certificate, state.key, state.trust.read_bytes())
    leaf = x509.load_pem_x509_certificate(state.certificate.read_bytes())
    identity = hub.authority.verify_node(leaf.public_bytes(Encoding.DER), time.time())
    hub.enrolment.check(identity)
    assert identity.node_id == config.node_id
    assert PolicyFile(state.policy).current() == default_policy()
    assert {path.stat().st_mode & 0o777 for path in state.root.iterdir()} == {0o600}
    assert [request.alpn for request in hub.requests] == ["mooring-join/1"] * 2


async def test_neither_secret_nor_key_leaves_by_the_untrusted_way(
    hub: JoinHub, state: StateDir
) -> None:
    token = await hub.token()
    await do_join(token, state)
    fetched, asked = hub.requests
    assert fetched.line == "GET /api/v1/ca HTTP/1.1"
    assert fetched.body == b""
    assert asked.line == "POST /api/v1/join HTTP/1.1"
    assert b"PRIVATE" not in asked.body


async def test_a_wrong_pin_is_refused_before_the_secret_is_sent(
    hub: JoinHub, state: StateDir, tmp_path: Path
) -> None:
    honest = decode_token(await hub.token())
    wrong = encode_token(JoinToken(hubs=honest.hubs, pin=b"x" * 32, secret=honest.secret))
    error = await failure(wrong, state)
    assert error.reason is Reason.WRONG_PIN
    assert "nothing secret was sent" in error.detail
    assert len(hub.requests) == 1
    assert list(state.root.iterdir()) == []


async def test_a_hub_that_shows_a_foreign_root_gets_no_secret(
    hub: JoinHub, state: StateDir, tmp_path: Path
) -> None:
    """Somebody in between who forwards the true root can't complete the second handshake."""
    true = Authority.open(tmp_path / "true", time.time())
    hub.ca_pem = true.root_pem
    honest = decode_token(await hub.token())
    token = encode_token(
        JoinToken(hubs=honest.hubs, pin=true.root_spki_sha256, secret=honest.secret)
    )
    error = await failure(token, state)
    assert error.reason is Reason.TLS
    assert "another mesh's hub" in error.detail
    assert len(hub.requests) == 1


async def test_another_certificate_of_the_mesh_gets_no_secret(
    state: StateDir, tmp_path: Path
) -> None:
    async with join_hub(tmp_path / "pages", Face.PAGES) as pages:
        error = await failure(await pages.token(), state)
        assert error.reason is Reason.TLS
        assert "wrong_name" in error.detail
        assert len(pages.requests) == 1


async def test_used_expired_and_unknown_tokens_are_told_apart(
    hub: JoinHub, state: StateDir, tmp_path: Path
) -> None:
    used = await hub.token()
    await do_join(used, StateDir(tmp_path / "first"))
    assert (await failure(used, state)).reason is Reason.TOKEN_USED
    expired = await hub.token(ttl_s=0.000001)
    assert (await failure(expired, state)).reason is Reason.TOKEN_EXPIRED
    known = decode_token(used)
    unknown = encode_token(JoinToken(hubs=known.hubs, pin=known.pin, secret=b"?" * 32))
    assert (await failure(unknown, state)).reason is Reason.TOKEN_UNKNOWN
    assert list(state.root.iterdir()) == []


async def test_what_is_no_token_is_refused_at_once(hub: JoinHub, state: StateDir) -> None:
    assert (await failure("hello", state)).reason is Reason.BAD_TOKEN
    assert not state.root.exists()


@pytest.mark.parametrize(
    "url", ["hub.example", "http://x", "https://x/y", "https://a@b", "https://"]
)
async def test_a_bad_address_is_refused(hub: JoinHub, state: StateDir, url: str) -> None:
    assert (await failure(await hub.token(), state, hub_url=url)).reason is Reason.BAD_ADDRESS


async def test_a_second_join_is_refused_unless_forced(hub: JoinHub, state: StateDir) -> None:
    first = await do_join(await hub.token(), state)
    files = {path: path.read_bytes() for path in state.root.iterdir()}
    error = await failure(await hub.token(), state)
    assert error.reason is Reason.ALREADY_JOINED
    assert repr(first.name) in error.detail
    assert {path: path.read_bytes() for path in state.root.iterdir()} == files
    again = await do_join(await hub.token(), state, force=True)
    assert again.node_id != first.node_id


async def test_an_expired_identity_is_replaced_without_force(hub: JoinHub, state: StateDir) -> None:
    first = await do_join(await hub.token(), state)
    _, csr = make_key_and_csr()
    old = hub.authority.issue_node(csr, first.node_id, time.time() - 8 * 86400)
    state.write(state.certificate, old.chain_pem)
    assert (await do_join(await hub.token(), state)).node_id != first.node_id


async def test_an_unreadable_identity_is_not_thrown_away(hub: JoinHub, state: StateDir) -> None:
    state.prepare()
    state.write(state.config, b"half")
    error = await failure(await hub.token(), state)
    assert error.reason is Reason.ALREADY_JOINED
    assert "--force" in error.detail


async def test_the_owners_policy_is_kept(hub: JoinHub, state: StateDir) -> None:
    state.prepare()
    mine = b'{"verbs": [], "users": [], "forward": []}'
    state.write(state.policy, mine)
    await do_join(await hub.token(), state)
    assert state.policy.read_bytes() == mine


async def test_a_busy_hub_is_asked_again_when_it_said(hub: JoinHub, state: StateDir) -> None:
    waits: list[float] = []
    hub.busy = 2
    await do_join(await hub.token(), state, wait=waits.append)
    assert waits == [7.0, 7.0]


async def test_a_hub_that_stays_busy_is_given_up(hub: JoinHub, state: StateDir) -> None:
    waits: list[float] = []
    hub.busy = 100
    error = await failure(await hub.token(), state, wait=waits.append)
    assert error.reason is Reason.THROTTLED
    assert len(waits) == TRIES - 1


async def test_a_silent_end_is_unreachable(hub: JoinHub, state: StateDir) -> None:
    hub.drop_joins = True
    assert (await failure(await hub.token(), state)).reason is Reason.UNREACHABLE


async def test_a_closed_port_is_unreachable_and_the_next_address_is_tried(
    hub: JoinHub, state: StateDir
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"https://127.0.0.1:{closed.getsockname()[1]}"
    token = decode_token(await hub.token())
    error = await failure(await hub.token(), state, hub_url=nobody)
    assert error.reason is Reason.UNREACHABLE
    both = JoinToken(hubs=(nobody, hub.url), pin=token.pin, secret=token.secret)
    config = await do_join(encode_token(both), state)
    assert config.hubs == [hub.url, nobody]


async def test_something_without_tls_is_named(hub: JoinHub, state: StateDir) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await failure(await hub.token(), state, hub_url=url)
    assert error.reason in (Reason.TLS, Reason.UNREACHABLE)


async def test_a_proxy_of_the_environment_is_used(
    hub: JoinHub, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ProxyServer("http").open() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        config = await do_join(await hub.token(), state)
    assert proxy.targets == [hub.url.removeprefix("https://")] * 2
    assert config.proxy is None


async def test_a_proxy_that_refuses_is_named(
    hub: JoinHub, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert (await failure(await hub.token(), state)).reason is Reason.PROXY
