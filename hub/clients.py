"""What the tunnel of a client (the CLI or the SDK) may open: forwards, listeners, shells on nodes.

The rule it guards: each stream is authorized by itself, with the subject of the tunnel's token, and
a refusal reaches the client as the stream's reset with a reason. Credit runs end to end: the hub
reads from one side only what the other side took.

    async with clients.serving(subject, tunnel) as handler: ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hub.authz import Subject
from hub.client_forwards import ClientForwards, Services
from hub.errors import HubError
from hub.resets import reset_of
from hub.shells import Shell, Shells, Terminal, until_first
from protocol.aio import Channel, Handler, Stream, Tunnel
from protocol.errors import RemoteProtocolError, ResetCode, StreamReset, TunnelClosed
from protocol.messages import ClientForward, ClientListen, ClientShell, Open
from protocol.record_types import PtyFromHub, PtyFromNode


@dataclass(frozen=True, slots=True)
class Clients:
    """Serves the streams of clients' tunnels."""

    services: Services
    shells: Shells

    @asynccontextmanager
    async def serving(self, subject: Subject, tunnel: Tunnel) -> AsyncIterator[Handler]:
        """Give the handler of a tunnel that was opened with this subject's token.

        The tunnel's forwards end with the block.
        """
        async with ClientForwards(self.services, subject, tunnel) as forwards:

            async def handle(message: Open, stream: Stream) -> None:
                try:
                    match message:
                        case ClientForward():
                            await forwards.connect(message, stream)
                        case ClientListen():
                            await forwards.listen(message, stream)
                        case ClientShell():
                            await self._shell(subject, message, stream)
                        case _:
                            reason = "clients open forwards, listeners and shells"
                            stream.reset(ResetCode.UNKNOWN_KIND, reason)
                except HubError as error:
                    refusal = reset_of(error)
                    stream.reset(refusal.code, refusal.reason)

            yield handle

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
