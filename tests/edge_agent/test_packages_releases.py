"""Releases switch atomically: a crash at any step leaves the old or the new one."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.packages.disk import NodeRefused
from edge_agent.packages.outcomes import KEPT_OUTCOMES, Outcome, Outcomes
from edge_agent.packages.releases import Release, Releases, directory_name, new_release
from protocol.archive_rules import ArchiveRefused
from tests.archives import make_tar

RUNNING = threading.Event()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def archive(
    tmp_path: Path, version: str, files: dict[str, bytes] | None = None
) -> tuple[Path, str]:
    data = make_tar(files or {"version": version.encode()})
    path = tmp_path / f"{version}.tar.gz"
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def install(releases: Releases, tmp_path: Path, version: str) -> Release:
    path, digest = archive(tmp_path, version)
    release = new_release(version, digest, f"d{version}")
    directory = releases.unpack("web", release, path, "tar.gz", RUNNING)
    releases.switch("web", directory, release)
    releases.clean("web")
    return release


def current_version(root: Path) -> str:
    return (root / "web/current/version").read_text()


def test_install_update_and_back(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    releases = Releases(root)
    first = install(releases, tmp_path, "1")
    assert current_version(root) == "1"
    install(releases, tmp_path, "2")
    assert current_version(root) == "2"
    assert releases.current("web") != first
    install(releases, tmp_path, "1")
    assert current_version(root) == "1"
    [package] = releases.installed()
    assert (package.name, package.version, package.digest) == ("web", "1", first.digest)
    assert str((root / "web/current").readlink()) == f"releases/1-{first.digest[:8]}"


def test_three_releases_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    releases = Releases(root)
    kept = [directory_name(install(releases, tmp_path, str(version))) for version in range(5)][2:]
    assert names(root / "web/releases") == sorted(kept)


def test_a_failed_first_install_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    path, digest = archive(tmp_path, "1", {"ok": b"", "../evil": b""})
    with pytest.raises(ArchiveRefused):
        Releases(root).unpack("web", new_release("1", digest, "d"), path, "tar.gz", RUNNING)
    assert list(root.iterdir()) == []


def test_a_failed_update_leaves_the_old_release(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    releases = Releases(root)
    old = install(releases, tmp_path, "1")
    path, digest = archive(tmp_path, "2", {"ok": b"", "../evil": b""})
    with pytest.raises(ArchiveRefused):
        releases.unpack("web", new_release("2", digest, "d"), path, "tar.gz", RUNNING)
    assert current_version(root) == "1"
    assert names(root / "web/releases") == [directory_name(old)]


def test_uninstall_removes_everything(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    releases = Releases(root)
    install(releases, tmp_path, "1")
    assert releases.remove("web")
    assert list(root.iterdir()) == []
    assert not releases.remove("web")


def test_a_damaged_record_counts_as_not_installed(tmp_path: Path) -> None:
    root = tmp_path / "packages"
    releases = Releases(root)
    install(releases, tmp_path, "1")
    (root / "web/install.json").write_bytes(b"{")
    assert releases.installed() == []
    install(releases, tmp_path, "2")
    assert current_version(root) == "2"


class Crash(BaseException):
    """The process was killed here."""


@contextmanager
def killed_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the step-th change to the file system fail as if the process had died before it."""
    left = [step]

    def dying(call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **named: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return call(*arguments, **named)

        return wrapper

    with monkeypatch.context() as patched:
        for name in ("rename", "replace", "symlink", "mkdir", "unlink", "rmdir", "open"):
            patched.setattr(os, name, dying(getattr(os, name)))
        yield


def test_a_kill_at_any_step_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = False
    step = 0
    while not finished:
        work = tmp_path / str(step)
        root = work / "packages"
        work.mkdir()
        releases = Releases(root)
        for version in ("0", "1", "2", "3"):
            install(releases, work, version)
        try:
            with killed_at(step, monkeypatch):
                install(releases, work, "4")
                finished = True
        except Crash:
            pass
        [seen] = Releases(root).installed()
        assert seen.version in ("3", "4"), step
        assert current_version(root) == seen.version, step
        install(Releases(root), work, "5")
        assert current_version(root) == "5"
        assert len(names(root / "web/releases")) == 3
        assert names(root / "web") == ["current", "install.json", "releases"]
        step += 1
    assert step > 10


def test_a_kill_while_removing_leaves_it_whole_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(8):
        work = tmp_path / str(step)
        work.mkdir()
        releases = Releases(work / "packages")
        install(releases, work, "1")
        try:
            with killed_at(step, monkeypatch):
                releases.remove("web")
        except Crash:
            pass
        after = Releases(work / "packages")
        if after.installed():
            assert current_version(work / "packages") == "1"
        else:
            assert list((work / "packages").iterdir()) == []


def test_outcomes_are_remembered_and_bounded(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path)
    assert outcomes.find("d1") is None
    for number in range(KEPT_OUTCOMES):
        path = tmp_path / f"old{number}.json"
        path.write_bytes(b"{}")
        os.utime(path, (number, number))
    outcomes.store("d1", Outcome(ok=True, changed=True))
    assert outcomes.find("d1") == Outcome(ok=True, changed=True)
    assert len(list(tmp_path.iterdir())) == KEPT_OUTCOMES
    assert not (tmp_path / "old0.json").exists()


@pytest.mark.parametrize("deployment", ["", "../x", "a/b", "a" * 65, "."])
def test_ids_cannot_leave_the_directory(tmp_path: Path, deployment: str) -> None:
    with pytest.raises(NodeRefused):
        Outcomes(tmp_path).find(deployment)
