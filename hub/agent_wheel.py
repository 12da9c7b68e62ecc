"""The wheel that new nodes install: this hub's code without the hub, built when asked for.

Metadata comes from the installed distribution, files from the packages as they are imported, so
that a checkout installed in editable mode serves what it runs. The same code gives the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from hub.errors import Unavailable

PACKAGES = ("protocol", "certs", "edge_agent", "mooring")
_TAG = "py3-none-any"
_WHEEL = f"Wheel-Version: 1.0\nGenerator: mooring\nRoot-Is-Purelib: true\nTag: {_TAG}\n"
_LEFT_OUT = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class AgentWheel:
    """A wheel file."""

    name: str
    content: bytes


def installed() -> Distribution:
    """Return the distribution that this hub runs from.

    Raises:
        Unavailable: the code was started without being installed.
    """
    try:
        return distribution("mooring")
    except PackageNotFoundError as error:
        raise Unavailable(
            "this hub runs from a folder that isn't installed, so it can't offer the agent; "
            "install it with pip install '.[hub]'"
        ) from error


def wheel_name(source: Distribution) -> str:
    """Return the file name of a distribution's agent wheel (PEP 427)."""
    return f"mooring-{source.version.replace('-', '_')}-{_TAG}.whl"


def build_agent_wheel(source: Distribution, packages: Sequence[str] = PACKAGES) -> AgentWheel:
    """Build the wheel of some packages with the metadata of a distribution.

    Raises:
        Unavailable: metadata or a package is missing.
    """
    metadata = source.read_text("METADATA")
    if metadata is None or "\nRequires-Dist:" not in metadata:
        raise Unavailable(
            "the installed mooring has no metadata that names what an agent needs; "
            "install it again with pip"
        )
    info = f"mooring-{source.version.replace('-', '_')}.dist-info"
    files = [entry for package in packages for entry in _files(package)]
    files += [
        (f"{info}/METADATA", metadata.encode()),
        (f"{info}/WHEEL", _WHEEL.encode()),
        (f"{info}/entry_points.txt", (source.read_text("entry_points.txt") or "").encode()),
    ]
    record = "".join(f"{name},{_digest(content)},{len(content)}\n" for name, content in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    return AgentWheel(wheel_name(source), _zip(files))


def _files(package: str) -> Iterator[tuple[str, bytes]]:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"the package {package} is not installed with this hub")
    folder = Path(next(iter(spec.submodule_search_locations)))
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and path.suffix != ".pyc" and not _LEFT_OUT.intersection(inside.parts):
            yield f"{package}/{inside.as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return "sha256=" + digest.decode().rstrip("=")


def _zip(files: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
