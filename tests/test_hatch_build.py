"""When the build hook makes the pages, and when it leaves them alone."""

from __future__ import annotations

import os
from pathlib import Path

from hatch_build import is_current, sources


def write(path: Path, at: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    os.utime(path, (at, at))
    return path


def test_pages_that_are_not_there_are_built(tmp_path: Path) -> None:
    write(tmp_path / "ui/src/main.ts", 100)
    assert not is_current(tmp_path / "static/index.html", tmp_path / "ui")


def test_pages_older_than_a_source_are_built_again(tmp_path: Path) -> None:
    index = write(tmp_path / "static/index.html", 200)
    write(tmp_path / "ui/src/main.ts", 100)
    assert is_current(index, tmp_path / "ui")
    write(tmp_path / "ui/src/pages/NodesPage.vue", 201)
    assert not is_current(index, tmp_path / "ui")


def test_what_npm_installed_is_no_source(tmp_path: Path) -> None:
    index = write(tmp_path / "static/index.html", 200)
    main = write(tmp_path / "ui/src/main.ts", 100)
    write(tmp_path / "ui/node_modules/vue/index.js", 300)
    assert list(sources(tmp_path / "ui")) == [main]
    assert is_current(index, tmp_path / "ui")


def test_built_pages_without_their_sources_are_taken(tmp_path: Path) -> None:
    assert is_current(write(tmp_path / "static/index.html", 200), tmp_path / "ui")
