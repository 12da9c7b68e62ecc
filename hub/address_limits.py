"""How many strangers of one address may knock at once.

The rule it guards: one address can't take all the places of connections that nobody has
authenticated yet. Generous, as a whole site may come from one address.

    with addresses.entering("192.0.2.7"):    # raises TooManyFromAddress
        ...                                  # TLS handshake
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Hashable, Iterator

from hub.telemetry import Counter as Total

PER_ADDRESS = 250  # half of those that may be silent, or in their handshake


class TooManyFromAddress(ConnectionError):
    """The address has all its places taken."""

    def __init__(self, place: str, most: int) -> None:
        super().__init__(place, most)
        self.place = place
        self.most = most

    def __str__(self) -> str:
        return f"{self.most} connections from {self.place} wait already"


class AddressLimits:
    """Counts who is inside; an IPv6 site (/64) is one address."""

    def __init__(self, most: int | None = None) -> None:
        """`most` is what an address may take of a kind; by default 250."""
        self._most = most
        self.refused = Total()
        self._inside: Counter[tuple[Hashable, str]] = Counter()

    @contextlib.contextmanager
    def entering(self, address: str, kind: Hashable = None) -> Iterator[None]:
        """Take a place of a kind while the block runs: agents of a site don't take its people's.

        Raises:
            TooManyFromAddress: there is none.
        """
        place = _place_of(address)
        key = (kind, place)
        most = PER_ADDRESS if self._most is None else self._most
        if self._inside[key] >= most:
            self.refused.add()
            raise TooManyFromAddress(place, most)
        self._inside[key] += 1
        try:
            yield
        finally:
            self._inside[key] -= 1
            if not self._inside[key]:
                del self._inside[key]

    def __len__(self) -> int:
        return len(self._inside)


def _place_of(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
