"""One mesh with three agents for all tests of this folder, and fresh ones to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.mesh import Mesh


@pytest.fixture(scope="package")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    made = Mesh(tmp_path_factory.mktemp("mesh"))
    try:
        made.add("web-1", "web-2", "db-1")
        yield made
    finally:
        made.close()


@pytest.fixture
def fresh_mesh(tmp_path: Path) -> Iterator[Callable[..., Mesh]]:
    made: list[Mesh] = []

    def make(*names: str, **options: object) -> Mesh:
        mesh = Mesh(tmp_path, **options)  # type: ignore[arg-type]
        made.append(mesh)
        mesh.add(*names)
        return mesh

    try:
        yield make
    finally:
        for mesh in made:
            mesh.close()
