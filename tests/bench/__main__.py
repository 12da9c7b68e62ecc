"""Run the benchmarks, print tables, write bench.json; or render a bench.json once more.

python -m tests.bench [BENCHMARK...] [options]
python -m tests.bench report [bench.json...] [--into docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import platform
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.bench import (
    carriers,
    commands,
    forwards,
    goals,
    latency,
    memory,
    scale,
    stalled,
    terminals,
)
from tests.bench.measure import load
from tests.bench.peers import npm, openssh
from tests.bench.report import Report, Result, machine, put, read, text, write
from tests.bench.stage import PLOT, Absent, Options, Stages
from tests.bench.tunnels import OURS

BENCHMARKS: dict[str, Callable[[Stages], Result]] = {
    "forward": forwards.run,
    "latency": latency.run,
    "memory": memory.run,
    "shell": terminals.run,
    "exec": commands.run,
    "stalled": stalled.run,
    "carriers": carriers.run,
    "scale": scale.run,
}
"""forward: B1–B3; latency: the same over long links; shell: B5; exec: B4; stalled: B11; scale: B4,
B7–B9 and B15 with simulated agents."""
DEFAULT = [name for name in BENCHMARKS if name != "scale"]
"""What runs without being named: not what takes half an hour a round."""
MOST_AGENTS, MOST_SIMULATED = 200, 50_000
PACKAGES = ("mooring", "picows", "uvloop", "asyncssh", "websockets")
NPM_PACKAGES = ("meshcentral", "wstunnel")
TERMINATED = 128 + signal.SIGTERM


def main(argv: list[str]) -> int:
    """Run what was asked for."""
    if argv[:1] == ["report"]:
        return _report(argv[1:])
    chosen = _parse(argv)
    # `timeout` and friends end the programs that were started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    options = Options(
        chosen.rounds, chosen.seconds, tuple(chosen.agents), not chosen.no_peers, chosen.plot
    )
    before, absent, results = load(), Absent(), dict[str, Result]()
    for name in chosen.benchmarks:
        run = BENCHMARKS[name]
        with absent.spare(name):
            results[_script(run)] = run(Stages(options, absent))
    report = Report(
        at=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        commit=_commit(),
        machine=machine(),
        versions=_versions(),
        command=_command(chosen),
        rounds=options.rounds,
        load_before=before,
        load_after=load(),
        missing=absent.reasons,
        results=results,
    )
    print(text(report, goals.table(results)))
    write(report, chosen.output)
    return 0 if len(results) == len(chosen.benchmarks) and _complete(results) else 1


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(BENCHMARKS)
    parser.add_argument(
        "benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {names}; default: all but scale"
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternating rounds (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a bulk load (3)")
    parser.add_argument(
        "--agents",
        type=int,
        nargs="*",
        default=[],
        help="sizes of fleets (exec: 10 50; scale: 10 100 1000 10000)",
    )
    parser.add_argument("--no-peers", action="store_true", help="only ourselves and the relay")
    parser.add_argument("--output", type=Path, default=Path("bench.json"))
    parser.add_argument("--plot", type=Path, default=PLOT, help="of scale's growth")
    chosen = parser.parse_args(argv)
    unknown = set(chosen.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {names}")
    if not 1 <= chosen.rounds <= 20 or not 0.5 <= chosen.seconds <= 20:
        parser.error("rounds are 1 to 20, seconds 0.5 to 20")
    chosen.benchmarks = [name for name in BENCHMARKS if name in (chosen.benchmarks or DEFAULT)]
    most = MOST_AGENTS if "exec" in chosen.benchmarks else MOST_SIMULATED
    if any(not 1 <= size <= most for size in chosen.agents):
        parser.error(f"a fleet has 1 to {most} agents")
    return chosen


def _report(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench report", description=_report.__doc__
    )
    parser.add_argument("files", nargs="*", type=Path, default=[Path("bench.json")])
    parser.add_argument("--into", type=Path, help="a document with the two markers")
    chosen = parser.parse_args(argv)
    try:
        reports = [read(path) for path in chosen.files]
        block = "\n".join(text(report, goals.table(report.results)) for report in reports)
        if chosen.into is None:
            print(block)
        else:
            chosen.into.write_text(put(chosen.into.read_text(), block))
    except (OSError, ValueError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    return 0


def _command(chosen: argparse.Namespace) -> str:
    """What to type for the same run again, wherever its output went."""
    words = ["python -m tests.bench", *chosen.benchmarks]
    words += [f"--rounds {chosen.rounds}", f"--seconds {chosen.seconds:g}"]
    if chosen.agents:
        words.append(f"--agents {' '.join(map(str, chosen.agents))}")
    return " ".join([*words, *(["--no-peers"] if chosen.no_peers else [])])


def _complete(results: dict[str, Result]) -> bool:
    """Whether we ourselves were measured wherever something was."""
    rounds = [found for result in results.values() for found in result.rounds.values() if found]
    return all(any(peer.startswith(OURS) for peer in found) for found in rounds)


def _script(run: Callable[[Stages], Result]) -> str:
    return f"{run.__module__.replace('.', '/')}.py"


def _commit() -> str:
    """Of the working tree; says when files differ from it."""
    argv = ["git", "describe", "--always", "--dirty=, changed", "--exclude=*"]
    try:
        done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _versions() -> list[str]:
    found = [f"Python {platform.python_version()}", ssl.OPENSSL_VERSION]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    found += [f"{name} {number}" for name in NPM_PACKAGES if (number := npm.version(name))]
    return [*found, *filter(None, [openssh.version()])]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
