"""Everything that is up during a run: ourselves and the peers that could be had."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from tests.bench.peers.meshcentral import MeshCentral
from tests.bench.peers.mooring import Mooring
from tests.bench.peers.openssh import OpenSSH
from tests.bench.programs import Missing
from tests.bench.report import say


class Stoppable(Protocol):
    """What a peer is to the stage."""

    def stop(self) -> None:
        """End its processes."""


PeerT = TypeVar("PeerT", bound=Stoppable)


@dataclass(frozen=True, slots=True)
class Stage:
    """What is up; a peer that is None couldn't be had, and `missing` says why."""

    scratch: Path
    mooring: Mooring
    openssh: OpenSSH | None
    meshcentral: MeshCentral | None
    missing: list[str]

    def lacks(self, name: str, reason: Exception) -> None:
        """Note that a peer couldn't be had."""
        self.missing.append(f"{name}: {reason}")
        say(f"without {name}: {reason}")


@contextmanager
def stage(*, peers: bool) -> Iterator[Stage]:
    """Start ourselves, and the peers if wanted; all of it ends with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="mooring-bench-", ignore_cleanup_errors=True) as name,
        ExitStack() as stops,
    ):
        scratch, missing = Path(name), list[str]()

        def start(label: str, make: Callable[[Path], PeerT]) -> PeerT | None:
            say(f"starting {label}")
            try:
                peer = make(scratch)
            except Missing as reason:
                missing.append(f"{label}: {reason}")
                say(f"without {label}: {reason}")
                return None
            stops.callback(peer.stop)
            return peer

        mooring = start("mooring", Mooring)
        assert mooring is not None, "it needs nothing that could be missing"
        openssh = start("OpenSSH", OpenSSH) if peers else None
        meshcentral = start("MeshCentral", MeshCentral) if peers else None
        yield Stage(scratch, mooring, openssh, meshcentral, missing)
