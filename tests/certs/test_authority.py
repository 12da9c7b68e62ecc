from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import Authority
from certs.errors import AuthorityDamaged, RequestRefused
from certs.keys import make_key, make_key_and_csr

FILES = {"root.pem", "root-key.pem", "intermediate.pem", "intermediate-key.pem"}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_ca_has_private_files_and_opens_again_as_the_same(tmp_path: Path, now: float) -> None:
    old_mask = os.umask(0)
    try:
        first = Authority.open(tmp_path / "ca", now)
    finally:
        os.umask(old_mask)
    again = Authority.open(tmp_path / "ca", now + 1)
    assert {path.name for path in (tmp_path / "ca").iterdir()} == FILES
    assert mode(tmp_path / "ca") == 0o700
    assert {mode(path) for path in (tmp_path / "ca").iterdir()} == {0o600}
    assert again.mesh_id == first.mesh_id
    assert again.root_spki_sha256 == first.root_spki_sha256
    assert len(first.root_spki_sha256) == 32


def test_two_cas_are_different_meshes(tmp_path: Path, now: float) -> None:
    one, other = Authority.open(tmp_path / "a", now), Authority.open(tmp_path / "b", now)
    assert one.mesh_id != other.mesh_id
    assert one.root_spki_sha256 != other.root_spki_sha256


KILLED_AT = """
import os, signal, sys
from pathlib import Path
from certs import authority
left = int(sys.argv[2])
def dying(function):
    def step(*arguments):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return function(*arguments)
    return step
authority.write_private = dying(authority.write_private)
authority.make_private_directory = dying(authority.make_private_directory)
authority.sync_directory = dying(authority.sync_directory)
authority.Authority.open(Path(sys.argv[1]), 1e9)
"""


@pytest.mark.parametrize("step", range(6))
def test_killed_at_any_step_it_is_whole_or_absent(tmp_path: Path, now: float, step: int) -> None:
    directory = tmp_path / "ca"
    killed = subprocess.run([sys.executable, "-c", KILLED_AT, str(directory), str(step)])
    assert killed.returncode == -9
    assert not directory.exists() or {path.name for path in directory.iterdir()} == FILES
    Authority.open(directory, now)
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


@pytest.mark.parametrize("name", ["root.pem", "intermediate.pem", "intermediate-key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff" * 100])
def test_a_damaged_ca_is_refused_and_not_replaced(
    tmp_path: Path, authority: Authority, now: float, name: str, content: bytes | None
) -> None:
    path = tmp_path / "ca" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AuthorityDamaged, match="can't be used"):
        Authority.open(tmp_path / "ca", now)
    assert path.exists() == (content is not None)


def test_a_mixed_up_ca_is_refused(tmp_path: Path, authority: Authority, now: float) -> None:
    Authority.open(tmp_path / "other", now)
    (tmp_path / "other" / "intermediate-key.pem").rename(tmp_path / "ca" / "intermediate-key.pem")
    with pytest.raises(AuthorityDamaged, match="key is not its certificate's"):
        Authority.open(tmp_path / "ca", now)


def test_a_node_certificate_says_what_it_must(authority: Authority, now: float) -> None:
    node_id = str(uuid.uuid4())
    issued = authority.issue_node(make_key_and_csr()[1], node_id, now)
    leaf, intermediate = x509.load_pem_x509_certificates(issued.chain_pem)
    leaf.verify_directly_issued_by(intermediate)
    intermediate.verify_directly_issued_by(authority.root)

    def value(kind: type) -> object:
        return leaf.extensions.get_extension_for_class(kind).value

    uri = f"mooring://{authority.mesh_id}/node/{node_id}"
    assert list(value(x509.SubjectAlternativeName)) == [x509.UniformResourceIdentifier(uri)]  # type: ignore[call-overload]
    assert value(x509.ExtendedKeyUsage) == x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    assert value(x509.BasicConstraints) == x509.BasicConstraints(ca=False, path_length=None)
    assert isinstance(value(x509.AuthorityKeyIdentifier), x509.AuthorityKeyIdentifier)
    assert isinstance(value(x509.SubjectKeyIdentifier), x509.SubjectKeyIdentifier)
    lifetime = leaf.not_valid_after_utc.timestamp() - int(now)
    assert lifetime == 7 * 86400
    assert int(now) - leaf.not_valid_before_utc.timestamp() == 300
    assert issued.identity.node_id == node_id
    assert int(issued.identity.serial, 16) == leaf.serial_number
    constraints = intermediate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert constraints.path_length == 0


def test_names_in_a_request_are_ignored(authority: Authority, now: float) -> None:
    wanted = x509.UniformResourceIdentifier(f"mooring://{authority.mesh_id}/hub")
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root of all")]))
        .add_extension(x509.SubjectAlternativeName([wanted]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(make_key(), hashes.SHA256())
    )
    pem = request.public_bytes(serialization.Encoding.PEM)
    leaf = x509.load_pem_x509_certificate(
        authority.issue_node(pem, str(uuid.uuid4()), now).chain_pem
    )
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert wanted not in list(names)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "root of all" not in leaf.subject.rfc4514_string()


def request_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_other_kinds_of_keys_are_refused(authority: Authority, now: float) -> None:
    keys: list[rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
    ]
    for key in keys:
        with pytest.raises(RequestRefused, match="P-256"):
            authority.issue_node(request_pem(key), str(uuid.uuid4()), now)


def test_a_request_signed_by_another_key_is_refused(authority: Authority, now: float) -> None:
    request = x509.load_pem_x509_csr(request_pem(make_key()))
    other = x509.load_pem_x509_csr(request_pem(make_key()))
    der = request.public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(
        der.replace(request.tbs_certrequest_bytes, other.tbs_certrequest_bytes)
    )
    with pytest.raises(RequestRefused, match=r"signature|read"):
        authority.issue_node(
            forged.public_bytes(serialization.Encoding.PEM), str(uuid.uuid4()), now
        )


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n",
        b"A" * 10_000,
        b"\xff\x00",
    ],
)
def test_what_is_no_request_is_refused(authority: Authority, now: float, pem: bytes) -> None:
    with pytest.raises(RequestRefused):
        authority.issue_node(pem, str(uuid.uuid4()), now)


def test_a_node_id_must_be_a_uuid(authority: Authority, now: float) -> None:
    for wrong in ("", "x", "../hub", str(uuid.uuid4()).upper() + "\n"):
        with pytest.raises(ValueError, match="node id"):
            authority.issue_node(make_key_and_csr()[1], wrong, now)


def test_a_leaf_never_outlives_the_ca(authority: Authority, now: float) -> None:
    late = authority.root.not_valid_after_utc.timestamp() - 3600
    issued = authority.issue_node(make_key_and_csr()[1], str(uuid.uuid4()), late)
    assert issued.identity.not_after == authority.root.not_valid_after_utc.timestamp()


def test_pages_carry_host_names_and_addresses(authority: Authority, now: float) -> None:
    hosts = ["hub.example", "192.0.2.1", "[2001:db8::1]", "hub.example"]
    pem = authority.issue_pages(make_key().public_key(), hosts, now)
    leaf = x509.load_pem_x509_certificate(pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["192.0.2.1", "2001:db8::1"]
    with pytest.raises(ValueError, match="needs a host"):
        authority.issue_pages(make_key().public_key(), [], now)
