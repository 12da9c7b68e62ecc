"""Joins the services of a hub; the one place that knows all constructors.

async with Store.open(config.store_url) as store, TaskGroup() as tasks:
hub = build_hub(config, store, authority, tasks, pages_chain=...)
await load_hub(hub)
tasks.create_task(run_hub(hub))
app = create_app(hub)
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from certs.authority import Authority
from hub.accounts.accounts import Accounts
from hub.accounts.passwords import Passwords
from hub.addresses import certificate_hosts
from hub.artifacts import Artifacts
from hub.audit import Audit
from hub.config import HubConfig
from hub.core import Hub
from hub.deployments import Deployments
from hub.enrolment import Enrolment
from hub.errors import Unavailable
from hub.events import EventLog
from hub.forwards import Forwards
from hub.installer import Installer
from hub.join_tokens import JoinTokens
from hub.links import Links
from hub.listeners import Listeners
from hub.live.fleet import Fleet
from hub.metrics import MetricsStore
from hub.nodes import Nodes
from hub.packages import Packages
from hub.published import Published
from hub.registry import Registry
from hub.shells import Shells
from hub.store.engine import Store
from hub.tasks import Tasks
from hub.tunnel_metrics import expose_tunnels
from protocol.aio import GoAwayCode

logger = logging.getLogger(__name__)

PRUNE_EVERY_S = 3_600.0


def build_hub(
    config: HubConfig,
    store: Store,
    authority: Authority,
    tasks: asyncio.TaskGroup,
    *,
    tunnel_urls: tuple[str, ...],
    pages_chain: Path,
    passwords: Passwords | None = None,
) -> Hub:
    """Join the services; nothing runs and nothing is read yet.

    Args:
        config: Validated options.
        store: The open store.
        authority: The mesh's CA.
        tasks: Owns what tunnels leave running.
        tunnel_urls: Where nodes reach the hub, 1 to 8; join tokens carry them.
        pages_chain: The PEM file of the certificate that browsers see.
        passwords: Cheaper hashing, for tests.
    """
    events, audit = EventLog(store), Audit(store)
    nodes = Nodes(store, events, audit)
    registry = Registry(tasks, nodes.name_of)
    listeners, forwards = Listeners(registry), Forwards(audit, nodes.name_of)
    accounts = Accounts.create(store, public_urls=config.public_urls, passwords=passwords)
    metrics = MetricsStore()
    artifacts = Artifacts(config.state_dir / "artifacts")
    hub = Hub(
        config=config,
        authority=authority,
        store=store,
        events=events,
        audit=audit,
        accounts=accounts,
        nodes=nodes,
        registry=registry,
        metrics=metrics,
        fleet=Fleet(nodes, registry, metrics, time.monotonic),
        enrolment=Enrolment(store, audit, events, authority),
        join_tokens=JoinTokens(store, audit, authority, tunnel_urls),
        installer=Installer(config.public_urls[0], pages_chain),
        tasks=Tasks(store, registry, nodes, events, audit),
        shells=Shells(store, registry, nodes, events, audit),
        forwards=forwards,
        listeners=listeners,
        links=Links(store, accounts.users, registry, nodes, listeners, forwards, events, audit),
        packages=Packages(store, artifacts, events, audit, nodes.all),
        deployments=Deployments(store, artifacts, registry, nodes, events, audit),
        published=Published.create(
            store,
            nodes=nodes,
            registry=registry,
            accounts=accounts,
            forwards=forwards,
            audit=audit,
            hub_url=config.public_urls[0],
            own_hosts=certificate_hosts(config),
        ),
    )
    _follow_enrolment(hub)
    nodes.on_presence.append(hub.links.node_changed)
    accounts.on_change(hub.links.rights_changed)
    _expose(hub)
    return hub


def _follow_enrolment(hub: Hub) -> None:
    """Let a node's end and changes reach all who remember it."""

    def cut(node_id: str) -> None:
        hub.registry.cut(node_id, GoAwayCode.REVOKED, "the node may not connect any more")

    hub.enrolment.on_cut.append(cut)
    hub.enrolment.on_changed.append(hub.nodes.note_change)
    hub.enrolment.on_removed += [
        hub.published.services.forget_node,
        hub.nodes.forget,
        hub.registry.forget,
        hub.metrics.forget,
        hub.links.node_removed,
    ]


def _expose(hub: Hub) -> None:
    """Register what `/metrics` says."""
    gauge = hub.telemetry.gauge
    gauge("mooring_nodes", "Nodes that are known.", lambda: len(hub.nodes.all()))
    gauge("mooring_nodes_connected", "Nodes with a tunnel.", lambda: len(hub.registry))
    gauge("mooring_store_queue", "Writes that wait.", lambda: hub.store.queue_depth)
    hub.telemetry.counter(
        "mooring_handshakes_refused_total",
        "Connections of addresses with too many handshakes.",
        hub.addresses.refused,
    )
    expose_tunnels(hub.telemetry, hub.tunnels)


async def load_hub(hub: Hub) -> None:
    """Read from the store what the services keep in memory; once, before anybody connects."""
    await hub.nodes.load()
    await hub.enrolment.load()
    await hub.links.load()
    await hub.shells.resume()
    await hub.packages.sweep()
    await hub.published.services.load()


async def run_hub(hub: Hub) -> None:
    """Run what the services do by themselves, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hub.nodes.run())
        tasks.create_task(hub.tasks.run())
        tasks.create_task(hub.deployments.run())
        tasks.create_task(hub.forwards.run())
        tasks.create_task(hub.links.run())
        tasks.create_task(hub.published.uses.run())
        tasks.create_task(_prune(hub))


async def _prune(hub: Hub) -> None:
    """Forget old events and ended sessions, every hour."""
    while True:
        try:
            await hub.events.prune()
            await hub.accounts.sessions.prune()
        except Unavailable as error:
            logger.warning("could not prune: %s; trying again in an hour", error)
        await asyncio.sleep(PRUNE_EVERY_S)
