"""The agents' side of the hub: who may have a tunnel, what it may open, what happens when it ends.

A connection reaches this module with a certificate that TLS has verified. `admit` looks at it again
(issuer, usage, name, deny list) before the upgrade is answered; a refusal names its reason to the
agent, to the log and to the audit trail.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from certs.contexts import explain_ssl_error
from certs.errors import CertificateRefused, RequestRefused
from certs.identity import NodeIdentity
from hub.buckets import Buckets
from hub.core import Hub
from hub.enrolment import NodeRefused
from hub.errors import HubError
from protocol.aio import (
    Channel,
    GoAwayCode,
    ResetCode,
    Stream,
    Tunnel,
)
from protocol.aio.websocket import Refusal, Request
from protocol.frames import Hello
from protocol.messages import AgentOpen, Arrival, Message, Metrics, Open, Renew, Report
from protocol.record_types import Accepted, Certificate, MetricsFromAgent, Rate
from protocol.session import Side

logger = logging.getLogger(__name__)

TUNNEL_PATH = "/tunnel"

OpenHandler: TypeAlias = Callable[[NodeIdentity, Open, Stream], Awaitable[None]]


class AgentTunnels:
    """Makes and runs the tunnels of agents."""

    def __init__(self, hub: Hub, tasks: asyncio.TaskGroup, software: str) -> None:
        """`tasks` owns every tunnel; `software` names this hub in HELLO."""
        self._hub = hub
        self._tasks = tasks
        self._software = software
        self.budget = hub.tunnels.budget
        self._dials = Buckets(per_s=0.2, burst=20)
        self._addresses: dict[Tunnel, str] = {}
        self._handlers: dict[type[Message], OpenHandler] = {
            Report: self._take_report,
            Metrics: self._take_metrics,
            Renew: self._renew,
            Arrival: self._arrive,
        }

    def on_request(self, request: Request) -> Tunnel | Refusal:
        """Answer an upgrade on the tunnels' route."""
        if request.path.partition("?")[0] != TUNNEL_PATH:
            return Refusal(404, f"tunnels are at {TUNNEL_PATH}")
        try:
            identity = self._admit(request)
        except CertificateRefused as refusal:
            self._note_refusal(request.address, refusal.reason, str(refusal))
            return Refusal(403, str(refusal))
        except NodeRefused as refusal:
            self._note_refusal(request.address, refusal.reason, str(refusal), refusal.node_id)
            return Refusal(403, str(refusal))
        if self._dials.take(identity.node_id, time.monotonic()):
            return Refusal(503, "this node dials too often: wait")
        tunnel = self._hub.registry.resumable(identity.node_id, request.resume)
        if tunnel is not None:
            self._addresses[tunnel] = request.address
            return tunnel
        tunnel = self._make(identity)
        self._addresses[tunnel] = request.address
        self._tasks.create_task(self._guarded(tunnel, identity))
        return tunnel

    def on_tls_error(self, address: str, error: ssl.SSLError) -> None:
        """Note a handshake that failed, when it says something of a certificate."""
        reason = explain_ssl_error(error)
        self._note_refusal(address, str(reason), str(error))

    def _admit(self, request: Request) -> NodeIdentity:
        identity = self._hub.authority.verify_node(request.certificate, time.time())
        self._hub.enrolment.check(identity)
        return identity

    def _note_refusal(self, address: str, reason: str, detail: str, node_id: str = "") -> None:
        self._tasks.create_task(
            self._hub.enrolment.note_refusal(reason, address, node_id=node_id, detail=detail)
        )

    def _make(self, identity: NodeIdentity) -> Tunnel:
        async def handle(message: Open, stream: Stream) -> None:
            try:
                self._hub.enrolment.check(identity)
            except NodeRefused as refusal:
                stream.reset(ResetCode.REFUSED, str(refusal))
                return
            await self._handlers[type(message)](identity, message, stream)

        return Tunnel(
            Side.ACCEPTED,
            Hello(software=self._software),
            handle,
            accepts=AgentOpen,
            budget=self.budget,
            counts=self._hub.tunnels.agents,
            name=f"node {self._hub.nodes.name_of(identity.node_id)}",
            resume=secrets.token_bytes(32),
        )

    async def _guarded(self, tunnel: Tunnel, identity: NodeIdentity) -> None:
        """Keep the failure of one tunnel from the others: it is closed, the agent comes back."""
        try:
            await self._live(tunnel, identity)
        except Exception:
            logger.exception("%s: the tunnel failed", tunnel.name)
            self._hub.registry.detach(identity.node_id, tunnel)
            await tunnel.close(GoAwayCode.INTERNAL, "internal error of the hub")
        finally:
            del self._addresses[tunnel]

    async def _live(self, tunnel: Tunnel, identity: NodeIdentity) -> None:
        """A tunnel's life, from the upgrade to its end, over as many connections as it takes."""
        node_id = identity.node_id
        registry, nodes = self._hub.registry, self._hub.nodes
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tunnel.run())
            while await tunnel.connected():
                alone = registry.attach(node_id, tunnel, time.monotonic())
                self._cut_if_barred_meanwhile(identity)
                if alone:
                    await nodes.came_online(node_id, self._addresses[tunnel], time.time())
                    self._hub.deployments.node_came_online(node_id)
                    self._hub.tasks.node_came_online(node_id)
                else:
                    await self._quarantine(node_id)
                reason = await tunnel.disconnected()
                if registry.holds(node_id, tunnel):
                    await nodes.went_offline(node_id, time.time(), reason)
        registry.detach(node_id, tunnel)

    def _cut_if_barred_meanwhile(self, identity: NodeIdentity) -> None:
        """A revocation between the upgrade and the registry found no tunnel to cut."""
        try:
            self._hub.enrolment.check(identity)
        except NodeRefused as refusal:
            self._hub.registry.cut(identity.node_id, GoAwayCode.REVOKED, str(refusal))

    async def _quarantine(self, node_id: str) -> None:
        reason = "two machines use this node's key: remove the node and join both again"
        self._hub.registry.cut(node_id, GoAwayCode.REVOKED, reason)
        await self._hub.enrolment.quarantine(node_id, reason)

    # --- what agents open ---

    async def _take_report(self, identity: NodeIdentity, opened: Open, stream: Stream) -> None:
        assert isinstance(opened, Report)
        await self._hub.nodes.take_report(identity.node_id, opened)
        await Channel[Accepted, Message](stream, Message).send(Accepted())
        self._hub.tasks.node_came_online(identity.node_id, opened.runs)

    async def _take_metrics(self, identity: NodeIdentity, opened: Open, stream: Stream) -> None:
        channel: Channel[Rate, MetricsFromAgent] = Channel(stream, MetricsFromAgent)
        await self._hub.metrics.handle_stream(identity.node_id, channel)

    async def _renew(self, identity: NodeIdentity, opened: Open, stream: Stream) -> None:
        assert isinstance(opened, Renew)
        try:
            issued = await self._hub.enrolment.renew(identity, opened.csr_pem)
        except (RequestRefused, NodeRefused, HubError) as refusal:
            stream.reset(ResetCode.REFUSED, str(refusal))
            return
        await Channel[Certificate, Message](stream, Message).send(
            Certificate(certificate_pem=issued, trust_pem=self._hub.authority.trust_pem)
        )

    async def _arrive(self, identity: NodeIdentity, opened: Open, stream: Stream) -> None:
        assert isinstance(opened, Arrival)
        await self._hub.listeners.arrive(identity.node_id, opened, stream)
