"""The packages installed on a node: `packages/NAME/releases/VERSION-SHA8/` and the `current` link.

The rule it guards: the link is the only truth, and replacing it is one rename, so that after a
crash at any moment a package is at its old or its new release and never at neither.
`install.json` describes the releases; a release is in it before the link may point there, and
directories that are not in it are leftovers.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edge_agent.packages.disk import (
    sync_directory,
    sync_file_system,
    write_atomically,
)
from edge_agent.packages.extract import extract
from protocol.archive_rules import ArchiveFormat, valid_name
from protocol.messages import InstalledPackage

_log = logging.getLogger(__name__)

KEPT_RELEASES = 3
MAX_PACKAGES = 1000
"""What a report can carry."""
_SCRATCH = ".new-"
_REMOVED = ".removed-"


class Release(msgspec.Struct, frozen=True):
    """One unpacked version."""

    version: str
    digest: str
    deployment: str
    """The deployment that last made it current."""
    installed_at: float
    """When that was, in seconds since the epoch."""


class Record(msgspec.Struct, frozen=True):
    """What `install.json` holds: releases by the names of their directories."""

    releases: dict[str, Release] = {}


class Releases:
    """All packages of a node; methods block, and per package only one may run at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in root.glob(f"{_REMOVED}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def current(self, name: str) -> Release | None:
        """Return the release that a package's link points to, None when it isn't installed."""
        try:
            target = (self._root / name / "current").readlink()
        except OSError:
            return None
        return self._record(name).releases.get(target.name)

    def installed(self) -> list[InstalledPackage]:
        """Return what is installed, in the order of names."""
        return list(self._installed())[:MAX_PACKAGES]

    def is_full(self) -> bool:
        """Whether no further package can be reported, and so none be installed."""
        return len(self.installed()) >= MAX_PACKAGES

    def unpack(
        self,
        name: str,
        release: Release,
        archive: Path,
        archive_format: ArchiveFormat,
        stop: threading.Event,
    ) -> str:
        """Bring a release to disk, durably and whole, and return its directory's name.

        One that is there already is used again.

        Raises:
            ArchiveRefused, NodeRefused, OSError: as `extract`; nothing is left behind.
        """
        releases = self._root / name / "releases"
        releases.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = directory_name(release)
        if (releases / directory).is_dir():
            return directory
        self._clean_scratch(releases)
        scratch = releases / f"{_SCRATCH}{secrets.token_hex(4)}"
        try:
            extract(archive, archive_format, scratch, stop)
            sync_file_system(scratch)
            scratch.rename(releases / directory)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            self._remove_if_unused(name)
            raise
        sync_directory(releases)
        return directory

    def switch(self, name: str, directory: str, release: Release) -> None:
        """Make an unpacked release the current one."""
        package = self._root / name
        known = self._record(name).releases
        self._write(name, Record({**known, directory: release}))
        link = package / f"{_SCRATCH}{secrets.token_hex(4)}"
        link.symlink_to(Path("releases", directory))
        link.replace(package / "current")
        sync_directory(package)

    def clean(self, name: str) -> None:
        """Keep the current release and the two that were current last; remove all else."""
        package = self._root / name
        current = (package / "current").readlink().name
        known = self._record(name).releases
        newest = sorted(known, key=lambda one: known[one].installed_at, reverse=True)
        kept = {current, *[one for one in newest if one != current][: KEPT_RELEASES - 1]}
        self._write(name, Record({one: known[one] for one in kept if one in known}))
        for path in (package / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
        for path in package.glob(f"{_SCRATCH}*"):
            path.unlink(missing_ok=True)

    def remove(self, name: str) -> bool:
        """Remove a package with all its releases; False when it was not there."""
        gone = self._root / f"{_REMOVED}{secrets.token_hex(4)}"
        was_installed = self.current(name) is not None
        try:
            (self._root / name).rename(gone)
        except FileNotFoundError:
            return False
        sync_directory(self._root)
        shutil.rmtree(gone, ignore_errors=True)
        return was_installed

    def _installed(self) -> Iterator[InstalledPackage]:
        for name in sorted(os.listdir(self._root)):  # noqa: PTH208 - names are wanted
            release = self.current(name) if valid_name(name) else None
            if release is not None:
                yield InstalledPackage(
                    name=name,
                    version=release.version,
                    digest=release.digest,
                    installed_at=int(release.installed_at),
                )

    def _record(self, name: str) -> Record:
        try:
            data = (self._root / name / "install.json").read_bytes()
        except FileNotFoundError:
            return Record()
        try:
            return msgspec.json.decode(data, type=Record)
        except msgspec.MsgspecError:
            _log.warning("install.json of %s is damaged: it counts as not installed", name)
            return Record()

    def _write(self, name: str, record: Record) -> None:
        write_atomically(self._root / name / "install.json", msgspec.json.encode(record))

    def _clean_scratch(self, releases: Path) -> None:
        for leftover in releases.glob(f"{_SCRATCH}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _remove_if_unused(self, name: str) -> None:
        """Remove the folders of a package whose first installation failed."""
        if self.current(name) is None:
            self.remove(name)


def new_release(version: str, digest: str, deployment: str) -> Release:
    """Describe a release that becomes current now."""
    return Release(version, digest, deployment, time.time())


def directory_name(release: Release) -> str:
    """Return the name of a release's directory."""
    return f"{release.version}-{release.digest[:8]}"
