"""Runs the worker: one target, one process, bounded; says how to repeat what it finds."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.corpus import CORPUS

ROOT = Path(__file__).parents[2]
MEMORY_MB = 1500
ONE_INPUT_S = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one run ended."""

    found: bytes | None
    """The input that broke a promise."""
    log: str

    def __str__(self) -> str:
        """The input as hex and the end of what was said, which names the promise."""
        shown = "" if self.found is None else self.found[:2000].hex()
        return f"input: {shown}\n{self.log[-6000:]}"


def why_not() -> str | None:
    """Why there is no coverage-guided fuzzing here; None when there is."""
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        return f"atheris has no wheel for Python {version} on this machine"
    return None


def fuzz(target: str, scratch: Path, *limits: str, seed: int = 1) -> Outcome:
    """Fuzz a target from its corpus and from what `scratch/TARGET` gathered before.

    Args:
        target: a name of `tests.fuzz.targets.TARGETS`.
        scratch: where new inputs, and the one that broke a promise, are kept.
        limits: options of libFuzzer that end the run.
        seed: the same seed, corpus and number of runs try the same inputs.
    """
    gathered, begun = scratch / target, CORPUS / target
    gathered.mkdir(parents=True, exist_ok=True)
    for old in scratch.glob(f"{target}.*-*"):
        old.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.worker", target, f"-seed={seed}",
         f"-timeout={ONE_INPUT_S}", f"-rss_limit_mb={MEMORY_MB}",
         f"-artifact_prefix={scratch / target}.", "-print_final_stats=1", *limits,
         str(gathered), *([str(begun)] if begun.exists() else [])],
        cwd=ROOT, capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    broken = next(scratch.glob(f"{target}.*-*"), None)
    found = None if broken is None else broken.read_bytes()
    if done.returncode and found is None:
        raise RuntimeError(f"{target} could not be fuzzed: {done.stdout}{done.stderr}")
    return Outcome(found, done.stdout + done.stderr)
