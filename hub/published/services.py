"""`Services`: which services of nodes are published, by name and by host name.

The rule it guards: a host name is one service's alone and never the hub's own, so that a page that
a node serves never shares an origin with the hub or with another node's page. All are in memory:
they are looked up at every request.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.errors import BadRequest, Conflict, Forbidden, NotFound
from hub.nodes import Nodes
from hub.nodeview import NodeView
from hub.store import published as queries
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.published import ServiceRow
from protocol.messages import Port

LIMIT = 1_000
HOST_NAMES_LIMIT = 100
"""They are all in one certificate."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to publish, and where browsers find it."""

    name: Annotated[str, Meta(pattern=rf"^{_LABEL}$")]
    """A DNS label: lower-case letters, digits, hyphens."""
    node: Annotated[str, Meta(min_length=1, max_length=256)]
    port: Port
    host: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,255}$")] = "127.0.0.1"
    """As the node reaches it."""
    scheme: Literal["http", "https"] = "http"
    verify: bool = False
    """Refuse a service that speaks https with a certificate that the hub's system does not trust;
    false fits what listens on the node itself, whose certificate is usually its own."""
    host_name: Annotated[str, Meta(max_length=253)] | None = None
    """A DNS name that leads to the hub; None: the service is below the hub's own address."""
    keep_host: bool = False
    """Let the service see the host name that the browser asked for, and not its own."""


@dataclass(slots=True)
class Service:
    """A published service, and what passed since the hub started."""

    row: ServiceRow
    requests: int = 0
    """Sockets are counted as one each."""
    active: int = 0
    sent_bytes: int = 0
    """To the service."""
    received_bytes: int = 0

    @property
    def name(self) -> str:
        """The service's name."""
        return self.row.name


@dataclass(slots=True)
class Services:
    """All published services of the hub."""

    _store: Store
    _nodes: Nodes
    _audit: Audit
    _own_hosts: frozenset[str]
    """Names of the hub itself, which no service may have."""
    on_gone: list[Callable[[str], None]] = field(default_factory=list)
    """Told the name of a service that is no longer published."""
    names_changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the certificate of the pages should carry other host names."""
    _by_name: dict[str, Service] = field(default_factory=dict)
    _by_host_name: dict[str, Service] = field(default_factory=dict)

    async def load(self) -> None:
        """Read all from the store; once, before anybody connects."""
        async with self._store.read() as connection:
            rows = await queries.all_services(connection)
        for row in rows:
            self._put(row)

    def all(self) -> list[Service]:
        """Return all services by name."""
        return sorted(self._by_name.values(), key=lambda service: service.name)

    def find(self, name: str) -> Service | None:
        """Return the service of that name."""
        return self._by_name.get(name)

    def get(self, name: str) -> Service:
        """Return the service of that name.

        Raises:
            NotFound: there is none.
        """
        service = self._by_name.get(name)
        if service is None:
            raise NotFound("published service", name)
        return service

    def at_host(self, host_name: str) -> Service | None:
        """Return the service that lives at a host name, in lower case."""
        return self._by_host_name.get(host_name)

    def host_names(self) -> list[str]:
        """Return the host names of all services that have one, sorted."""
        return sorted(self._by_host_name)

    def node_of(self, service: Service) -> NodeView:
        """Return the node that serves it."""
        return self._nodes.get(service.row.node_id)

    async def publish(self, subject: Subject, spec: ServiceSpec) -> Service:
        """Publish a service of a node.

        Raises:
            NotFound, Forbidden: the node.
            BadRequest: the host name is no DNS name, or the hub's own.
            Conflict: a name is taken, or there are too many services.
        """
        node = self._nodes.get(spec.node)
        await self._authorize(subject, "published.create", spec.name, node)
        self._check_host_name(spec.host_name)
        if len(self._by_name) >= LIMIT:
            raise Conflict(f"{LIMIT} services are published; remove one first")
        row = ServiceRow(
            name=spec.name,
            node_id=node.id,
            host=spec.host,
            port=spec.port,
            scheme=spec.scheme,
            verify=spec.verify,
            host_name=spec.host_name,
            keep_host=spec.keep_host,
            created_by=subject.name,
            created_at=time.time(),
        )
        audited = self._audit.unit(
            subject.name, "published.create", row.name, address=subject.address, detail=spec
        )

        async def unit(connection: Connection) -> None:
            await queries.insert_service(connection, row)
            await audited(connection)

        await self._store.write(unit)
        return self._put(row)

    async def withdraw(self, subject: Subject, name: str) -> None:
        """Publish a service no longer; who uses it is cut off.

        Raises:
            NotFound: there is none of that name.
            Forbidden: the subject may not forward to its node.
        """
        service = self.get(name)
        await self._authorize(subject, "published.delete", name, self.node_of(service))
        audited = self._audit.unit(subject.name, "published.delete", name, address=subject.address)

        async def unit(connection: Connection) -> None:
            await queries.delete_service(connection, name)
            await audited(connection)

        await self._store.write(unit)
        self._drop([service])

    def forget_node(self, node_id: str) -> None:
        """Drop the services of a node that was removed."""
        self._drop([held for held in self._by_name.values() if held.row.node_id == node_id])

    # --- inside ---

    async def _authorize(self, subject: Subject, act: str, name: str, node: NodeView) -> None:
        try:
            authorize(subject, Verb.FORWARD, node.name)
        except Forbidden:
            await self._audit.record(
                subject.name, act, name, outcome="denied", address=subject.address
            )
            raise

    def _check_host_name(self, host_name: str | None) -> None:
        if host_name is None:
            return
        if not _HOST_NAME.fullmatch(host_name) or host_name.rpartition(".")[2].isdigit():
            raise BadRequest(
                f"{host_name!r} is not a DNS name in lower case with a dot; "
                "use one like grafana.apps.example.org"
            )
        if host_name in self._own_hosts:
            raise BadRequest(f"{host_name} is the hub's own name; a service needs another one")
        if len(self._by_host_name) >= HOST_NAMES_LIMIT:
            raise Conflict(f"{HOST_NAMES_LIMIT} services have a host name; remove one first")

    def _put(self, row: ServiceRow) -> Service:
        service = self._by_name[row.name] = Service(row)
        if row.host_name is not None:
            self._by_host_name[row.host_name] = service
            self.names_changed.set()
        return service

    def _drop(self, services: Iterable[Service]) -> None:
        for service in list(services):
            self._by_name.pop(service.name, None)
            if service.row.host_name is not None:
                self._by_host_name.pop(service.row.host_name, None)
                self.names_changed.set()
            for callback in self.on_gone:
                callback(service.name)
