"""What `/metrics` says of tunnels: one family per count, labelled by who dialled.

docs/metrics.md lists the families; a test compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate
from typing import TypeVar

from hub.telemetry import Kind, Sample, Telemetry
from protocol.counts import Counts, Death, Flood, Histogram, Refusal
from protocol.errors import GoAwayCode, ResetCode
from protocol.windows import PROCESS_BUDGET, Budget

EnumT = TypeVar("EnumT", bound=Enum)


@dataclass(frozen=True, slots=True)
class TunnelTotals:
    """What all tunnels of the hub share: the receive budget, and the counts of each kind."""

    budget: Budget = field(default_factory=lambda: Budget(PROCESS_BUDGET))
    agents: Counts = field(default_factory=Counts)
    clients: Counts = field(default_factory=Counts)

    @property
    def kinds(self) -> tuple[tuple[str, Counts], ...]:
        """The counts with the label of their kind."""
        return ("agent", self.agents), ("client", self.clients)


def expose_tunnels(telemetry: Telemetry, totals: TunnelTotals) -> None:
    """Register everything that is known of tunnels."""
    _expose_load(telemetry, totals)
    _expose_harm(telemetry, totals)
    _expose_budget(telemetry, totals.budget)


def _expose_load(telemetry: Telemetry, totals: TunnelTotals) -> None:
    def plain(name: str, text: str, kind: Kind, read: Callable[[Counts], float]) -> None:
        def samples() -> Iterable[Sample]:
            return [Sample(read(counts), {"kind": label}) for label, counts in totals.kinds]

        telemetry.family(f"mooring_tunnel_{name}", text, kind, samples)

    plain("sessions", "Tunnels now.", "gauge", lambda of: of.sessions)
    plain("streams", "Streams open now.", "gauge", lambda of: of.streams_open)
    plain("streams_stalled", "With data and no credit now.", "gauge", lambda of: of.streams_stalled)
    plain("replay_bytes", "Kept until peers have it.", "gauge", lambda of: of.replay_bytes)
    plain("resumptions_total", "Went on after a cut.", "counter", lambda of: of.resumptions)
    plain("sent_bytes_total", "Bytes of frames sent.", "counter", lambda of: of.bytes_sent)
    plain("received_bytes_total", "And received.", "counter", lambda of: of.bytes_received)
    plain("credit_stalls_total", "Waits for credit over.", "counter", lambda of: of.credit_stalls)
    plain("overruns_total", "Data beyond the credit.", "counter", lambda of: of.overruns)
    plain("sheds_total", "Streams reset for the budget.", "counter", lambda of: of.sheds)
    telemetry.family(
        "mooring_tunnel_rtt_seconds",
        "Round trips of pings.",
        "histogram",
        lambda: [
            sample
            for label, counts in totals.kinds
            for sample in _histogram(counts.rtt_s, {"kind": label})
        ],
    )


def _expose_harm(telemetry: Telemetry, totals: TunnelTotals) -> None:
    def by(
        name: str,
        text: str,
        label: str,
        values: type[EnumT],
        read: Callable[[Counts], Counter[EnumT]],
    ) -> None:
        def samples() -> Iterable[Sample]:
            for kind, counts in totals.kinds:
                found = read(counts)
                for value in values:
                    labels = {"kind": kind, label: _label_of(value)}
                    yield Sample(found[value], labels)

        telemetry.family(f"mooring_tunnel_{name}_total", text, "counter", samples)

    by("resets_sent", "Streams we reset.", "code", ResetCode, lambda of: of.resets_sent)
    by("resets_received", "Peers reset.", "code", ResetCode, lambda of: of.resets_received)
    by("goaways_sent", "Tunnels we ended.", "code", GoAwayCode, lambda of: of.goaways_sent)
    by("goaways_received", "Peers ended.", "code", GoAwayCode, lambda of: of.goaways_received)
    by("violations", "Against the protocol.", "code", GoAwayCode, lambda of: of.violations)
    by("opens_refused", "OPENs not taken.", "reason", Refusal, lambda of: of.opens_refused)
    by("floods", "Too much of something.", "of", Flood, lambda of: of.floods)
    by("deaths", "Tunnels cut for a deadline.", "reason", Death, lambda of: of.deaths)


def _expose_budget(telemetry: Telemetry, budget: Budget) -> None:
    gauge = telemetry.gauge
    gauge("mooring_receive_budget_bytes", "May be promised, and held.", lambda: budget.limit)
    gauge("mooring_receive_promised_bytes", "Beyond initial windows.", lambda: budget.used)
    gauge("mooring_receive_held_bytes", "Received and unread.", lambda: budget.holdings.held)


def _histogram(histogram: Histogram, labels: Mapping[str, str]) -> Iterable[Sample]:
    below = list(accumulate(histogram.counts))
    bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
    for bound, count in zip(bounds, below, strict=True):
        yield Sample(count, {**labels, "le": bound}, "_bucket")
    yield Sample(histogram.sum, labels, "_sum")
    yield Sample(below[-1], labels, "_count")


def _label_of(value: Enum) -> str:
    return value.value if isinstance(value.value, str) else value.name.lower()
