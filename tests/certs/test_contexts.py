from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.contexts import (
    JOIN_ALPN,
    TUNNEL_ALPN,
    agent_context,
    explain_ssl_error,
    hub_join_context,
    hub_tunnel_context,
    join_context,
    untrusting_context,
)
from certs.errors import CertificateRefused, Reason
from certs.identity import check_hub
from certs.servers import Role, ServerFiles, keep_current
from tests.certs.conftest import Issue
from tests.certs.handshake import Side, handshake


@pytest.fixture
def hub_files(tmp_path: Path, authority: Authority, now: float) -> ServerFiles:
    return keep_current(tmp_path / "tls", Role.HUB, authority, ["hub.example"], now)[0]


@pytest.fixture
def tunnel_side(hub_files: ServerFiles, authority: Authority) -> ssl.SSLContext:
    return hub_tunnel_context(hub_files.chain, hub_files.key, authority.trust_pem)


def reason_of(side: Side) -> Reason:
    assert side.error is not None, "the handshake went through"
    return explain_ssl_error(side.error)


def test_an_agent_and_its_hub_know_each_other(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext, now: float
) -> None:
    node = issue(authority)
    agent, hub = handshake(agent_context(node.chain, node.key, authority.root_pem), tunnel_side)
    assert (agent.error, hub.error, agent.done, hub.done) == (None, None, True, True)
    assert agent.tls.version() == "TLSv1.3"
    assert agent.tls.selected_alpn_protocol() == hub.tls.selected_alpn_protocol() == TUNNEL_ALPN
    check_hub(agent.tls.getpeercert(binary_form=True), authority.mesh_id)
    identity = authority.verify_node(hub.tls.getpeercert(binary_form=True), now)
    assert identity.node_id == node.node_id


def test_no_session_can_be_resumed_past_its_certificate(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext
) -> None:
    node = issue(authority)
    agent, _ = handshake(agent_context(node.chain, node.key, authority.root_pem), tunnel_side)
    assert agent.tls.session is None or not agent.tls.session.has_ticket


def test_an_expired_certificate_is_named_on_both_sides(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext, now: float
) -> None:
    node = issue(authority, now - 8 * 86400)
    agent, hub = handshake(agent_context(node.chain, node.key, authority.root_pem), tunnel_side)
    assert reason_of(hub) is Reason.EXPIRED
    assert reason_of(agent) is Reason.EXPIRED


def test_a_certificate_from_the_future_is_named(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext, now: float
) -> None:
    node = issue(authority, now + 3600)
    _, hub = handshake(agent_context(node.chain, node.key, authority.root_pem), tunnel_side)
    assert reason_of(hub) is Reason.NOT_YET_VALID


def test_a_certificate_of_another_ca_is_named(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext, tmp_path: Path, now: float
) -> None:
    other = Authority.open(tmp_path / "other", now)
    node = issue(other)
    agent, hub = handshake(agent_context(node.chain, node.key, authority.root_pem), tunnel_side)
    assert reason_of(hub) is Reason.OTHER_CA
    assert reason_of(agent) is Reason.OTHER_CA


def test_no_certificate_is_named(authority: Authority, tunnel_side: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=authority.root_pem.decode())
    client, hub = handshake(context, tunnel_side)
    assert reason_of(hub) is Reason.NO_CERTIFICATE
    assert reason_of(client) is Reason.NO_CERTIFICATE


def test_a_hub_cannot_dial_as_a_node(
    authority: Authority, hub_files: ServerFiles, tunnel_side: ssl.SSLContext
) -> None:
    _, hub = handshake(
        agent_context(hub_files.chain, hub_files.key, authority.root_pem), tunnel_side
    )
    assert reason_of(hub) is Reason.WRONG_USAGE


def test_a_node_cannot_pose_as_the_hub(authority: Authority, issue: Issue) -> None:
    node, victim = issue(authority), issue(authority)
    impostor = hub_tunnel_context(node.chain, node.key, authority.trust_pem)
    agent, _ = handshake(agent_context(victim.chain, victim.key, authority.root_pem), impostor)
    assert reason_of(agent) is Reason.WRONG_USAGE


def test_a_hub_of_another_mesh_is_refused_by_the_agent(
    authority: Authority, issue: Issue, tmp_path: Path, now: float
) -> None:
    other = Authority.open(tmp_path / "other", now)
    files, _ = keep_current(tmp_path / "tls", Role.HUB, other, ["hub.example"], now)
    node = issue(authority)
    agent, _ = handshake(
        agent_context(node.chain, node.key, authority.root_pem),
        hub_tunnel_context(files.chain, files.key, other.trust_pem),
    )
    assert reason_of(agent) is Reason.OTHER_CA


def test_tls_1_2_is_refused(
    authority: Authority, issue: Issue, tunnel_side: ssl.SSLContext
) -> None:
    node = issue(authority)
    context = agent_context(node.chain, node.key, authority.root_pem)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    _, hub = handshake(context, tunnel_side)
    assert reason_of(hub) is Reason.TLS


def test_joining_needs_no_certificate(authority: Authority, hub_files: ServerFiles) -> None:
    server = hub_join_context(hub_files.chain, hub_files.key)
    for context in (untrusting_context(), join_context(authority.root_pem)):
        client, hub = handshake(context, server)
        assert (client.error, hub.error) == (None, None)
        assert client.tls.selected_alpn_protocol() == JOIN_ALPN


def test_the_pages_certificate_is_not_taken_for_the_hub(
    authority: Authority, tmp_path: Path, now: float
) -> None:
    files, _ = keep_current(tmp_path / "tls", Role.PAGES, authority, ["hub.example"], now)
    client, _ = handshake(
        join_context(authority.root_pem), hub_join_context(files.chain, files.key)
    )
    assert client.error is None
    with pytest.raises(CertificateRefused, match="wrong_name"):
        check_hub(client.tls.getpeercert(binary_form=True), authority.mesh_id)
