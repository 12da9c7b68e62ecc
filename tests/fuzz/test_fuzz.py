"""Every input that was worth keeping, and a few thousand that grow from it, break no promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.atheris_run import fuzz, why_not
from tests.fuzz.corpus import CORPUS, recorded, seeds
from tests.fuzz.targets import TARGETS

RUNS = {"session": 300, "target": 2_000, "proxy": 2_000}
"""Each takes a few seconds; the others are faster."""
OTHERS = 10_000
CORPUS_LIMIT_BYTES = 300 * 1024


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_no_promise(target: str) -> None:
    paths = recorded(target)
    assert paths
    for path in paths:
        TARGETS[target](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_what_grows_from_the_corpus_breaks_no_promise(target: str, tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    outcome = fuzz(target, tmp_path, f"-runs={RUNS.get(target, OTHERS)}", "-max_len=2048")
    assert outcome.found is None, str(outcome)


def test_the_corpus_is_what_its_script_writes_and_stays_small() -> None:
    for target, inputs in seeds().items():
        names = {path.name for path in recorded(target)}
        assert inputs.keys() <= names, "run: python -m tests.fuzz.corpus"
    assert seeds().keys() == TARGETS.keys()
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < (
        CORPUS_LIMIT_BYTES
    )


def test_a_broken_promise_is_found_and_told(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    outcome = fuzz("fragile", tmp_path, f"-runs={OTHERS}")
    assert outcome.found is not None
    assert outcome.found.startswith(b"!")
    assert "promised never to begin like this" in str(outcome)
    assert outcome.found.hex() in str(outcome)
