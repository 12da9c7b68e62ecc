"""The one asyncio shell around `protocol.session`, used by hub, agent and clients alike.

`Tunnel` drives a session over a `Transport`; `Stream` is raw bytes, `Channel` is records on a
stream. `connect_websocket` and `websocket_protocol` join tunnels to real WebSockets, `memory_pair`
joins two without a socket.
"""

from protocol.aio.channel import Channel
from protocol.aio.memory import memory_pair
from protocol.aio.serving import Handler
from protocol.aio.stream import Stream
from protocol.aio.tunnel import Transport, Tunnel
from protocol.errors import (
    GoAwayCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    ResetCode,
    StreamReset,
    TunnelClosed,
)

__all__ = [
    "Channel",
    "GoAwayCode",
    "Handler",
    "LocalProtocolError",
    "ProtocolError",
    "RemoteProtocolError",
    "ResetCode",
    "Stream",
    "StreamReset",
    "Transport",
    "Tunnel",
    "TunnelClosed",
    "memory_pair",
]
