"""Peers from npm: installed once, each into a folder of its own in the cache directory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.bench.programs import Missing, cache_directory, tool

INSTALL_TIMEOUT_S = 300


def install(name: str) -> Path:
    """The package's directory; installed by npm when it isn't there.

    Raises:
        Missing: npm can't have it.
    """
    package = _package(name)
    if (package / "package.json").exists():
        return package
    place = package.parent.parent
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text('{"private": true}\n')
    argv = [tool("npm", "npm"), "install", "--no-audit", "--no-fund", name]
    try:
        subprocess.run(
            argv, cwd=place, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S
        )
    except subprocess.CalledProcessError as error:
        raise Missing(f"npm can't install {name}: {error.stderr[-200:]}") from error
    except subprocess.TimeoutExpired as error:
        raise Missing(f"npm took longer than {INSTALL_TIMEOUT_S} s for {name}") from error
    return package


def version(name: str) -> str | None:
    """Of an installed package; None when it isn't."""
    manifest = _package(name) / "package.json"
    if not manifest.exists():
        return None
    return str(json.loads(manifest.read_text())["version"])


def _package(name: str) -> Path:
    return cache_directory() / name / "node_modules" / name
