"""The cache goes on where it was cut, whatever was lost, and trusts only what has its digest."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.packages import cache as cache_module
from edge_agent.packages.cache import Cache, Partial, Plan
from edge_agent.packages.disk import NodeRefused, require_room

RUNNING = threading.Event()
CHUNK = 4096


def plan_of(data: bytes, chunk_bytes: int = CHUNK) -> Plan:
    pieces = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    digests = b"".join(hashlib.sha256(piece).digest() for piece in pieces)
    return Plan(hashlib.sha256(data).hexdigest(), len(data), chunk_bytes, digests)


def chunk(data: bytes, index: int) -> bytes:
    return data[index * CHUNK : (index + 1) * CHUNK]


def begin(plan: Plan, cache: Cache) -> Partial:
    partial = Partial(plan, cache)
    partial.begin(RUNNING)
    return partial


def receive(data: bytes, cache: Cache) -> Path:
    plan = plan_of(data)
    partial = begin(plan, cache)
    for index in range(plan.count):
        assert partial.store(index, chunk(data, index))
    path = partial.finish(RUNNING)
    partial.close()
    return path


def test_a_whole_artifact_is_found_by_its_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "artifacts")
    data = Random(1).randbytes(3 * CHUNK + 17)
    path = receive(data, cache)
    assert path.read_bytes() == data
    assert cache.find(plan_of(data).digest) == path
    assert [p.name for p in cache.root.iterdir()] == [path.name]


def test_an_empty_artifact_is_complete_at_once(tmp_path: Path) -> None:
    assert receive(b"", Cache(tmp_path)).read_bytes() == b""


def test_a_damaged_chunk_is_not_kept(tmp_path: Path) -> None:
    data = Random(2).randbytes(2 * CHUNK)
    partial = begin(plan_of(data), Cache(tmp_path))
    assert not partial.store(0, b"x" * CHUNK)
    assert partial.missing(10) == [(0, 1)]
    partial.close()


def test_chunks_that_lie_about_the_whole_are_refused_and_removed(tmp_path: Path) -> None:
    data = Random(3).randbytes(CHUNK)
    honest = plan_of(data)
    lying = Plan("0" * 64, honest.size_bytes, CHUNK, honest.chunk_digests)
    partial = begin(lying, Cache(tmp_path))
    partial.store(0, data)
    with pytest.raises(NodeRefused, match="SHA-256"):
        partial.finish(RUNNING)
    partial.close()
    assert list(tmp_path.iterdir()) == []


def test_another_cut_of_the_same_artifact_starts_anew(tmp_path: Path) -> None:
    data = Random(4).randbytes(4 * CHUNK)
    cache = Cache(tmp_path)
    partial = begin(plan_of(data), cache)
    partial.store(0, chunk(data, 0))
    partial.close()
    again = begin(plan_of(data, 2 * CHUNK), cache)
    assert again.missing(10) == [(0, 1)]
    again.close()


def test_missing_ranges_are_bounded_and_cover_all(tmp_path: Path) -> None:
    data = Random(5).randbytes(9 * CHUNK)
    partial = begin(plan_of(data), Cache(tmp_path))
    for index in (1, 3, 5):
        partial.store(index, chunk(data, index))
    assert partial.missing(10) == [(0, 0), (2, 2), (4, 4), (6, 8)]
    assert partial.missing(2) == [(0, 0), (2, 8)]
    partial.close()


def test_digests_must_fit_the_size() -> None:
    with pytest.raises(NodeRefused, match="digests"):
        Plan("0" * 64, 2 * CHUNK, CHUNK, b"\0" * 32)


def test_too_little_room_is_refused_with_numbers(tmp_path: Path) -> None:
    data_size = 1 << 60
    with pytest.raises(NodeRefused, match=r"MiB needed .* MiB free"):
        require_room(tmp_path, data_size)
    lying = Plan("0" * 64, 4 * 1024**2 * 1024**3, 4 * 1024**3, b"\0" * 32 * 1024**2)
    with pytest.raises(NodeRefused, match="not enough disk space"):
        Partial(lying, Cache(tmp_path)).begin(RUNNING)
    assert list(tmp_path.iterdir()) == []


def test_old_artifacts_and_abandoned_parts_are_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    paths = [receive(Random(seed).randbytes(10), cache) for seed in range(6)]
    for age, path in enumerate(paths):
        os.utime(path, (1000.0 - age, 1000.0 - age))
    abandoned = tmp_path / f"{'0' * 64}.partial"
    abandoned.mkdir()
    os.utime(abandoned, (0.0, 0.0))
    cache.prune(now=1000.0 + 60)
    assert len(list(tmp_path.iterdir())) == 7
    cache.prune(now=1000.0 + cache_module.KEPT_FRESH_S + 10)
    cache.prune(now=cache_module.KEPT_PARTIAL_S + 10)
    assert sorted(tmp_path.iterdir()) == sorted(paths[:3])


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 12),
    kills=st.lists(st.sampled_from(["kill", "tear journal", "lose data", "garble"]), max_size=6),
)
def test_any_order_and_any_crash_end_in_the_whole(seed: int, count: int, kills: list[str]) -> None:
    random = Random(seed)
    data = random.randbytes(count * CHUNK - random.randrange(CHUNK))
    plan = plan_of(data)
    with TemporaryDirectory() as root:
        cache = Cache(Path(root))
        for kill in [*kills, None]:
            partial = begin(plan, cache)
            wanted = [i for first, last in partial.missing(100) for i in range(first, last + 1)]
            random.shuffle(wanted)
            if kill is not None:
                wanted = wanted[: random.randrange(len(wanted) + 1)]
            for index in wanted:
                assert partial.store(index, chunk(data, index))
            if kill is not None:
                partial.close()
                crash(kill, cache.root / f"{plan.digest}.partial", random)
        assert partial.is_complete
        assert partial.finish(RUNNING).read_bytes() == data
        partial.close()


def crash(kill: str, directory: Path, random: Random) -> None:
    """Do to the files what a kill or a power cut may do."""
    journal, content = directory / "chunks", directory / "data"
    match kill:
        case "tear journal":
            journal.write_bytes(journal.read_bytes()[: random.randrange(40)])
        case "lose data":
            os.truncate(content, random.randrange(content.stat().st_size + 1))
        case "garble":
            journal.write_bytes(journal.read_bytes() + random.randbytes(7))
        case _:
            pass
