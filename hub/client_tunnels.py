"""The clients' side of the hub: one tunnel per CLI or SDK, opened with a bearer token.

The upgrade is answered at once and the token looked up beside it; no stream is served before that,
and the tunnel is closed when the token or its owner loses their rights.
"""

from __future__ import annotations

import asyncio
import logging

from hub.accounts.changes import Ended
from hub.client_forwards import Services
from hub.clients import Clients
from hub.core import Hub
from hub.errors import HubError
from protocol.aio import GoAwayCode, Handler, Stream, Tunnel
from protocol.aio.websocket import Refusal, Request
from protocol.frames import Hello
from protocol.guard import Limits
from protocol.messages import ClientOpen, Open
from protocol.session import Side
from protocol.windows import Budget

logger = logging.getLogger(__name__)

CLIENT_PATH = "/client"
LIMITS_OF_CLIENTS = Limits(max_streams=256, opens_per_s=1000.0)
"""A browser through a forward opens connections in bursts."""


class ClientTunnels:
    """Makes and runs the tunnels of clients."""

    def __init__(self, hub: Hub, tasks: asyncio.TaskGroup, software: str, budget: Budget) -> None:
        """`tasks` owns every tunnel; `budget` is the process's receive budget."""
        self._hub = hub
        self._tasks = tasks
        self._software = software
        self._budget = budget
        self._open: set[Tunnel] = set()
        services = Services(hub.registry, hub.nodes, hub.forwards, hub.listeners)
        self._clients = Clients(services, hub.shells)

    def on_request(self, request: Request) -> Tunnel | Refusal:
        """Answer an upgrade on the clients' route."""
        if request.path.partition("?")[0] != CLIENT_PATH:
            return Refusal(404, f"clients' tunnels are at {CLIENT_PATH}")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Refusal(401, "send a bearer token in Authorization")
        serving: asyncio.Future[Handler] = asyncio.get_running_loop().create_future()

        async def handle(message: Open, stream: Stream) -> None:
            serve = await asyncio.shield(serving)
            await serve(message, stream)

        tunnel = Tunnel(
            Side.ACCEPTED,
            Hello(software=self._software),
            handle,
            accepts=ClientOpen,
            limits=LIMITS_OF_CLIENTS,
            budget=self._budget,
            name=f"client {request.address}",
        )
        self._tasks.create_task(self._guarded(tunnel, token.strip(), request.address, serving))
        return tunnel

    async def close_all(self) -> None:
        """Say GOAWAY to every client: the hub stops."""
        async with asyncio.TaskGroup() as tasks:
            for tunnel in self._open:
                tasks.create_task(tunnel.close(GoAwayCode.SHUTDOWN, "the hub is stopping"))

    async def _guarded(
        self, tunnel: Tunnel, token: str, address: str, serving: asyncio.Future[Handler]
    ) -> None:
        """Keep the failure of one tunnel from the others."""
        try:
            await self._live(tunnel, token, address, serving)
        except Exception:
            logger.exception("%s: the tunnel failed", tunnel.name)
            await tunnel.close(GoAwayCode.INTERNAL, "internal error of the hub")

    async def _live(
        self, tunnel: Tunnel, token: str, address: str, serving: asyncio.Future[Handler]
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tunnel.run())
            try:
                subject = await self._hub.accounts.tokens.verify(token, address)
            except HubError as error:
                serving.cancel()
                await tunnel.close(GoAwayCode.REVOKED, str(error))
                return

            def on_change(ended: Ended) -> None:
                if ended.covers(subject):
                    tasks.create_task(tunnel.close(GoAwayCode.REVOKED, "your rights changed"))

            self._open.add(tunnel)
            try:
                with self._hub.accounts.watch(on_change):
                    async with self._clients.serving(subject, tunnel) as handler:
                        serving.set_result(handler)
                        await tunnel.wait_closed()
            finally:
                self._open.discard(tunnel)
