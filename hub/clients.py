"""What the tunnel of a client (the CLI or the SDK) may open: forwards and shells on nodes.

The rule it guards: each stream is authorized by itself, with the subject of the tunnel's token, and
a refusal reaches the client as the stream's reset with a reason. Credit runs end to end: the hub
reads from one side only what the other side took.

    tunnel = Tunnel(Side.ACCEPTED, hello, clients.handler_for(subject), accepts=ClientOpen)
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from hub.authz import Subject
from hub.errors import Forbidden, HubError, NodeOffline, NotFound, Unavailable
from hub.forwards import Forwards
from hub.nodes import Nodes
from hub.registry import Registry
from hub.shells import Shell, Shells, Terminal, until_first
from hub.splice import splice
from protocol.aio import Channel, Handler, Stream
from protocol.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    ResetCode,
    StreamReset,
    TunnelClosed,
)
from protocol.messages import (
    ClientForward,
    ClientShell,
    Forward,
    Open,
    PtyFromHub,
    PtyFromNode,
)

logger = logging.getLogger(__name__)

_CODES: dict[type[HubError], ResetCode] = {
    NotFound: ResetCode.NOT_FOUND,
    NodeOffline: ResetCode.UNREACHABLE,
    Forbidden: ResetCode.REFUSED,
    Unavailable: ResetCode.OVERLOADED,
}
"""The reset that tells a client of an error; others are refusals too."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Serves the streams of clients' tunnels."""

    registry: Registry
    nodes: Nodes
    forwards: Forwards
    shells: Shells

    def handler_for(self, subject: Subject) -> Handler:
        """Return the handler of a tunnel that was opened with this subject's token."""

        async def handle(message: Open, stream: Stream) -> None:
            try:
                match message:
                    case ClientForward():
                        await self._forward(subject, message, stream)
                    case ClientShell():
                        await self._shell(subject, message, stream)
                    case _:
                        stream.reset(ResetCode.UNKNOWN_KIND, "clients open forwards and shells")
            except HubError as error:
                stream.reset(_CODES.get(type(error), ResetCode.REFUSED), str(error))

        return handle

    async def _forward(self, subject: Subject, message: ClientForward, stream: Stream) -> None:
        node = self.nodes.get(message.node)
        async with self.forwards.carry(subject, node, message.host, message.port) as forward:
            opened = Forward(
                host=message.host,
                port=message.port,
                subject=subject.name,
                confirm=message.confirm,
            )
            try:
                target = await self.registry.open(node.id, opened)
            except (NodeOffline, LocalProtocolError) as error:
                forward.reason = str(error)
                if isinstance(error, NodeOffline):
                    raise
                raise Unavailable(str(error)) from error
            cause = await splice(stream, target, forward.traffic)
            if cause is not None:
                forward.reason = str(cause)

    async def _shell(self, subject: Subject, message: ClientShell, stream: Stream) -> None:
        terminal = Terminal(message.argv, message.user, message.rows, message.columns, message.term)
        client: Channel[PtyFromNode, PtyFromHub] = Channel(stream, PtyFromHub)
        async with self.shells.open(subject, message.node, terminal, "client") as shell:
            await until_first(_show(shell, client), _type(shell, client), shell.killed())
            if shell.exited is not None:
                client.finish()
            else:
                client.reset(ResetCode.CANCELLED, shell.reason)


async def _show(shell: Shell, client: Channel[PtyFromNode, PtyFromHub]) -> None:
    """Pass what the node sends, its last record `Exited` included."""
    try:
        while (screen := await shell.receive()) is not None:
            await client.send(screen)
        if shell.exited is not None:
            await client.send(shell.exited)
    except (StreamReset, TunnelClosed) as error:
        shell.end(f"the client left: {error}")


async def _type(shell: Shell, client: Channel[PtyFromNode, PtyFromHub]) -> None:
    """Pass what the client sends, until it leaves."""
    try:
        while (record := await client.receive()) is not None:
            await shell.send(record)
        shell.end("the client left")
    except (StreamReset, TunnelClosed, RemoteProtocolError) as error:
        shell.end(f"the client left: {error}")
