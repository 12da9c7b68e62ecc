"""`make fuzz`: each target for a while, going on from what earlier runs gathered in `.fuzz/`."""

from __future__ import annotations

import argparse
import secrets
import sys

from tests.fuzz.atheris_run import ROOT, fuzz, why_not
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz; returns 1 when a promise was broken."""
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    broken = 0
    for target in options.targets or TARGETS:
        seed = secrets.randbelow(2**31 - 1) + 1
        outcome = fuzz(target, ROOT / ".fuzz", f"-max_total_time={options.seconds}", seed=seed)
        runs = next((line.split()[1] for line in outcome.log.splitlines()
                     if line.startswith("stat::number_of_executed_units:")), "?")  # fmt: skip
        print(f"{target:10} {runs:>10} inputs  {'BROKEN' if outcome.found else 'ok'}", flush=True)
        if outcome.found is not None:
            broken += 1
            print(f"{outcome}\nin {ROOT / '.fuzz'}; name it and put it into tests/fuzz/corpus")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
