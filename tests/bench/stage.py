"""What is up during a benchmark: ourselves and the peers that could be had.

A contestant that fails is named and left out; the others go on.
"""

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
from tests.bench.report import say


class Stoppable(Protocol):
    """What a peer is to the stage."""

    def stop(self) -> None:
        """End its processes."""


PLOT = Path("docs/images/scale.svg")
PeerT = TypeVar("PeerT", bound=Stoppable)
ContestantT = TypeVar("ContestantT")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run was asked for."""

    rounds: int = 3
    seconds: float = 3.0
    agents: tuple[int, ...] = ()
    """Sizes of fleets; none: the benchmark's own."""
    peers: bool = True
    plot: Path = PLOT
    """Where growth is drawn."""


class Absent:
    """Who couldn't be measured, and why."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @contextmanager
    def spare(self, name: str) -> Iterator[None]:
        """Note what fails inside instead of raising it, whatever it is."""
        try:
            yield
        except Exception as error:
            reason = f"{name}: {str(error) or repr(error)}"
            if reason not in self.reasons:
                self.reasons.append(reason)
            say(f"without {reason}")


@dataclass(frozen=True, slots=True)
class Stage:
    """What is up; a peer that is None couldn't be had or wasn't wanted."""

    scratch: Path
    absent: Absent
    options: Options
    mooring: Mooring
    openssh: OpenSSH | None
    meshcentral: MeshCentral | None

    def measure(
        self,
        title: str,
        contestants: dict[str, ContestantT],
        measure: Callable[[str, ContestantT], None],
    ) -> None:
        """Have one round's turn of each; who fails is taken out of `contestants` for good."""
        for name, contestant in list(contestants.items()):
            say(f"{title}: {name}")
            del contestants[name]
            with self.absent.spare(f"{name} in {title}"):
                measure(name, contestant)
                contestants[name] = contestant


class Stages:
    """Sets a stage up for each benchmark, so that none inherits another one's memory or nodes."""

    def __init__(self, options: Options, absent: Absent) -> None:
        self.options = options
        self._absent = absent

    @contextmanager
    def up(self, *, meshcentral: bool = True) -> Iterator[Stage]:
        """Start ourselves, and the peers if wanted; all of it ends with the block."""
        with (
            tempfile.TemporaryDirectory(
                prefix="mooring-bench-", ignore_cleanup_errors=True
            ) as name,
            ExitStack() as stops,
        ):
            scratch = Path(name)

            def start(label: str, make: Callable[[Path], PeerT]) -> PeerT:
                say(f"starting {label}")
                peer = make(scratch)
                stops.callback(peer.stop)
                return peer

            ours = start("mooring", Mooring)
            openssh = central = None
            if self.options.peers:
                with self._absent.spare("OpenSSH"):
                    openssh = start("OpenSSH", OpenSSH)
            if self.options.peers and meshcentral:
                with self._absent.spare("MeshCentral"):
                    central = start("MeshCentral", MeshCentral)
            yield Stage(scratch, self._absent, self.options, ours, openssh, central)
