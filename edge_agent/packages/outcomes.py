"""How deployments ended on this node: `outcomes/DEPLOYMENT.json`, the newest 1,000.

The rule it guards: a deployment is carried out once; when the hub asks again because it did not
hear the answer, it gets the same answer.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from edge_agent.packages.disk import NodeRefused, write_atomically

KEPT_OUTCOMES = 1000
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Outcome(msgspec.Struct, frozen=True):
    """The end of one deployment."""

    ok: bool
    changed: bool = False
    error: str = ""


class Outcomes:
    """The directory of outcomes; methods block."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def find(self, deployment: str) -> Outcome | None:
        """Return how a deployment ended, if it did.

        Raises:
            NodeRefused: This is no id of a deployment.
        """
        try:
            return msgspec.json.decode(self._path(deployment).read_bytes(), type=Outcome)
        except FileNotFoundError:
            return None

    def store(self, deployment: str, outcome: Outcome) -> None:
        """Remember an outcome, and forget the oldest."""
        write_atomically(self._path(deployment), msgspec.json.encode(outcome))
        stored = [(path.stat().st_mtime_ns, path) for path in self._root.glob("*.json")]
        for _, path in sorted(stored, reverse=True)[KEPT_OUTCOMES:]:
            path.unlink(missing_ok=True)

    def _path(self, deployment: str) -> Path:
        if _ID.fullmatch(deployment) is None:
            raise NodeRefused(f"{deployment!r} is no id of a deployment")
        return self._root / f"{deployment}.json"
