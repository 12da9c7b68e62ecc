"""The node's next certificate, over its own tunnel, at half life and without a gap.

    await keep_renewed(tunnel, state)      # one of a tunnel's duties, until the tunnel ends

The key stays. The new certificate is verified before it replaces the old one, in one rename;
tunnels that are up go on, the next dial uses the new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.keys import key_from_pem, make_request
from certs.trust import to_pem
from edge_agent.config import AgentConfig, load_config
from edge_agent.credentials import CredentialRefused, check_certificate, read_roots
from edge_agent.state import StateDir, StateError
from protocol.aio import Channel, RemoteProtocolError, StreamReset, Tunnel
from protocol.messages import Message, Renew
from protocol.record_types import Certificate

_log = logging.getLogger(__name__)


LOOK_EVERY_S = 3600.0
"""The clock may be set meanwhile: look at it this often."""
RETRY_S = 600.0
ANSWER_WITHIN_S = 60.0


class RenewalFailed(Exception):
    """No new certificate; the old one is untouched."""


def due_at(certificate: x509.Certificate) -> float:
    """When to renew, in seconds since the epoch: half life ±10 %.

    The jitter comes from the certificate itself, so that asking again gives the same answer and a
    fleet that joined at once does not renew at once.
    """
    start = certificate.not_valid_before_utc.timestamp()
    lifetime = certificate.not_valid_after_utc.timestamp() - start
    digest = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    spread = int.from_bytes(digest[:4], "big") / 2**32 * 2 - 1
    return start + lifetime * 0.5 * (1 + 0.1 * spread)


def due(certificate: x509.Certificate, now: float) -> bool:
    """Whether to renew now."""
    return now >= due_at(certificate)


def load_leaf(state: StateDir) -> x509.Certificate:
    """Read the node's present certificate.

    Raises:
        StateError: it can't be read.
    """
    try:
        return x509.load_pem_x509_certificate(state.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StateError(f"{state.certificate} can't be read: {error}; join again") from error


async def keep_renewed(
    tunnel: Tunnel,
    state: StateDir,
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Renew whenever it is due, until cancelled; what goes wrong is logged and tried again.

    Raises:
        StateError: the node's own files can't be used.
        TunnelClosed: the tunnel ended.
    """
    config = load_config(state)
    while True:
        wait_s = due_at(load_leaf(state)) - clock()
        if wait_s > 0:
            await sleep(min(wait_s, LOOK_EVERY_S))
            continue
        try:
            await renew(tunnel, state, config, clock())
        except (RenewalFailed, StreamReset, RemoteProtocolError) as error:
            _log.warning("the certificate was not renewed, trying again: %s", error)
            await sleep(RETRY_S)


async def renew(tunnel: Tunnel, state: StateDir, config: AgentConfig, now: float) -> float:
    """Get and store the next certificate; returns when it ends, in seconds since the epoch.

    Raises:
        RenewalFailed: the hub gave none, or one that isn't for us.
        StateError: a file can't be read or written.
        StreamReset, TunnelClosed: the hub refused, or the tunnel ended.
    """
    try:
        key_pem, trust_pem = state.key.read_bytes(), state.trust.read_bytes()
        request = make_request(key_from_pem(key_pem))
    except (OSError, ValueError) as error:
        raise StateError(f"the node's key or trust can't be read: {error}; join again") from error
    stream = await tunnel.open(Renew(csr_pem=request))
    channel: Channel[Message, Certificate] = Channel(stream, Certificate)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S), stream:
            answer = await channel.receive()
    except TimeoutError:
        raise RenewalFailed(f"the hub did not answer within {ANSWER_WITHIN_S:.0f} s") from None
    if answer is None:
        raise RenewalFailed("the hub answered nothing")
    try:
        roots = _next_roots(read_roots(trust_pem), read_roots(answer.trust_pem))
        chain = answer.certificate_pem
        identity = check_certificate(chain, key_pem, roots, config.mesh_id, now)
    except CredentialRefused as error:
        raise RenewalFailed(f"the hub's new certificate is wrong: {error}") from error
    if identity.node_id != config.node_id:
        raise RenewalFailed("the hub's new certificate names another node")
    if to_pem(roots) != trust_pem:
        state.write(state.trust, to_pem(roots))
    state.write(state.certificate, chain)
    _log.info("the certificate was renewed; serial %s", identity.serial)
    return identity.not_after


def _next_roots(
    present: Sequence[x509.Certificate], offered: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Take a bundle over only when it goes on from what we trust now."""
    if not any(root in present for root in offered):
        raise CredentialRefused("the new trust bundle has none of the roots we trust")
    return list(offered)
