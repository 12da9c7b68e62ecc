"""The fleet at a glance for every page that shows it: computed once for all viewers.

A viewer asks at its own pace for what changed since the version it knows; all nodes are looked at
at most once in two seconds, however many ask. Every role may view every node, so all viewers
share one answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from hub.metrics import MetricsStore
from hub.nodes import Nodes
from hub.registry import Registry

TICK_S = 2.0
SLACK_S = 0.2
"""Viewers' timers are not exact: one that comes this early still gets a new version."""
DELTAS_KEPT = 8


class Glance(msgspec.Struct, frozen=True):
    """A node in one line; percent, and milliseconds."""

    status: str
    cpu: float | None
    memory: float | None
    rtt_ms: float | None


class FleetMessage(msgspec.Struct, frozen=True, tag_field="type", tag="fleet"):
    """The nodes that changed, by name."""

    nodes: Mapping[str, Glance]


@dataclass(frozen=True, slots=True)
class _Delta:
    version: int
    changed: Mapping[str, Glance]
    text: str


@dataclass(slots=True)
class Fleet:
    """All nodes at a glance, by version."""

    _nodes: Nodes
    _registry: Registry
    _metrics: MetricsStore
    _clock: Callable[[], float]
    """Monotonic seconds."""
    _version: int = 0
    _computed_at: float = float("-inf")
    _glances: dict[str, Glance] = field(default_factory=dict)
    _deltas: deque[_Delta] = field(default_factory=lambda: deque(maxlen=DELTAS_KEPT))

    def since(self, version: int) -> tuple[int, str | None]:
        """Return the present version, and the message that leads there from `version`.

        0 is a viewer that knows nothing; None is the message when nothing changed.
        """
        if self._clock() - self._computed_at >= TICK_S - SLACK_S:
            self._compute()
        missed = [delta for delta in self._deltas if delta.version > version]
        if not missed:
            return self._version, None
        if missed[0].version != version + 1:
            return self._version, _encode(self._glances)
        if len(missed) == 1:
            return self._version, missed[0].text
        return self._version, _encode({n: g for delta in missed for n, g in delta.changed.items()})

    def _compute(self) -> None:
        self._computed_at = self._clock()
        glances = {view.name: self._glance(view.id, view.status) for view in self._nodes.all()}
        known = self._glances
        changed = {name: glance for name, glance in glances.items() if known.get(name) != glance}
        self._glances = glances
        if changed:
            self._version += 1
            self._deltas.append(_Delta(self._version, changed, _encode(changed)))

    def _glance(self, node_id: str, status: str) -> Glance:
        levels, rtt_ms = self._metrics.levels(node_id), self._registry.rtt_ms(node_id)
        return Glance(
            status,
            None if levels.cpu is None else round(levels.cpu, 1),
            None if levels.memory is None else round(levels.memory, 1),
            None if rtt_ms is None else round(rtt_ms, 1),
        )


def _encode(glances: Mapping[str, Glance]) -> str:
    return msgspec.json.encode(FleetMessage(glances)).decode()
