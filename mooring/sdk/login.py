"""From a password to an API token, and from an unknown hub to a trusted one.

The rule it guards: a password is sent only over a connection that was verified, by the system's
trust, by a CA file, or by a CA whose fingerprint a person has compared.
"""

from __future__ import annotations

import hashlib

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mooring.sdk import calls, exchange
from mooring.sdk.call import BASE
from mooring.sdk.client import Client
from mooring.sdk.errors import HubNotTrusted
from mooring.sdk.identity import Identity
from mooring.sdk.models import User


def fetch_ca(url: str) -> str:
    """Get the hub's CA certificate (PEM) without trust: compare `fingerprint` before using it.

    Raises:
        HubUnreachable: no hub answers there, or none with a CA of its own.
    """
    try:
        with httpx.Client(verify=False, trust_env=False, timeout=exchange.TIMEOUT) as http:  # noqa: S501  # the fingerprint is compared
            response = http.get(f"{url}{BASE}/ca")
    except httpx.HTTPError as error:
        raise exchange.failure_of(error, url) from error
    exchange.check(response.status_code, response.content, response.headers)
    fingerprint(response.text)
    return response.text


def fingerprint(ca_pem: str) -> str:
    """SHA-256 of the CA's public key (its SubjectPublicKeyInfo), hex: what join tokens pin too.

    Raises:
        HubNotTrusted: it isn't a certificate.
    """
    try:
        key = x509.load_pem_x509_certificate(ca_pem.encode()).public_key()
    except ValueError as error:
        raise HubNotTrusted(
            "that address", "what it gives as its CA isn't a certificate"
        ) from error
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def create_identity(
    unsigned: Identity, username: str, password: str, token_name: str, ttl_s: float | None = None
) -> tuple[Identity, User]:
    """Sign in by password, make an API token of the user's own role, sign out again.

    Args:
        unsigned: the hub and its CA, without a token.
        username: who signs in.
        password: theirs.
        token_name: how the token is called in the list of tokens.
        ttl_s: how long the token lives; None: until it is deleted.

    Raises:
        MooringError: the hub said no.
    """
    origin = {"Origin": unsigned.url}
    with Client(unsigned) as hub:
        session = hub.call(calls.sign_in(username, password), origin)
        proof = {**origin, "X-CSRF-Token": session.csrf}
        made = hub.call(calls.create_api_token(token_name, session.user.role, ttl_s), proof)
        hub.call(calls.sign_out(), proof)
    identity = Identity(url=unsigned.url, token=made.token, ca_pem=unsigned.ca_pem)
    return identity, session.user
