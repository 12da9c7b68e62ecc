"""B5: keystroke echo, output of a 50 MB file, and Ctrl-C under a flood, in each peer's terminal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import uvloop

from tests.bench.measure import MIB, Rounds, cpu_s, latency
from tests.bench.peers.mooring import NAME
from tests.bench.peers.terminal import (
    MeshCentralTerminal,
    MooringTerminal,
    SecureShellTerminal,
    Terminal,
)
from tests.bench.report import Result, Table, number
from tests.bench.stage import Stage, Stages

ROUNDS = "B5"
KEYS = 300
KEY_PAUSE_S = 0.005
LINE = "".join(chr(33 + index % 90) for index in range(79)) + "\n"
FILE_LINES = 50_000_000 // len(LINE)
FLOOD_BYTES = 4 * MIB
PROMPT = b"bench-prompt>"
ANSWER_S = 20.0
FILE_S = 60.0
TURN_S = 180.0
FLOODS = 3

Opener = Callable[[], AbstractAsyncContextManager[Terminal]]
Opened = tuple[Opener, Callable[[], list[int]]]
"""A terminal, and the processes of its server."""


def run(stages: Stages) -> Result:
    """Measure every terminal in turn, round by round."""
    values = Rounds()
    with stages.up() as stage:
        file = stage.scratch / "lines.txt"
        file.write_text(LINE * FILE_LINES)
        contestants = _terminals(stage)

        def measure(name: str, terminal: Opened) -> None:
            opener, pids = terminal
            values.add(name, **uvloop.run(_measure(opener, file, pids)))

        for number_of_round in values.each(stages.options.rounds):
            stage.measure(f"B5 round {number_of_round}", contestants, measure)
    return Result.of([_table(values)], **{ROUNDS: values})


def _terminals(stage: Stage) -> dict[str, Opened]:
    found: dict[str, Opened] = {
        NAME: (lambda: MooringTerminal.open(stage.mooring), lambda: [stage.mooring.hub])
    }
    if (central := stage.meshcentral) is not None:
        found["MeshCentral"] = (
            lambda: MeshCentralTerminal.open(central),
            central.server.pids,
        )
    if (ssh := stage.openssh) is not None:
        found["ssh -tt"] = (lambda: SecureShellTerminal.open(ssh), ssh.server.pids)
    return found


async def _measure(opener: Opener, file: Path, pids: Callable[[], list[int]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    async with asyncio.timeout(TURN_S), opener() as terminal:
        screen = Screen(terminal)
        await terminal.write(b"exec bash --norc --noprofile\n")
        await screen.settle()
        # The quotes keep the echo of the line from looking like the prompt.
        await terminal.write(b"PS1='bench''-prompt>'; stty -echoctl\n")
        await screen.until(PROMPT)
        await screen.settle()
        keys = await _keystrokes(screen)
        metrics |= {"p50": keys[0], "p99": keys[1]}
        before = cpu_s(pids())
        took_s = await _output(screen, file)
        metrics["mib_s"] = file.stat().st_size / took_s / MIB
        metrics["cpu_s"] = cpu_s(pids()) - before
        metrics["ctrl_c_ms"] = 1e3 * max([await _interrupt(screen) for _ in range(FLOODS)])
    return metrics


class Screen:
    """What a terminal has shown, waited for."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    async def until(self, wanted: bytes, timeout_s: float = ANSWER_S) -> None:
        """Read until `wanted` was shown, wherever the pieces are cut."""
        tail = b""
        async with asyncio.timeout(timeout_s):
            while wanted not in tail:
                tail = tail[-len(wanted) :] + await self.terminal.read()

    async def settle(self, quiet_s: float = 0.3) -> None:
        """Read until nothing came for a while."""
        try:
            while True:
                async with asyncio.timeout(quiet_s):
                    await self.terminal.read()
        except TimeoutError:
            return

    async def swallow(self, size: int) -> None:
        """Read at least `size` bytes."""
        async with asyncio.timeout(ANSWER_S):
            while size > 0:
                size -= len(await self.terminal.read())


async def _keystrokes(screen: Screen) -> tuple[float, float]:
    """Echoes of the tty itself while `cat` takes the keys."""
    await screen.terminal.write(b"cat >/dev/null\n")
    await screen.settle()
    samples = []
    for index in range(KEYS):
        key = bytes([97 + index % 26])
        started = time.perf_counter()
        await screen.terminal.write(key)
        await screen.until(key)
        samples.append(time.perf_counter() - started)
        await asyncio.sleep(KEY_PAUSE_S)
    await screen.terminal.write(b"\x03")
    await screen.until(PROMPT)
    found = latency(samples)
    return found.p50, found.p99


async def _output(screen: Screen, file: Path) -> float:
    """Seconds from the command to the prompt behind the file."""
    await screen.settle()
    started = time.perf_counter()
    await screen.terminal.write(f"cat {file}\n".encode())
    await screen.until(PROMPT, FILE_S)
    return time.perf_counter() - started


async def _interrupt(screen: Screen) -> float:
    """Seconds from Ctrl-C under a flood to the prompt."""
    await screen.settle()
    await screen.terminal.write(b"yes\n")
    await screen.swallow(FLOOD_BYTES)
    started = time.perf_counter()
    await screen.terminal.write(b"\x03")
    await screen.until(PROMPT)
    return time.perf_counter() - started


def _table(values: Rounds) -> Table:
    rows = [
        [
            peer,
            number(values.median(peer, "p50")),
            number(values.median(peer, "p99")),
            number(values.median(peer, "mib_s"), 1),
            number(values.ratio(peer, NAME, "mib_s")),
            number(values.median(peer, "cpu_s")),
            number(values.median(peer, "ctrl_c_ms"), 0),
        ]
        for peer in values.peers
    ]
    columns = [
        "",
        "echo p50 ms",
        "p99 ms",
        "50 MB `cat` MiB/s",
        f"times {NAME}",
        "server CPU-s for it",
        f"Ctrl-C, worst of {FLOODS}, ms",
    ]
    return Table("B5: terminals", columns, rows)
