"""`StateDir`: every file that an agent keeps, private to the user it runs as.

The directory is 0700, files are 0600 and replaced whole. `agent.json` is written last when a node
joins and so says that the rest is there. One process at a time: `lock` is held while joining and
while the agent runs.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from certs.private_files import make_private_directory, sync_directory, write_private


class StateError(Exception):
    """A state directory can't be used; the text says why and what to do."""


class StateInUse(StateError):
    """Another process holds the directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"another mooring agent uses {self.path}; stop it or choose another --state-dir"


@dataclass(frozen=True, slots=True)
class StateDir:
    """An agent's directory; its properties are paths."""

    root: Path

    @property
    def config(self) -> Path:
        """Who this node is: `AgentConfig`."""
        return self.root / "agent.json"

    @property
    def key(self) -> Path:
        """The node's private key, made here."""
        return self.root / "key.pem"

    @property
    def certificate(self) -> Path:
        """The node's certificate and the intermediate."""
        return self.root / "certificate.pem"

    @property
    def trust(self) -> Path:
        """The roots that the hub's certificate must lead to."""
        return self.root / "trust.pem"

    @property
    def policy(self) -> Path:
        """What this node allows; only its owner changes it."""
        return self.root / "policy.json"

    @property
    def runs(self) -> Path:
        """The journal of commands, a directory per run."""
        return self.root / "runs"

    @property
    def artifacts(self) -> Path:
        """Packages received."""
        return self.root / "artifacts"

    @property
    def packages(self) -> Path:
        """Packages installed."""
        return self.root / "packages"

    @property
    def outcomes(self) -> Path:
        """How deployments ended."""
        return self.root / "outcomes"

    def prepare(self) -> None:
        """Make the directory, or make it private again.

        Raises:
            StateError: it can't be made, or belongs to another user.
        """
        try:
            make_private_directory(self.root)
        except OSError as error:
            raise StateError(f"{self.root} can't be used: {error.strerror}") from error

    def write(self, path: Path, data: bytes) -> None:
        """Replace one of the files.

        Raises:
            StateError: nothing was changed.
        """
        try:
            write_private(path, data)
        except OSError as error:
            raise StateError(f"{path} can't be written: {error.strerror}") from error

    def remove(self, path: Path) -> None:
        """Remove one of the files, if it is there, durably."""
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; the system lets go when the process ends, however it ends.

        Raises:
            StateInUse: another process holds it.
            StateError: there is no such directory.
        """
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"{self.root} can't be opened: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateInUse(self.root) from error
            yield
        finally:
            os.close(descriptor)
