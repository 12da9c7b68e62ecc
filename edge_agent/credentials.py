"""Certificates that the hub hands out, checked before they replace anything.

What arrives must be for our key, signed by a root we trust through one intermediate, valid now, and
name our node: a hub's mistake must not cost the node the certificate that works.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import CertificateRefused
from certs.identity import NodeIdentity, verify_node
from certs.keys import key_from_pem, spki_sha256


class CredentialRefused(Exception):
    """A certificate from the hub is not one for us."""


def check_certificate(
    chain_pem: bytes, key_pem: bytes, roots: Sequence[x509.Certificate], mesh_id: str, now: float
) -> NodeIdentity:
    """Verify a chain of leaf and intermediate for our key; returns whom it names.

    Raises:
        CredentialRefused: with what is wrong.
    """
    try:
        leaf, intermediate = x509.load_pem_x509_certificates(chain_pem)
        key = key_from_pem(key_pem)
    except ValueError as error:
        raise CredentialRefused("it isn't a chain of two certificates for a P-256 key") from error
    if not any(_signed(intermediate, root) for root in roots):
        raise CredentialRefused("its issuer is not of this mesh")
    try:
        identity = verify_node(leaf.public_bytes(Encoding.DER), intermediate, mesh_id, now)
    except CertificateRefused as error:
        raise CredentialRefused(str(error)) from error
    if identity.key_hash != spki_sha256(key.public_key()).hex():
        raise CredentialRefused("it is for another key")
    return identity


def read_roots(trust_pem: bytes) -> list[x509.Certificate]:
    """Return the self-signed certificates of a bundle.

    Raises:
        CredentialRefused: it can't be read.
    """
    try:
        certificates = x509.load_pem_x509_certificates(trust_pem)
    except ValueError as error:
        raise CredentialRefused("the trust bundle can't be read") from error
    return [certificate for certificate in certificates if _signed(certificate, certificate)]


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
