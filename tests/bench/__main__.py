"""`python -m tests.bench`: run the benchmarks, print tables, write bench.json."""

from __future__ import annotations

import argparse
import platform
import signal
import ssl
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tests.bench import commands, forwards, scale, terminals
from tests.bench.measure import load
from tests.bench.report import Report, Result, Table, machine, write
from tests.bench.stage import Stage, stage

Benchmark = Callable[[Stage, argparse.Namespace], Result]
BENCHMARKS: dict[str, Benchmark] = {
    "forward": lambda stage, chosen: forwards.run(stage, chosen.rounds, chosen.seconds),
    "exec": lambda stage, chosen: commands.run(stage, chosen.rounds, chosen.agents or [10, 50]),
    "shell": lambda stage, chosen: terminals.run(stage, chosen.rounds),
    "scale": lambda stage, chosen: scale.run(
        stage, chosen.agents or [10, 100, 1000, 10_000], chosen.plot
    ),
}
"""forward: B1–B3; exec: B4; shell: B5; scale: B7–B9, B15. The fleet of B4 comes last: its agents
stay."""
ORDER = ("forward", "shell", "scale", "exec")
DEFAULT = ("forward", "shell", "exec")
"""Without scale, which takes half an hour up to 10,000 agents."""


def main(argv: list[str]) -> int:
    """Run what was asked for."""
    chosen = _parse(argv)
    # `timeout` and friends end the programs that were started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    before = load()
    results: dict[str, Result] = {}
    tables: list[Table] = []
    alone = chosen.no_peers or chosen.benchmarks == ["scale"]
    with stage(peers=not alone) as up:
        for name in ORDER:
            if name in chosen.benchmarks:
                results[name] = BENCHMARKS[name](up, chosen)
                tables += results[name].tables
        report = Report(
            at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            machine=machine(),
            versions=_versions(up),
            command=" ".join(["python -m tests.bench", *argv]),
            load_before=before,
            load_after=load(),
            missing=up.missing,
            results=results,
        )
    write(report, chosen.output, tables)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "benchmarks",
        nargs="*",
        metavar="BENCHMARK",
        help=f"of {', '.join(ORDER)}; default: {', '.join(DEFAULT)}",
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a bulk load (3)")
    parser.add_argument(
        "--agents", type=int, nargs="*", help="sizes of fleets (10 50; scale: 10 100 1000 10000)"
    )
    parser.add_argument("--no-peers", action="store_true", help="only ourselves and the relay")
    parser.add_argument("--plot", type=Path, default=Path("docs/images/scale.svg"))
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    chosen = parser.parse_args(argv)
    unknown = set(chosen.benchmarks) - set(ORDER)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    if not 1 <= chosen.rounds <= 20 or not 0.5 <= chosen.seconds <= 20:
        parser.error("rounds are 1 to 20, seconds 0.5 to 20")
    chosen.benchmarks = chosen.benchmarks or list(DEFAULT)
    most = 200 if "exec" in chosen.benchmarks else 50_000  # real agents, or simulated ones
    if any(not 1 <= size <= most for size in chosen.agents or []):
        parser.error(f"a fleet has 1 to {most} agents")
    return chosen


def _versions(up: Stage) -> list[str]:
    found = [
        up.mooring.version,
        f"Python {platform.python_version()}",
        ssl.OPENSSL_VERSION,
        *(f"{name} {version(name)}" for name in ("picows", "uvloop", "asyncssh", "websockets")),
    ]
    if up.openssh is not None:
        found.append(up.openssh.version)
    if up.meshcentral is not None:
        found.append(up.meshcentral.version)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
