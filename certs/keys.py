"""Private keys, requests and their hashes: ECDSA P-256 and nothing else.

A key is made where it is used and never leaves that machine; what travels is a signing request,
whose names mean nothing: whoever signs decides the name.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from certs.errors import RequestRefused

REQUEST_LIMIT_BYTES = 8192


def make_key() -> ec.EllipticCurvePrivateKey:
    """Make a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Encode a key as unencrypted PKCS #8: its protection is the file's mode."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def key_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Decode a key.

    Raises:
        ValueError: it is no unencrypted P-256 key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_p256(key.public_key()):
        raise ValueError("not an ECDSA P-256 key")
    return key


def make_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Make a signing request in PEM; it proves that its sender holds the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def make_key_and_csr() -> tuple[bytes, bytes]:
    """Make a new key and a signing request for it, both PEM."""
    key = make_key()
    return key_to_pem(key), make_request(key)


def read_request(csr_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a signing request proves.

    Raises:
        RequestRefused: it can't be read, its signature is wrong, or the key is not P-256.
    """
    if len(csr_pem) > REQUEST_LIMIT_BYTES:
        raise RequestRefused(f"larger than {REQUEST_LIMIT_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key = request.public_key()
        genuine = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise RequestRefused("it can't be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p256(key):
        raise RequestRefused("its key is not ECDSA P-256")
    if not genuine:
        raise RequestRefused("its signature is wrong")
    return key


def spki_sha256(key: CertificatePublicKeyTypes) -> bytes:
    """Hash a public key's SubjectPublicKeyInfo: 32 bytes, what pins compare (RFC 7469 §2.4)."""
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).digest()


def _is_p256(key: ec.EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, ec.SECP256R1)
