"""One target under atheris, in a process of its own: `python -m tests.fuzz.worker TARGET ...`.

What follows the target's name goes to libFuzzer. Everything of ours that is imported from here on
is instrumented, so this module itself imports none of it.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["protocol", "hub", "edge_agent"]):
    from tests.fuzz.targets import TARGETS, fragile

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, {**TARGETS, "fragile": fragile}[name])
    atheris.Fuzz()
