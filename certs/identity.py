"""Who a certificate speaks for, and whether we believe it.

`verify_node` is the hub's check of an agent, `check_hub` the agent's check of a hub. Both run after
the TLS stack has verified the chain, before a byte of the application is read, and don't rely on
that: a leaf must be issued directly by the mesh's intermediate, so the depth is fixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs.errors import CertificateRefused, Reason
from certs.keys import spki_sha256
from certs.names import hub_uri, parse_node, uris_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a node's certificate says; hashes and serial in lower-case hex, times in seconds."""

    mesh_id: str
    node_id: str
    serial: str
    fingerprint: str
    """SHA-256 of the DER."""
    key_hash: str
    """SHA-256 of the public key's SPKI."""
    not_before: float
    not_after: float


def node_identity(certificate: x509.Certificate) -> NodeIdentity:
    """Read a node's identity without verifying anything.

    Raises:
        CertificateRefused: `wrong_name`, `malformed`.
    """
    uris = _parsed(lambda: uris_of(certificate))
    named = parse_node(uris[0]) if len(uris) == 1 else None
    if named is None:
        raise CertificateRefused(Reason.WRONG_NAME, ", ".join(uris)[:200] or "no URI")
    return NodeIdentity(
        mesh_id=named[0],
        node_id=named[1],
        serial=format(certificate.serial_number, "x"),
        fingerprint=hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        key_hash=_parsed(lambda: spki_sha256(certificate.public_key())).hex(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )


def verify_node(
    der: bytes | None, issuer: x509.Certificate, mesh_id: str, now: float
) -> NodeIdentity:
    """Verify the leaf that an agent presented: issuer, validity, usage, name, mesh.

    Args:
        der: what the TLS connection says the peer's certificate is; None when it showed none.
        issuer: the mesh's intermediate.
        mesh_id: our mesh.
        now: seconds since the epoch.

    Raises:
        CertificateRefused: with the reason.
    """
    certificate = _load(der)
    _check_issuer(certificate, issuer)
    _check_validity(certificate, now)
    _check_usage(certificate, ExtendedKeyUsageOID.CLIENT_AUTH)
    identity = node_identity(certificate)
    if identity.mesh_id != mesh_id:
        raise CertificateRefused(Reason.WRONG_MESH, identity.mesh_id)
    return identity


def check_hub(der: bytes | None, mesh_id: str) -> None:
    """Verify that a certificate whose chain the TLS stack verified is our mesh's hub's.

    Raises:
        CertificateRefused: `no_certificate`, `malformed`, `wrong_usage`, `wrong_name`.
    """
    certificate = _load(der)
    _check_usage(certificate, ExtendedKeyUsageOID.SERVER_AUTH)
    uris = _parsed(lambda: uris_of(certificate))
    if uris != [hub_uri(mesh_id)]:
        raise CertificateRefused(Reason.WRONG_NAME, ", ".join(uris)[:200] or "no URI")


def _load(der: bytes | None) -> x509.Certificate:
    if not der:
        raise CertificateRefused(Reason.NO_CERTIFICATE)
    return _parsed(lambda: x509.load_der_x509_certificate(der))


def _check_issuer(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise CertificateRefused(Reason.OTHER_CA) from error


def _check_validity(certificate: x509.Certificate, now: float) -> None:
    if now >= certificate.not_valid_after_utc.timestamp():
        until = certificate.not_valid_after_utc.isoformat()
        raise CertificateRefused(Reason.EXPIRED, f"it was valid until {until}")
    if now < certificate.not_valid_before_utc.timestamp():
        since = certificate.not_valid_before_utc.isoformat()
        raise CertificateRefused(Reason.NOT_YET_VALID, f"it is valid from {since}")


def _check_usage(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    extensions = _parsed(lambda: certificate.extensions)
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound as error:
        raise CertificateRefused(Reason.WRONG_USAGE, str(error)) from error
    if constraints.ca or list(usage) != [purpose]:
        raise CertificateRefused(Reason.WRONG_USAGE)


def _parsed(parse: Callable[[], T]) -> T:
    """Run a parser over what a peer sent: whatever it trips over is a malformed certificate."""
    try:
        return parse()
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.DuplicateExtension,
        x509.InvalidVersion,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise CertificateRefused(Reason.MALFORMED) from error
