"""`Hub`: the services of a running hub, handed to every controller and socket.

The rule it guards: parts reach each other through this value and through no global; it is built
once, by `hub.build`, and never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from certs.authority import Authority
from hub.accounts.accounts import Accounts
from hub.address_limits import AddressLimits
from hub.audit import Audit
from hub.config import HubConfig
from hub.deployments import Deployments
from hub.enrolment import Enrolment
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
from hub.telemetry import Telemetry
from hub.tunnel_metrics import TunnelTotals


@dataclass(slots=True)
class Readiness:
    """Whether the ports are open; set by whoever opens them, asked by `/readyz`."""

    listening: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """All services, by topic."""

    config: HubConfig
    authority: Authority
    store: Store
    events: EventLog
    audit: Audit
    accounts: Accounts
    nodes: Nodes
    registry: Registry
    metrics: MetricsStore
    fleet: Fleet
    enrolment: Enrolment
    join_tokens: JoinTokens
    installer: Installer
    tasks: Tasks
    shells: Shells
    forwards: Forwards
    listeners: Listeners
    links: Links
    packages: Packages
    deployments: Deployments
    published: Published
    telemetry: Telemetry = field(default_factory=Telemetry)
    addresses: AddressLimits = field(default_factory=AddressLimits)
    tunnels: TunnelTotals = field(default_factory=TunnelTotals)
    readiness: Readiness = field(default_factory=Readiness)
