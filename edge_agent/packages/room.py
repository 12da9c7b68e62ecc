"""`PackageRoom`: what the package handlers share: directories, the node's policy, and who may work.

The rule it guards: one transfer per artifact and one installation per package at a time, and two of
each kind on the whole node.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from edge_agent.packages.cache import Cache
from edge_agent.packages.outcomes import Outcomes
from edge_agent.packages.releases import Releases
from edge_agent.policy import PolicyFile
from protocol.messages import InstalledPackage

AT_ONCE = 2


class PackageRoom:
    """Made once by the agent."""

    def __init__(self, state_dir: Path, policy: PolicyFile) -> None:
        self.policy = policy
        self.cache = Cache(state_dir / "artifacts")
        self.releases = Releases(state_dir / "packages")
        self.outcomes = Outcomes(state_dir / "outcomes")
        self._slots = {kind: asyncio.Semaphore(AT_ONCE) for kind in ("transfer", "install")}
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    def installed(self) -> list[InstalledPackage]:
        """Return what is installed; blocks for some file reads."""
        return self.releases.installed()

    @asynccontextmanager
    async def turn(self, kind: str, key: str) -> AsyncIterator[None]:
        """Wait for one's turn: `kind` is transfer or install, `key` the artifact or the package."""
        lock = self._locks.setdefault((kind, key), asyncio.Lock())
        async with lock, self._slots[kind]:
            yield
