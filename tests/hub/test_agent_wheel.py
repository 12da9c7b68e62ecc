from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from hub.agent_wheel import build_agent_wheel
from hub.errors import Unavailable

METADATA = "Metadata-Version: 2.4\nName: mooring\nVersion: 1.2.3\nRequires-Dist: msgspec\n"
ENTRY_POINTS = "[console_scripts]\nmooring = mooring.cli.main:main\n"


@pytest.fixture
def source(tmp_path: Path) -> Distribution:
    """The metadata as an editable install leaves it: no files beside it."""
    info = tmp_path / "mooring-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return Distribution.at(info)


def test_pip_installs_what_was_built(source: Distribution, tmp_path: Path) -> None:
    wheel = build_agent_wheel(source)
    assert wheel.name == "mooring-1.2.3-py3-none-any.whl"
    file, target = tmp_path / wheel.name, tmp_path / "target"
    file.write_bytes(wheel.content)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(file)], check=True)
    assert (target / "edge_agent" / "join.py").is_file()
    assert (target / "bin" / "mooring").is_file()
    assert not (target / "hub").exists()
    imports = "import certs.contexts, edge_agent.join, protocol.messages; print(certs.__file__)"
    # -I leaves out the checkout: only what the wheel brought, and its dependencies.
    probe = f"import sys; sys.path.insert(0, {str(target)!r}); {imports}"
    found = subprocess.run(
        [sys.executable, "-I", "-c", probe], check=True, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(target))


def test_the_record_names_every_file_with_its_digest(source: Distribution) -> None:
    archive = zipfile.ZipFile(io.BytesIO(build_agent_wheel(source).content))
    record = archive.read("mooring-1.2.3.dist-info/RECORD").decode().splitlines()
    assert sorted(line.split(",")[0] for line in record) == sorted(archive.namelist())
    assert archive.testzip() is None
    assert not [name for name in archive.namelist() if "__pycache__" in name]


def test_the_same_code_gives_the_same_bytes(source: Distribution) -> None:
    assert build_agent_wheel(source) == build_agent_wheel(source)


def test_missing_pieces_are_named(source: Distribution, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no_such_package"):
        build_agent_wheel(source, ["no_such_package"])
    empty = tmp_path / "empty-1.dist-info"
    empty.mkdir()
    with pytest.raises(Unavailable, match="no metadata"):
        build_agent_wheel(Distribution.at(empty))
    (empty / "METADATA").write_text("Metadata-Version: 2.4\nName: mooring\nVersion: 1\n")
    with pytest.raises(Unavailable, match="names what an agent needs"):
        build_agent_wheel(Distribution.at(empty))
