"""Random secrets of credentials, and the hash under which they are stored.

The rule it guards: the database and the log never hold a secret. A plain SHA-256 is enough: these
secrets have 256 random bits, there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets

SECRET_BYTES = 32
SECRET_LIMIT = 128
"""Characters of the longest secret worth hashing."""


def new_secret() -> str:
    """Return 32 random bytes as 43 URL-safe characters."""
    return secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    """Return the SHA-256 in hex under which a secret is stored."""
    return hashlib.sha256(secret[:SECRET_LIMIT].encode("utf-8", "replace")).hexdigest()
