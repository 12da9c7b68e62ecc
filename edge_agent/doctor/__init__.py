"""`mooring agent doctor`: what keeps this machine from its hub, one thing after the other.

    findings = await examine(StateDir(path), hub_url=None, token_text=None)

The rules it guards: it changes nothing, uses no join token up, takes no tunnel away from an agent
that runs; no finding holds a secret; every step ends in time, and what does not depend on a failed
step is looked at all the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from certs.errors import TokenMalformed
from certs.tokens import JoinToken, decode_token
from edge_agent.doctor.findings import Finding, Status, failed, ok
from edge_agent.doctor.local import Own, look_at_home
from edge_agent.doctor.network import STEP_S, Expected, look_at_hub
from edge_agent.join import JoinFailed, check_address
from edge_agent.state import StateDir

__all__ = ["STEP_S", "Finding", "Status", "examine"]


async def examine(
    state: StateDir,
    *,
    hub_url: str | None = None,
    token_text: str | None = None,
    proxy: str | None = None,
    step_s: float = STEP_S,
    environ: Mapping[str, str] = os.environ,
) -> list[Finding]:
    """Look at everything; needs an identity in `state`, a hub's address, or a join token.

    Args:
        state: the agent's directory; it need not exist when one of the next two is given.
        hub_url: https://host[:port], instead of the addresses that identity or token name.
        token_text: a join token, which is not used up.
        proxy: as `agent.json` would name it; without it `agent.json`, then the environment.
        step_s: how long one step on the network may take.
        environ: where proxies are named.
    """
    joining = hub_url is not None or token_text is not None
    own, findings = look_at_home(state, joining=joining)
    token, about_token = _read_token(token_text)
    hubs, about_hubs = _addresses(hub_url, token, own)
    findings += [*about_token, *about_hubs]
    expected = Expected(
        own=own,
        pin=None if token is None else token.pin,
        proxy=proxy if proxy is not None else (own.config.proxy if own.config else None),
        environ=environ,
        step_s=step_s,
    )
    for hub in hubs:
        findings += await look_at_hub(hub, expected)
    return findings


def _read_token(text: str | None) -> tuple[JoinToken | None, list[Finding]]:
    if text is None:
        return None, []
    try:
        token = decode_token(text)
    except TokenMalformed as error:
        return None, [failed("join token", str(error), "copy it whole, or make a new one")]
    detail = "well-formed; only joining tells whether it is used up or expired"
    return token, [ok("join token", detail)]


def _addresses(
    hub_url: str | None, token: JoinToken | None, own: Own
) -> tuple[list[str], list[Finding]]:
    try:
        if hub_url is not None:
            return [check_address(hub_url)], []
    except JoinFailed as error:
        return [], [failed("address", error.detail, "correct --hub")]
    if token is not None:
        return list(token.hubs), []
    if own.config is not None:
        return list(own.config.hubs), []
    return [], [failed("address", "no hub is known here", "name one: --hub URL or --token-file")]
