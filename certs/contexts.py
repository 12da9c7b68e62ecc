"""TLS contexts of the mesh: TLS 1.3 only, one ALPN name each, our root and nothing else.

Agents verify the hub's chain against the mesh's root but not a host name, because hubs move:
whoever uses `agent_context` or `join_context` calls `certs.identity.check_hub` before it sends
anything. `num_tickets = 0` at the hub: without resumption every connection shows its certificate
again, so that expiry always counts.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from certs.errors import Reason

TUNNEL_ALPN = "mooring/1"
JOIN_ALPN = "mooring-join/1"


def agent_context(chain: Path, key: Path, trust_pem: bytes) -> ssl.SSLContext:
    """Build the agent's side of a tunnel.

    Raises:
        OSError: a file can't be read; `ssl.SSLError` (one of them): certificate and key don't fit.
    """
    context = _client(TUNNEL_ALPN)
    _trust(context, trust_pem)
    context.load_cert_chain(chain, key)
    return context


def join_context(trust_pem: bytes) -> ssl.SSLContext:
    """Build the joiner's side once it has the pinned root."""
    context = _client(JOIN_ALPN)
    _trust(context, trust_pem)
    return context


def untrusting_context() -> ssl.SSLContext:
    """Build the joiner's side for fetching the root, which its pin verifies; it keeps no secret."""
    context = _client(JOIN_ALPN)
    context.verify_mode = ssl.CERT_NONE
    return context


def hub_tunnel_context(chain: Path, key: Path, trust_pem: bytes) -> ssl.SSLContext:
    """Build the hub's side of tunnels: it demands a client certificate of our CA."""
    context = _server(chain, key, TUNNEL_ALPN)
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(context, trust_pem)
    return context


def hub_join_context(chain: Path, key: Path) -> ssl.SSLContext:
    """Build the hub's side of joining: no client certificate, the secret speaks."""
    return _server(chain, key, JOIN_ALPN)


def explain_ssl_error(error: ssl.SSLError) -> Reason:
    """Name why a handshake failed, on either side of it.

    Our own verification leaves OpenSSL's verify code, the peer's arrives as an alert; what has no
    name is `Reason.TLS`.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY_CODES.get(error.verify_code, Reason.TLS)
    return _SSL_REASONS.get(error.reason or "", Reason.TLS)


_VERIFY_CODES = {
    # X509_V_ERR_… of openssl/x509_vfy.h
    2: Reason.OTHER_CA,  # UNABLE_TO_GET_ISSUER_CERT
    7: Reason.OTHER_CA,  # CERT_SIGNATURE_FAILURE
    9: Reason.NOT_YET_VALID,  # CERT_NOT_YET_VALID
    10: Reason.EXPIRED,  # CERT_HAS_EXPIRED
    18: Reason.OTHER_CA,  # DEPTH_ZERO_SELF_SIGNED_CERT
    19: Reason.OTHER_CA,  # SELF_SIGNED_CERT_IN_CHAIN
    20: Reason.OTHER_CA,  # UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    21: Reason.OTHER_CA,  # UNABLE_TO_VERIFY_LEAF_SIGNATURE
    22: Reason.OTHER_CA,  # CERT_CHAIN_TOO_LONG
    23: Reason.REVOKED,  # CERT_REVOKED
    24: Reason.OTHER_CA,  # INVALID_CA
    25: Reason.OTHER_CA,  # PATH_LENGTH_EXCEEDED
    26: Reason.WRONG_USAGE,  # INVALID_PURPOSE
    30: Reason.OTHER_CA,  # AKID_SKID_MISMATCH
    79: Reason.OTHER_CA,  # INVALID_CA (as OpenSSL 3 numbers it)
    85: Reason.OTHER_CA,  # MISSING_AUTHORITY_KEY_IDENTIFIER
    92: Reason.OTHER_CA,  # CA_CERT_MISSING_KEY_USAGE
}
_SSL_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": Reason.NO_CERTIFICATE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": Reason.NO_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": Reason.OTHER_CA,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": Reason.EXPIRED,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": Reason.REVOKED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": Reason.WRONG_USAGE,
    "SSLV3_ALERT_BAD_CERTIFICATE": Reason.MALFORMED,
}


def _client(alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.set_alpn_protocols([alpn])
    return context


def _server(chain: Path, key: Path, alpn: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols([alpn])
    context.load_cert_chain(chain, key)
    return context


def _trust(context: ssl.SSLContext, trust_pem: bytes) -> None:
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=trust_pem.decode("ascii"))
