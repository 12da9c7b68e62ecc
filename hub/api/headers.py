"""Headers on every answer: a strict CSP and its companions; and the count of requests.

The rule it guards: pages run only our own scripts and talk only to this hub; answers of the API
are stored by nobody. Set as the last thing before sending, so that errors carry them too.
"""

from __future__ import annotations

from litestar.types import Message, Scope

from hub.accounts.origins import Origins
from hub.telemetry import Telemetry

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; manifest-src 'self'; connect-src {connect}; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
_FIXED = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
]


class SecurityHeaders:
    """A `before_send` hook."""

    def __init__(self, origins: Origins, telemetry: Telemetry) -> None:
        self._origins = origins
        self._telemetry = telemetry
        self._made_for: frozenset[str] = frozenset()
        self._headers = self._make()

    async def __call__(self, message: Message, scope: Scope) -> None:
        """Add the headers to the start of an answer."""
        if message["type"] != "http.response.start":
            return
        self._telemetry.requests.add()
        if message["status"] >= 500:
            self._telemetry.failures.add()
        if self._origins.all() is not self._made_for:
            self._headers = self._make()
        headers = [*message["headers"], *self._headers]
        if scope["path"].startswith("/api/"):
            headers.append((b"cache-control", b"no-store"))
        message["headers"] = headers

    def _make(self) -> list[tuple[bytes, bytes]]:
        """Name the sockets' addresses too: not every browser counts them as 'self'.

        An IPv6 address is no valid source in CSP: browsers would complain on each page.
        """
        self._made_for = self._origins.all()
        sockets = sorted(
            "wss:" + origin.removeprefix("https:") for origin in self._made_for if "[" not in origin
        )
        policy = _POLICY.format(connect=" ".join(["'self'", *sockets]))
        return [(b"content-security-policy", policy.encode()), *_FIXED]
