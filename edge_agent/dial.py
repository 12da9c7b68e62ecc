"""One attempt to reach the hub: address, proxy, TLS, the hub's identity, the upgrade."""

from __future__ import annotations

import ssl
import time
from urllib.parse import urlsplit

from certs.contexts import TUNNEL_ALPN, agent_context
from certs.errors import CertificateRefused
from certs.identity import check_hub
from edge_agent.config import AgentConfig
from edge_agent.credentials import CredentialRefused, check_certificate, read_roots
from edge_agent.proxies import connect_by, route_to
from edge_agent.state import StateDir
from edge_agent.tls_faults import tls_fault
from protocol.aio import Tunnel
from protocol.aio.websocket import ConnectRefused, connect_websocket

TUNNEL_PATH = "/tunnel"


class DialFailed(Exception):
    """No tunnel; `refused` says that the hub knows us and will not have us."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused

    def __str__(self) -> str:
        return self.reason


def tunnel_url(hub: str) -> str:
    """The address of the tunnels of a hub given as https://host[:port]."""
    parts = urlsplit(hub)
    return f"wss://{parts.netloc}{TUNNEL_PATH}"


async def dial(
    tunnel: Tunnel, hub: str, config: AgentConfig, state: StateDir, previous: Tunnel | None = None
) -> Tunnel:
    """Connect to `hub` and return the tunnel that is attached: `previous` when the hub resumes it.

    Raises:
        DialFailed: with a reason that names what to look at.
    """
    try:
        route = route_to(hub, config.proxy)
        context = agent_context(state.certificate, state.key, state.trust.read_bytes())
        return await connect_websocket(
            tunnel,
            tunnel_url(hub),
            context,
            previous=previous,
            connected=await connect_by(route, hub),
            check=lambda der: check_hub(der, config.mesh_id),
        )
    except ConnectRefused as error:
        raise DialFailed(f"the hub refused: {error}", refused=error.status == 403) from error
    except CertificateRefused as error:
        raise DialFailed(f"{hub} is not our hub: {error}") from error
    except ssl.SSLError as error:
        raise DialFailed(str(await tls_fault(hub, route, error, TUNNEL_ALPN))) from error
    except FileNotFoundError as error:
        fault = own_fault(config, state) or f"{error.filename} is missing"
        raise DialFailed(fault, refused=True) from error
    except (OSError, TimeoutError, ValueError) as error:
        own = own_fault(config, state)
        detail = own or f"can't reach {hub}: {str(error) or type(error).__name__}"
        raise DialFailed(detail, refused=own is not None) from error


def own_fault(config: AgentConfig, state: StateDir) -> str | None:
    """What is wrong with this node's own certificate, or None.

    TLS 1.3 lets a client finish its handshake before the server has looked at its certificate, so a
    refusal shows as a connection that just ends; this names the reason.
    """
    try:
        check_certificate(
            state.certificate.read_bytes(),
            state.key.read_bytes(),
            read_roots(state.trust.read_bytes()),
            config.mesh_id,
            time.time(),
        )
    except (CredentialRefused, OSError) as error:
        return (
            f"this node's certificate can't be used: {error}; join again with a new token "
            "(mooring agent join --force), or set the clock right"
        )
    return None
