"""How costs grow with the fleet, as one SVG; the same values give the same bytes."""

from __future__ import annotations

from pathlib import Path

from tests.bench.measure import Rounds
from tests.bench.report import say

_PANELS = (
    ("B7: hub memory per agent", "KiB", "kib_per_agent", False),
    ("B9: hub CPU at rest", "% of a core", "rest_percent", True),
    ("B8: all back after a crash", "s", "crash_back_s", True),
    ("B4: run true on all, p50", "ms", "exec_p50_ms", True),
)
"""Title, unit, metric, and whether linear growth is a slope."""


def draw(values: Rounds, path: Path) -> None:
    """Draw each cost over the number of agents, beside what linear growth would be."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    if not values.peers:
        return
    with mpl.rc_context({"svg.hashsalt": "mooring", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 6), layout="constrained")
        for axes, (title, unit, metric, slope) in zip(
            figure.subplots(2, 2).flat, _PANELS, strict=True
        ):
            found = [(values.median(p, "agents"), values.median(p, metric)) for p in values.peers]
            points = [(size, cost) for size, cost in found if size and cost is not None]
            if not points:
                continue
            sizes, costs = zip(*points, strict=True)
            linear = [costs[-1] * (size / sizes[-1] if slope else 1.0) for size in sizes]
            axes.plot(sizes, linear, "--", color="#999999", label="linear, through the last")
            axes.plot(sizes, costs, "o-", color="#1f6feb", label="measured")
            axes.set_title(title)
            axes.set_xlabel("agents")
            axes.set_ylabel(unit)
            axes.set_xscale("log")
            if slope:
                axes.set_yscale("log")
            else:
                axes.set_ylim(bottom=0)
            axes.legend(frameon=False)
            axes.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
    say(f"{path} shows the growth")
