"""What the mesh's certificates look like: validity, usage, names (RFC 5280 §4.2).

Each function returns a signed certificate of one kind. Serials are random (159 bits), `not_before`
lies five minutes back so that a node with a slow clock accepts what was just issued, and no leaf
outlives its issuer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.names import ca_uri

CLOCK_SKEW_S = 300.0
AUTHORITY_LIFETIME_S = 10 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def root(key: ec.EllipticCurvePrivateKey, mesh_id: str, now: float) -> x509.Certificate:
    """Sign the root by itself."""
    name = _name(f"Mooring root {mesh_id[:8]}")
    builder = _builder(name, name, key.public_key(), now, now + AUTHORITY_LIFETIME_S)
    builder = _as_authority(builder, path_length=1)
    builder = builder.add_extension(_ca_name(mesh_id), critical=False)
    return builder.sign(key, hashes.SHA256())


def intermediate(
    key: ec.EllipticCurvePublicKey, issuer: Issuer, mesh_id: str, now: float
) -> x509.Certificate:
    """Sign the intermediate, which signs leaves and no CA, and lives as long as the root."""
    parent = issuer.certificate
    until = parent.not_valid_after_utc.timestamp()
    builder = _builder(
        _name(f"Mooring intermediate {mesh_id[:8]}"), parent.subject, key, now, until
    )
    builder = _as_authority(builder, path_length=0)
    builder = builder.add_extension(_ca_name(mesh_id), critical=False)
    return builder.add_extension(_key_id_of(parent), critical=False).sign(
        issuer.key, hashes.SHA256()
    )


def client_leaf(
    key: ec.EllipticCurvePublicKey, issuer: Issuer, uri: str, now: float, until: float
) -> x509.Certificate:
    """Sign a certificate that authenticates a TLS client."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return _leaf(
        key, issuer, "Mooring node", [x509.UniformResourceIdentifier(uri)], usage, now, until
    )


def server_leaf(
    key: ec.EllipticCurvePublicKey,
    issuer: Issuer,
    names: Sequence[x509.GeneralName],
    now: float,
    until: float,
) -> x509.Certificate:
    """Sign a certificate that authenticates a TLS server."""
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    return _leaf(key, issuer, "Mooring hub", names, usage, now, until)


def _leaf(
    key: ec.EllipticCurvePublicKey,
    issuer: Issuer,
    common_name: str,
    names: Sequence[x509.GeneralName],
    usage: x509.ExtendedKeyUsage,
    now: float,
    until: float,
) -> x509.Certificate:
    parent = issuer.certificate
    until = min(until, parent.not_valid_after_utc.timestamp())
    builder = (
        _builder(_name(common_name), parent.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(usage, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(_key_id_of(parent), critical=False)
    )
    return builder.sign(issuer.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: float, until: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_instant(now) - timedelta(seconds=CLOCK_SKEW_S))
        .not_valid_after(_instant(until))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _as_authority(builder: x509.CertificateBuilder, path_length: int) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return builder.add_extension(constraints, critical=True).add_extension(
        _key_usage(digital_signature=False), critical=True
    )


def _key_usage(*, digital_signature: bool) -> x509.KeyUsage:
    """Leaves sign handshakes, authorities sign certificates."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=not digital_signature,
        crl_sign=not digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_id_of(parent: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)


def _ca_name(mesh_id: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(ca_uri(mesh_id))])


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _instant(at: float) -> datetime:
    return datetime.fromtimestamp(int(at), UTC)
