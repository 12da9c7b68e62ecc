"""Who calls which hub: from the environment, else from the file that `mooring login` wrote.

`MOORING_URL`, `MOORING_TOKEN` and `MOORING_CA` (a PEM file) win over the file
`~/.config/mooring/config.json` as a whole: with `MOORING_URL` set, nothing of the file is used, so
a token never reaches another hub.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mooring.sdk.errors import NoIdentity

HTTP_ALPN = "http/1.1"
TUNNEL_ALPN = "mooring-client/1"


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A hub's address, the bearer token for it, and which CA vouches for it."""

    url: str
    token: str = ""
    ca_pem: str = ""
    """Trusted for this hub and nothing else is; empty: what the system trusts."""

    def __repr__(self) -> str:
        """Never show the token."""
        return f"Identity(url={self.url!r})"

    def tls(self, alpn: str) -> ssl.SSLContext:
        """Make a fresh TLS context that offers one protocol.

        Raises:
            NoIdentity: the CA isn't a certificate.
        """
        try:
            context = ssl.create_default_context(cadata=self.ca_pem or None)
        except ssl.SSLError as error:
            raise NoIdentity(f"the CA given for {self.url} is not a PEM certificate") from error
        context.set_alpn_protocols([alpn])
        return context

    def proxy(self) -> str | None:
        """Return the proxy that the environment names for this hub; the own host needs none."""
        from urllib.request import getproxies, proxy_bypass  # as slow to import as all of httpx

        host = urlsplit(self.url).hostname or ""
        if host in ("localhost", "::1") or host.startswith("127.") or proxy_bypass(host):
            return None
        proxies = getproxies()
        return proxies.get("https") or proxies.get("all")


def check_url(url: str) -> str:
    """Return a hub's address as `https://HOST[:PORT]`.

    Raises:
        NoIdentity: it is not one.
    """
    text = url if "://" in url else f"https://{url}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        usable = None
    if not usable or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise NoIdentity(f"{url!r} is not a hub's address; it looks like https://hub.example:8443")
    return f"https://{parts.netloc}"


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `mooring login` keeps the identity."""
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home(), ".config")
    return Path(base, "mooring", "config.json")


def load(environ: Mapping[str, str] = os.environ) -> Identity:
    """Find out who calls.

    Raises:
        NoIdentity: nobody has signed in, or what is configured can't be used.
    """
    if url := environ.get("MOORING_URL"):
        return Identity(
            url=check_url(url), token=environ.get("MOORING_TOKEN", ""), ca_pem=_ca(environ)
        )
    path = config_path(environ)
    try:
        identity = msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError:
        raise NoIdentity("no hub is known here: nobody has signed in") from None
    except (OSError, msgspec.DecodeError) as error:
        raise NoIdentity(f"{path} can't be used: {error}") from error
    return msgspec.structs.replace(identity, url=check_url(identity.url))


def _ca(environ: Mapping[str, str]) -> str:
    if not (name := environ.get("MOORING_CA")):
        return ""
    try:
        return Path(name).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise NoIdentity(f"MOORING_CA names {name}, which can't be read: {error}") from error


def save(identity: Identity, path: Path) -> None:
    """Write the identity for this user only (0600), whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(identity)) + b"\n")
    partial.replace(path)
