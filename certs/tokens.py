"""The join token: what a new node needs to find the hub, to recognise it and to be let in once.

`moor1.` + base64url without padding of the msgpack map `{hubs, pin, secret}`. Hubs are https URLs,
`pin` is the SHA-256 of the root's SPKI, the secret is 32 random bytes; the hub stores only
`hash_secret` of it. A token is passed by file, stdin or environment, never in argv or a URL.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from certs.errors import TokenMalformed

PREFIX = "moor1."
SECRET_BYTES = 32
_LIMIT_CHARACTERS = 4096

HubUrl = Annotated[str, Meta(pattern=r"\Ahttps://[A-Za-z0-9.:\[\]-]{1,255}\Z")]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """A join token, decoded."""

    hubs: Annotated[tuple[HubUrl, ...], Meta(min_length=1, max_length=8)]
    pin: _Bytes32
    secret: _Bytes32

    def __repr__(self) -> str:
        """Say what it is for, and never the secret."""
        return f"JoinToken(hubs={self.hubs!r}, pin={self.pin.hex()!r})"


def make_secret() -> bytes:
    """Make the 32 random bytes of a token."""
    return secrets.token_bytes(SECRET_BYTES)


def hash_secret(secret: bytes) -> str:
    """Hash a secret for the store: hex SHA-256, enough for 256 random bits."""
    return hashlib.sha256(secret).hexdigest()


def secret_to_text(secret: bytes) -> str:
    """Encode a secret for JSON."""
    return base64.urlsafe_b64encode(secret).decode().rstrip("=")


def secret_from_text(text: str) -> bytes:
    """Decode a secret.

    Raises:
        TokenMalformed: it isn't 32 bytes in base64url.
    """
    secret = _decode(text)
    if len(secret) != SECRET_BYTES:
        raise TokenMalformed("its secret has the wrong length")
    return secret


def encode_token(token: JoinToken) -> str:
    """Encode a token as the line that is handed to the new node."""
    return PREFIX + secret_to_text(msgspec.msgpack.encode(token))


def decode_token(text: str) -> JoinToken:
    """Decode a token; white space around it is ignored.

    Raises:
        TokenMalformed: with what is wrong, without the text.
    """
    text = text.strip()
    if not text:
        raise TokenMalformed("it is empty")
    if not text.startswith(PREFIX):
        raise TokenMalformed(f"it doesn't start with {PREFIX!r}")
    if len(text) > _LIMIT_CHARACTERS:
        raise TokenMalformed("it is too long")
    try:
        return msgspec.msgpack.decode(_decode(text.removeprefix(PREFIX)), type=JoinToken)
    except msgspec.DecodeError as error:
        raise TokenMalformed("it is damaged, was it copied whole?") from error


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise TokenMalformed("it is damaged, was it copied whole?") from error
