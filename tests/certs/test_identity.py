from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from certs import templates
from certs.authority import Authority
from certs.errors import CertificateRefused, Reason
from certs.identity import check_hub, verify_node
from certs.keys import key_from_pem, make_key, make_key_and_csr
from tests.certs.conftest import Issue


def refusal(authority: Authority, der: bytes | None, now: float) -> Reason:
    with pytest.raises(CertificateRefused) as caught:
        authority.verify_node(der, now)
    return caught.value.reason


def server_der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def test_our_own_node_is_known_by_its_name(authority: Authority, issue: Issue, now: float) -> None:
    node = issue(authority)
    identity = authority.verify_node(node.der, now)
    assert (identity.mesh_id, identity.node_id) == (authority.mesh_id, node.node_id)
    assert len(identity.fingerprint) == len(identity.key_hash) == 64


def test_each_refusal_has_its_reason(
    authority: Authority, issue: Issue, now: float, tmp_path: Path
) -> None:
    stranger = issue(Authority.open(tmp_path / "other", now))
    node = issue(authority)
    assert refusal(authority, None, now) is Reason.NO_CERTIFICATE
    assert refusal(authority, b"", now) is Reason.NO_CERTIFICATE
    assert refusal(authority, b"0\x03abc", now) is Reason.MALFORMED
    assert refusal(authority, node.der[:-10], now) is Reason.MALFORMED
    assert refusal(authority, stranger.der, now) is Reason.OTHER_CA
    assert refusal(authority, node.der, now + 8 * 86400) is Reason.EXPIRED
    assert refusal(authority, node.der, now - 600) is Reason.NOT_YET_VALID


def test_expiry_counts_from_its_very_second(authority: Authority, issue: Issue, now: float) -> None:
    node = issue(authority)
    end = authority.verify_node(node.der, now).not_after
    authority.verify_node(node.der, end - 1)
    assert refusal(authority, node.der, end) is Reason.EXPIRED


def test_a_server_certificate_is_no_node(authority: Authority, now: float) -> None:
    hub = server_der(authority.issue_hub(make_key().public_key(), ["hub.example"], now))
    assert refusal(authority, hub, now) is Reason.WRONG_USAGE


def test_the_intermediate_itself_is_no_node(authority: Authority, now: float) -> None:
    der = authority.intermediate.public_bytes(Encoding.DER)
    assert refusal(authority, der, now) is Reason.OTHER_CA


def test_a_certificate_signed_by_a_node_is_refused(authority: Authority, now: float) -> None:
    """A node that plays CA is one level too deep."""
    key_pem, csr = make_key_and_csr()
    parent = x509.load_pem_x509_certificate(
        authority.issue_node(csr, str(uuid.uuid4()), now).chain_pem
    )
    issuer = templates.Issuer(parent, key_from_pem(key_pem))
    uri = f"mooring://{authority.mesh_id}/node/{uuid.uuid4()}"
    leaf = templates.client_leaf(make_key().public_key(), issuer, uri, now, now + 3600)
    assert refusal(authority, leaf.public_bytes(Encoding.DER), now) is Reason.OTHER_CA


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("mooring://{mesh}/hub", Reason.WRONG_NAME),
        ("mooring://{mesh}/node/abc", Reason.WRONG_NAME),
        ("mooring://{mesh}/node/{node}/x", Reason.WRONG_NAME),
        ("mooring://{mesh}/node/{node}%0a", Reason.WRONG_NAME),
        ("https://{mesh}/node/{node}", Reason.WRONG_NAME),
        ("mooring://0123456789abcdef0123456789abcdef/node/{node}", Reason.WRONG_MESH),
    ],
)
def test_only_the_exact_name_of_this_mesh_is_taken(now: float, uri: str, reason: Reason) -> None:
    key, mesh_id = make_key(), "f" * 32
    root = templates.root(key, mesh_id, now)
    issuer = templates.Issuer(root, key)
    name = uri.format(mesh=mesh_id, node=uuid.uuid4())
    leaf = templates.client_leaf(make_key().public_key(), issuer, name, now, now + 60)
    with pytest.raises(CertificateRefused) as caught:
        verify_node(leaf.public_bytes(Encoding.DER), root, mesh_id, now)
    assert caught.value.reason is reason


def test_a_certificate_without_extensions_is_refused(now: float) -> None:
    key, mesh_id = make_key(), "f" * 32
    root = templates.root(key, mesh_id, now)
    bare = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(make_key().public_key())
        .serial_number(1)
        .not_valid_before(root.not_valid_before_utc)
        .not_valid_after(root.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    with pytest.raises(CertificateRefused) as caught:
        verify_node(bare.public_bytes(Encoding.DER), root, mesh_id, now)
    assert caught.value.reason is Reason.WRONG_USAGE


def test_a_hub_is_known_by_its_name_and_usage(
    authority: Authority, issue: Issue, now: float
) -> None:
    hub = server_der(authority.issue_hub(make_key().public_key(), ["hub.example"], now))
    check_hub(hub, authority.mesh_id)
    pages = server_der(authority.issue_pages(make_key().public_key(), ["hub.example"], now))
    cases = [
        (None, authority.mesh_id, Reason.NO_CERTIFICATE),
        (hub, "0" * 32, Reason.WRONG_NAME),
        (pages, authority.mesh_id, Reason.WRONG_NAME),
        (issue(authority).der, authority.mesh_id, Reason.WRONG_USAGE),
    ]
    for der, mesh_id, reason in cases:
        with pytest.raises(CertificateRefused) as caught:
            check_hub(der, mesh_id)
        assert caught.value.reason is reason


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, bytes]:
    authority = Authority.open(tmp_path_factory.mktemp("genuine") / "ca", 1e9)
    issued = authority.issue_node(make_key_and_csr()[1], str(uuid.uuid4()), 1e9)
    leaf = x509.load_pem_x509_certificate(issued.chain_pem)
    return authority, leaf.public_bytes(Encoding.DER)


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_refused(
    genuine: tuple[Authority, bytes], position: int, bit: int
) -> None:
    authority, der = genuine
    damaged = bytearray(der)
    damaged[position % len(der)] ^= 1 << bit
    with pytest.raises(CertificateRefused):
        authority.verify_node(bytes(damaged), 1e9)
