"""`Published`: HTTP services of nodes, at a host name or a path of the hub, for who is signed in.

published = Published.create(...)
await published.services.load()
tasks.create_task(published.uses.run())
app = Sites(create_app(hub), published)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hub.accounts.accounts import Accounts
from hub.audit import Audit
from hub.forwards import Forwards
from hub.nodes import Nodes
from hub.published.connect import Connector
from hub.published.doors import Doors
from hub.published.entries import Entries
from hub.published.services import Services
from hub.published.uses import Uses
from hub.registry import Registry
from hub.store.engine import Store


@dataclass(frozen=True, slots=True)
class Published:
    """The parts, joined."""

    services: Services
    entries: Entries
    doors: Doors
    uses: Uses
    connector: Connector

    @classmethod
    def create(
        cls,
        store: Store,
        *,
        nodes: Nodes,
        registry: Registry,
        accounts: Accounts,
        forwards: Forwards,
        audit: Audit,
        hub_url: str,
        own_hosts: Iterable[str],
    ) -> Published:
        """Join the parts; entries end with rights and with services."""
        services = Services(store, nodes, audit, frozenset(own_hosts))
        entries = Entries()
        accounts.on_change(entries.drop)
        services.on_gone.append(entries.drop_service)
        doors = Doors(hub_url.rstrip("/"), services, entries, accounts, audit)
        return cls(services, entries, doors, Uses(forwards), Connector(registry))
