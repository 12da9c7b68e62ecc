"""The hub's own metrics as Prometheus text: what parts register, read when somebody asks.

telemetry.gauge("mooring_nodes_connected", "Nodes with a tunnel.", lambda: len(registry))
telemetry.requests.add()
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counter:
    """A number that only grows."""

    value: int = 0

    def add(self, count: int = 1) -> None:
        """Count."""
        self.value += count


@dataclass(frozen=True, slots=True)
class _Metric:
    name: str
    text: str
    kind: str
    read: Callable[[], float]


@dataclass(slots=True)
class Telemetry:
    """The registered metrics; names are unique and start with `mooring_`."""

    requests: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    _metrics: dict[str, _Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        started = time.monotonic()
        self.gauge(
            "mooring_uptime_seconds", "Since the hub started.", lambda: time.monotonic() - started
        )
        self.counter("mooring_http_requests_total", "HTTP requests answered.", self.requests)
        self.counter("mooring_http_failures_total", "Of these, with status 5xx.", self.failures)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a value that is read at each exposition; `read` must be quick."""
        self._register(_Metric(name, text, "gauge", read))

    def counter(self, name: str, text: str, counter: Counter) -> None:
        """Register a counter."""
        self._register(_Metric(name, text, "counter", lambda: counter.value))

    def exposition(self) -> str:
        """Return all metrics in Prometheus' text format 0.0.4."""
        lines = []
        for metric in self._metrics.values():
            lines.append(f"# HELP {metric.name} {metric.text}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines.append(f"{metric.name} {float(metric.read()):.15g}")
        return "\n".join(lines) + "\n"

    def _register(self, metric: _Metric) -> None:
        if metric.name in self._metrics:
            raise ValueError(f"the metric {metric.name} is registered twice")
        self._metrics[metric.name] = metric
