"""Serves one `forward` stream: a TCP connection from this node, bytes both ways.

The name is resolved once, the policy is asked about each address, and the connection goes to an
address that it allowed, so a name that changes its mind gains nothing. `protocol.aio.tcp` carries
the bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from edge_agent.policy import Policy, PolicyFile, Refused
from protocol.aio import ResetCode, Stream, StreamReset, TunnelClosed
from protocol.aio.tcp import TcpEnd, carry
from protocol.messages import CONFIRMED, Forward

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_S = 10.0
"""For resolving and connecting together."""


async def handle_forward(opening: Forward, stream: Stream, policy: PolicyFile) -> None:
    """Serve one `forward` stream until both directions have ended."""
    target = f"{opening.host}:{opening.port}"
    try:
        rules = policy.current()
        async with asyncio.timeout(CONNECT_S):
            connection = await _connect(opening, rules)
    except Refused as error:
        stream.reset(ResetCode.REFUSED, str(error))
    except TimeoutError:
        stream.reset(ResetCode.TIMEOUT, f"{target} did not answer within {CONNECT_S:.0f} s")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        stream.reset(ResetCode.UNREACHABLE, f"{target}: {reason}")
    else:
        if opening.confirm:
            stream.push(CONFIRMED)
        await carry_or_reset(connection, stream, "the target")


async def _connect(opening: Forward, policy: Policy) -> TcpEnd:
    """Connect to the first address that is allowed and answers."""
    allowed = _allowed(opening, await _resolve(opening.host, opening.port), policy)
    loop = asyncio.get_running_loop()
    for address in allowed[:-1]:
        with contextlib.suppress(OSError):
            return (await loop.create_connection(TcpEnd, address, opening.port))[1]
    return (await loop.create_connection(TcpEnd, allowed[-1], opening.port))[1]


def _allowed(opening: Forward, addresses: Sequence[str], policy: Policy) -> list[str]:
    allowed, refusal = [], Refused(f"{opening.host} has no address")
    for address in addresses:
        try:
            policy.allow_forward(opening.host, address, opening.port)
        except Refused as error:
            refusal = error
        else:
            allowed.append(address)
    if not allowed:
        raise refusal
    return allowed


async def _resolve(host: str, port: int) -> list[str]:
    """Return the host's addresses as text, without asking anybody when it is one itself."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host.strip("[]")))]
    if "\0" in host:
        raise OSError("the host contains a NUL byte")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name") from error
    return [str(address[0]) for *_, address in found]


async def carry_or_reset(end: TcpEnd, stream: Stream, who: str) -> None:
    """Carry both ways; a connection that breaks resets the stream, saying `who` broke it off."""
    try:
        await carry(end, stream)
    except (StreamReset, TunnelClosed):
        pass
    except OSError as error:
        stream.reset(ResetCode.UNREACHABLE, f"{who} broke off: {error}")
