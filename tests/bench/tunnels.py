"""The contestants of B1–B3: ourselves, the peers, the bare relay, and no tunnel at all."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from tests.bench.peers import asyncssh_pair, meshcentral, mooring
from tests.bench.peers import wstunnel as wstunnel_npm
from tests.bench.peers.tunnel import TunnelPeer, Via, straight
from tests.bench.relay import RELAY, bare_relay
from tests.bench.stage import Stage
from tests.bench.targets import Ports

DIRECT = "no tunnel"
OPENSSH, OPENSSH_GCM = "OpenSSH default", "OpenSSH AES-GCM"
OURS = mooring.NAME
ASYNCSSH, CENTRAL, WSTUNNEL = asyncssh_pair.NAME, meshcentral.NAME, wstunnel_npm.NAME
LIMITS = (DIRECT, RELAY)
"""What nobody can beat; not peers."""
PEERS = (OPENSSH, OPENSSH_GCM, ASYNCSSH, CENTRAL, WSTUNNEL)
FAR = (DIRECT, OURS, RELAY, OPENSSH, ASYNCSSH)
"""Whose agents can be told to find their server over a link."""

Maker = Callable[[], AbstractContextManager[TunnelPeer]]


@contextmanager
def tunnels(
    stage: Stage, ports: Ports, names: Container[str] | None = None, via: Via = straight
) -> Iterator[dict[str, TunnelPeer]]:
    """Hold those open that can be had, in the order in which they take turns.

    Args:
        stage: what is up.
        ports: what lies behind each tunnel.
        names: which; all without.
        via: how agents find their server.
    """
    with ExitStack() as opened:
        found: dict[str, TunnelPeer] = {}
        for name, make in _makers(stage, ports, via).items():
            if names is None or name in names:
                with stage.absent.spare(name):
                    found[name] = opened.enter_context(make())
        yield found


def _makers(stage: Stage, ports: Ports, via: Via) -> dict[str, Maker]:
    scratch = stage.scratch
    makers: dict[str, Maker] = {
        DIRECT: lambda: _direct(ports, via),
        OURS: lambda: stage.mooring.tunnel(ports, via),
        RELAY: lambda: bare_relay(scratch, ports, via),
    }
    if (ssh := stage.openssh) is not None:
        cipher = "aes128-gcm@openssh.com"
        makers[OPENSSH] = lambda: ssh.tunnel(OPENSSH, ports, via=via)
        makers[OPENSSH_GCM] = lambda: ssh.tunnel(OPENSSH_GCM, ports, cipher, via)
    if stage.options.peers:
        makers[ASYNCSSH] = lambda: asyncssh_pair.asyncssh_tunnel(scratch, ports, via)
        makers[WSTUNNEL] = lambda: wstunnel_npm.wstunnel(scratch, ports)
    if (central := stage.meshcentral) is not None:
        makers[CENTRAL] = lambda: central.tunnel(ports)
    return makers


@contextmanager
def _direct(ports: Ports, via: Via) -> Iterator[TunnelPeer]:
    yield TunnelPeer(DIRECT, Ports(*(via(port) for port in ports)))
