"""The clients' side of the hub: one tunnel per CLI or SDK, opened with a bearer token.

The upgrade is answered at once and the token looked up beside it; no stream is served before that,
and the tunnel is closed when the token or its owner loses their rights.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass

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
TUNNELS_PER_USER = 64


@dataclass(slots=True)
class _Session:
    """A client's tunnel, the token that it was opened with, and whose that is once it is known."""

    tunnel: Tunnel
    token_sha256: bytes
    user_id: str = ""


class ClientTunnels:
    """Makes and runs the tunnels of clients."""

    def __init__(self, hub: Hub, tasks: asyncio.TaskGroup, software: str, budget: Budget) -> None:
        """`tasks` owns every tunnel; `budget` is the process's receive budget."""
        self._hub = hub
        self._tasks = tasks
        self._software = software
        self._budget = budget
        self._open: dict[bytes, _Session] = {}
        services = Services(hub.registry, hub.nodes, hub.forwards, hub.listeners)
        self._clients = Clients(services, hub.shells)

    def on_request(self, request: Request) -> Tunnel | Refusal:
        """Answer an upgrade on the clients' route."""
        if request.path.partition("?")[0] != CLIENT_PATH:
            return Refusal(404, f"clients' tunnels are at {CLIENT_PATH}")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Refusal(401, "send a bearer token in Authorization")
        digest = hashlib.sha256(token.strip().encode()).digest()
        if (resumed := self._resumable(request.resume, digest)) is not None:
            return resumed
        name = secrets.token_bytes(32)
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
            counts=self._hub.tunnels.clients,
            name=f"client {request.address}",
            resume=name,
        )
        self._open[name] = _Session(tunnel, digest)
        self._tasks.create_task(self._guarded(name, token.strip(), request.address, serving))
        return tunnel

    def _resumable(self, name: bytes, digest: bytes) -> Tunnel | None:
        """The tunnel of a session that goes on, for whoever has its name and its token."""
        session = self._open.get(name)
        if session is None or not hmac.compare_digest(session.token_sha256, digest):
            return None
        return session.tunnel if session.tunnel.resume_by else None

    def _make_room(self, user_id: str) -> bool:
        """Whether a user may have one more tunnel; those without a connection give way."""
        theirs = [one.tunnel for one in self._open.values() if one.user_id == user_id]
        if len(theirs) < TUNNELS_PER_USER:
            return True
        waiting = (tunnel for tunnel in theirs if tunnel.resume_by and not tunnel.is_connected)
        oldest = next(waiting, None)
        if oldest is not None:
            oldest.abort(f"its owner has {TUNNELS_PER_USER} newer tunnels")
        return oldest is not None

    async def close_all(self) -> None:
        """Say GOAWAY to every client: the hub stops."""
        async with asyncio.TaskGroup() as tasks:
            for session in list(self._open.values()):
                tasks.create_task(session.tunnel.close(GoAwayCode.SHUTDOWN, "the hub is stopping"))

    async def _guarded(
        self, name: bytes, token: str, address: str, serving: asyncio.Future[Handler]
    ) -> None:
        """Keep the failure of one tunnel from the others."""
        tunnel = self._open[name].tunnel
        try:
            await self._live(self._open[name], token, address, serving)
        except Exception:
            logger.exception("%s: the tunnel failed", tunnel.name)
            await tunnel.close(GoAwayCode.INTERNAL, "internal error of the hub")
        finally:
            del self._open[name]

    async def _live(
        self, session: _Session, token: str, address: str, serving: asyncio.Future[Handler]
    ) -> None:
        tunnel = session.tunnel
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tunnel.run())
            try:
                subject = await self._hub.accounts.tokens.verify(token, address)
            except HubError as error:
                serving.cancel()
                await tunnel.close(GoAwayCode.REVOKED, str(error))
                return
            if not self._make_room(subject.user_id):
                serving.cancel()
                reason = f"you have {TUNNELS_PER_USER} tunnels open; close some first"
                await tunnel.close(GoAwayCode.FLOOD, reason)
                return
            session.user_id = subject.user_id

            def on_change(ended: Ended) -> None:
                if ended.covers(subject):
                    tasks.create_task(tunnel.close(GoAwayCode.REVOKED, "your rights changed"))

            with self._hub.accounts.watch(on_change):
                async with self._clients.serving(subject, tunnel) as handler:
                    serving.set_result(handler)
                    await tunnel.wait_closed()
