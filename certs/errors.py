"""What can go wrong with certificates and join tokens.

CertsError
├── AuthorityDamaged    the CA's directory is there but can't be used
├── RequestRefused      a certificate signing request that we don't sign
├── CertificateRefused  a certificate that isn't what it must be; carries a `Reason`
├── PinMismatch         a CA that isn't the one of the join token
└── TokenMalformed      a text that isn't a join token
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Reason(StrEnum):
    """Why a peer's certificate is refused; the same names in logs, audit and messages."""

    NO_CERTIFICATE = "no_certificate"
    MALFORMED = "malformed"
    OTHER_CA = "other_ca"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_USAGE = "wrong_usage"
    WRONG_NAME = "wrong_name"
    WRONG_MESH = "wrong_mesh"
    REVOKED = "revoked"
    TLS = "tls"
    """The handshake failed for a reason that has nothing to do with the certificate."""


class CertsError(Exception):
    """Base of all errors of this package."""


class AuthorityDamaged(CertsError):
    """The CA's directory exists, but what is in it can't be used."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f"the certificate authority in {self.path} can't be used: {self.problem}"


class RequestRefused(CertsError):
    """A certificate signing request is not signed."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"certificate request refused: {self.problem}"


class CertificateRefused(CertsError):
    """A peer's certificate is not acceptable."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        text = f"certificate refused: {self.reason}"
        return f"{text} ({self.detail})" if self.detail else text


class PinMismatch(CertsError):
    """No root certificate that we were shown has the pinned key."""

    def __init__(self, pin: bytes) -> None:
        super().__init__(pin)
        self.pin = pin

    def __str__(self) -> str:
        return f"no root certificate there has the pinned key sha256:{self.pin.hex()}"


class TokenMalformed(CertsError):
    """A text is not a join token; the text itself is never shown, it may be a secret."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"that is not a join token: {self.problem}"
