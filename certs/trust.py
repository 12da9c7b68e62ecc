"""Trust in a mesh begins with a pin: the SHA-256 of its root's public key.

A joiner gets the root over a connection it doesn't trust and keeps only the certificate that the
pin names; from then on that root decides.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from certs.errors import CertsError, PinMismatch
from certs.keys import spki_sha256
from certs.names import parse_ca, uris_of

BUNDLE_LIMIT_BYTES = 32 * 1024


class NotAMesh(CertsError):
    """A certificate is not the root of a mesh."""

    def __str__(self) -> str:
        return "the certificate is not the root of a mesh"


def to_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """Encode certificates one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def pinned_root(bundle_pem: bytes, pin: bytes) -> x509.Certificate:
    """Find the self-signed certificate whose key has the SHA-256 `pin` (32 bytes).

    Raises:
        PinMismatch: none has it, or the bundle can't be read.
    """
    try:
        certificates = x509.load_pem_x509_certificates(bundle_pem[:BUNDLE_LIMIT_BYTES])
    except ValueError as error:
        raise PinMismatch(pin) from error
    for certificate in certificates:
        if _is_self_signed(certificate) and _has_pin(certificate, pin):
            return certificate
    raise PinMismatch(pin)


def mesh_of(root: x509.Certificate) -> str:
    """Return the mesh id that a root names.

    Raises:
        NotAMesh: it names none.
    """
    try:
        uris = uris_of(root)
    except ValueError as error:
        raise NotAMesh from error
    mesh_id = parse_ca(uris[0]) if len(uris) == 1 else None
    if mesh_id is None:
        raise NotAMesh
    return mesh_id


def load_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no certificate.
    """
    return x509.load_pem_x509_certificate(path.read_bytes())


def public_key_pin(certificate: x509.Certificate) -> str:
    """Return a certificate's key as curl's --pinnedpubkey wants it: `sha256//` and base64."""
    return "sha256//" + base64.b64encode(spki_sha256(certificate.public_key())).decode()


def _has_pin(certificate: x509.Certificate, pin: bytes) -> bool:
    return hmac.compare_digest(spki_sha256(certificate.public_key()), pin)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
