"""Why TLS with a hub failed, in words: something else listens, something in between, the clock.

A handshake that our root doesn't verify says nothing of who answered. So the connection is made
once more, trusting nobody and sending nothing, to name the issuer that was shown.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from cryptography import x509

from certs.contexts import explain_ssl_error
from certs.errors import Reason
from certs.names import uris_of
from edge_agent.hub_http import Seen, look, printable
from edge_agent.proxies import Route

LOOK_TIMEOUT_S = 10.0
_CLOCK = "compare this machine's clock with the hub's"


@dataclass(frozen=True, slots=True)
class TlsFault:
    """What is wrong, and what to do about it."""

    detail: str
    advice: str

    def __str__(self) -> str:
        return f"{self.detail}: {self.advice}"


async def tls_fault(
    hub: str, route: Route, error: ssl.SSLError, alpn: str, timeout_s: float = LOOK_TIMEOUT_S
) -> TlsFault:
    """Explain a failed handshake; looks again at who answers. Never raises."""
    reason = explain_ssl_error(error)
    if reason is Reason.EXPIRED or reason is Reason.NOT_YET_VALID:
        return TlsFault(f"the hub's certificate is {reason} by this machine's clock", _CLOCK)
    if reason not in (Reason.OTHER_CA, Reason.TLS):
        why = printable(error.reason or str(error))
        return TlsFault(f"TLS with {hub} failed ({reason}): {why}", "see the hub's log")
    try:
        seen = await look(hub, route, alpn, timeout_s)
    except ssl.SSLError:
        return not_tls(hub, error)
    except OSError:
        detail = f"{hub} ended the connection in the TLS handshake"
        advice = "something in between may cut what it can't read: let the connection pass"
        return TlsFault(detail, advice)
    return stranger(seen)


def not_tls(hub: str, error: ssl.SSLError) -> TlsFault:
    """Say that what answers speaks no TLS that we know."""
    what = printable(error.reason or str(error)).replace("_", " ").lower()
    detail = f"what answers at {hub} speaks no TLS ({what})"
    return TlsFault(detail, "check the address and the port")


def stranger(seen: Seen) -> TlsFault:
    """Say who answered instead of our hub."""
    if _is_of_a_mesh(seen.certificate):
        detail = f"another mesh's hub answers (its certificate is by {seen.issuer})"
        return TlsFault(detail, "check the address; a hub made anew needs every node to join again")
    detail = f"what answers shows a certificate by {seen.issuer}, which is not our hub's CA"
    advice = "if a proxy or firewall opens TLS there, have it let this address pass untouched"
    return TlsFault(detail, advice)


def _is_of_a_mesh(certificate: x509.Certificate | None) -> bool:
    try:
        uris = [] if certificate is None else uris_of(certificate)
    except ValueError:
        return False
    return any(uri.startswith("mooring://") for uri in uris)
