from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certs.authority import Authority
from certs.errors import PinMismatch
from certs.keys import make_key
from certs.trust import NotAMesh, mesh_of, pinned_root, public_key_pin


def test_the_pin_finds_the_root_in_a_bundle(
    authority: Authority, tmp_path: Path, now: float
) -> None:
    other = Authority.open(tmp_path / "other", now)
    found = pinned_root(other.trust_pem + authority.trust_pem, authority.root_spki_sha256)
    assert found == authority.root
    assert mesh_of(found) == authority.mesh_id


def test_a_bundle_without_the_pinned_root_is_refused(
    authority: Authority, tmp_path: Path, now: float
) -> None:
    other = Authority.open(tmp_path / "other", now)
    for bundle in (other.trust_pem, b"", b"nonsense", b"\xff" * 100):
        with pytest.raises(PinMismatch):
            pinned_root(bundle, authority.root_spki_sha256)


def test_an_intermediate_is_no_root_even_when_pinned(authority: Authority) -> None:
    intermediate = authority.intermediate.public_bytes(Encoding.PEM)
    spki = authority.intermediate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(PinMismatch):
        pinned_root(intermediate, hashlib.sha256(spki).digest())


def test_only_a_root_names_a_mesh(authority: Authority, now: float) -> None:
    pem = authority.issue_hub(make_key().public_key(), [], now)
    with pytest.raises(NotAMesh):
        mesh_of(x509.load_pem_x509_certificate(pem))


def test_the_pin_is_written_as_curl_reads_it(authority: Authority) -> None:
    assert public_key_pin(authority.root).startswith("sha256//")
    assert len(public_key_pin(authority.root)) == len("sha256//") + 44
