"""Hosts and addresses that somebody names: checked before they are stored, shown or sent to a node.

The rule it guards: no control character, space or markup gets into a log, a page or a resolver.
"""

from __future__ import annotations

import ipaddress

from hub.errors import BadRequest

_SIGNS = frozenset("._-:[]%")
_SPECIAL = {"localhost": "127.0.0.1", "*": "0.0.0.0"}  # noqa: S104 - as ssh -R writes them


def check_host(host: str) -> str:
    """Return `host` when it can be the name or address of one.

    Raises:
        BadRequest: it can't.
    """
    if not 0 < len(host) <= 253 or not all(sign.isalnum() or sign in _SIGNS for sign in host):
        raise BadRequest(f"{host[:80]!r} is no host: give a name or an IP address")
    return host


def check_bind(bind: str) -> str:
    """Return the address to listen on in its normal form; `localhost` and `*` are IPv4.

    Raises:
        BadRequest: it is no address.
    """
    try:
        return str(ipaddress.ip_address(_SPECIAL.get(bind, bind).strip("[]")))
    except ValueError:
        raise BadRequest(
            f"{bind[:80]!r} is no address to listen on: give an IP address, as 127.0.0.1"
        ) from None
