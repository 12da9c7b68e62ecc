"""The hub's own metrics as Prometheus text: what parts register, read when somebody asks.

    telemetry.gauge("mooring_nodes_connected", "Nodes with a tunnel.", lambda: len(registry))
    telemetry.requests.add()
    telemetry.family("mooring_things_total", "Things, by colour.", "counter", read_things)

A family gives one `Sample` per combination of its labels; HELP and TYPE stand once above them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

_NAME = re.compile(r"mooring_[a-z0-9_]+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(slots=True)
class Counter:
    """A number that only grows."""

    value: int = 0

    def add(self, count: int = 1) -> None:
        """Count."""
        self.value += count


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a family: its value, its labels, and for histograms what follows the name."""

    value: float
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class _Family:
    name: str
    text: str
    kind: Kind
    read: Callable[[], Iterable[Sample]]


@dataclass(slots=True)
class Telemetry:
    """The registered metrics; names are unique and start with `mooring_`."""

    requests: Counter = field(default_factory=Counter)
    failures: Counter = field(default_factory=Counter)
    _families: dict[str, _Family] = field(default_factory=dict)

    def __post_init__(self) -> None:
        started = time.monotonic()
        self.gauge(
            "mooring_uptime_seconds", "Since the hub started.", lambda: time.monotonic() - started
        )
        self.counter("mooring_http_requests_total", "HTTP requests answered.", self.requests)
        self.counter("mooring_http_failures_total", "Of these, with status 5xx.", self.failures)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a value that is read at each exposition; `read` must be quick."""
        self.family(name, text, "gauge", lambda: (Sample(read()),))

    def counter(self, name: str, text: str, counter: Counter) -> None:
        """Register a counter."""
        self.family(name, text, "counter", lambda: (Sample(counter.value),))

    def family(
        self, name: str, text: str, kind: Kind, read: Callable[[], Iterable[Sample]]
    ) -> None:
        """Register what gives several samples; `read` must be quick, its labels few.

        Raises:
            ValueError: the name is taken, or not one of ours.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name} is no metric's name: mooring_ and a-z, 0-9, _")
        if name in self._families:
            raise ValueError(f"the metric {name} is registered twice")
        self._families[name] = _Family(name, text, kind, read)

    def exposition(self) -> str:
        """Return all metrics in Prometheus' text format 0.0.4."""
        lines = []
        for family in self._families.values():
            lines.append(f"# HELP {family.name} {_escaped(family.text)}")
            lines.append(f"# TYPE {family.name} {family.kind}")
            lines += [_line(family.name, sample) for sample in family.read()]
        return "\n".join(lines) + "\n"


def _line(name: str, sample: Sample) -> str:
    return f"{name}{sample.suffix}{_labels(sample.labels)} {float(sample.value):.15g}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(f"{label!r} is no label's name: a-z, 0-9, _")
    quoted = (f'{label}="{_quoted(value)}"' for label, value in labels.items())
    return "{" + ",".join(quoted) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')
