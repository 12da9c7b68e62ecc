"""`HubConfig`: everything a hub is told at its start, validated once, then passed down.

The rule it guards: a hub that starts has a configuration that makes sense; one that does not is
refused with a line that says which option to change.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from hub.errors import BadRequest


class HubConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `mooring hub serve`; raises `BadRequest` when made with impossible ones."""

    state_dir: Path
    bind: str = "127.0.0.1"
    """An IP address, or `localhost`."""
    port: int = 8443
    """0: the system picks one."""
    tunnel_port: int | None = None
    """A second port for tunnels; None: they share `port`."""
    public_urls: tuple[str, ...] = ()
    """`https://HOST[:PORT]`, as browsers and nodes reach the hub; the first is shown to people."""
    tls_cert: Path | None = None
    """PEM chain of the pages; None: one that the mesh's authority issues."""
    tls_key: Path | None = None
    database_url: str | None = None
    """None: `hub.db` in the state directory."""
    log_json: bool = False
    tunnels_per_s: int = 250
    """How many agents may connect in a second: about half of a core."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        _check_bind(self.bind)
        for option, port in (("--port", self.port), ("--tunnel-port", self.tunnel_port)):
            if port is not None and not 0 <= port <= 65535:
                raise BadRequest(f"{option} {port} is not a port; use 0 to 65535")
        if self.tunnel_port is not None and self.tunnel_port == self.port != 0:
            raise BadRequest("--tunnel-port is the same as --port; leave it out for one port")
        if not 1 <= self.tunnels_per_s <= 10_000:
            raise BadRequest(
                f"--tunnels-per-s {self.tunnels_per_s} is out of range; use 1 to 10000"
            )
        for url in self.public_urls:
            _check_public_url(url)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise BadRequest("--tls-cert and --tls-key belong together; give both or none")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise BadRequest(f"the file {file} does not exist")

    @property
    def store_url(self) -> str:
        """The database's URL."""
        return self.database_url or f"sqlite+aiosqlite:///{self.state_dir / 'hub.db'}"


def _check_bind(bind: str) -> None:
    if bind == "localhost":
        return
    try:
        ipaddress.ip_address(bind)
    except ValueError:
        raise BadRequest(f"--bind {bind} is not an IP address; use one like 0.0.0.0") from None


def _check_public_url(url: str) -> None:
    example = "use one like https://hub.example.org:8443"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadRequest(f"--public-url {url} does not parse; {example}") from None
    if parts.scheme != "https" or not parts.hostname or port == 0:
        raise BadRequest(f"--public-url {url} is not an https address; {example}")
    if parts.username or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadRequest(f"--public-url {url} has more than host and port; {example}")
