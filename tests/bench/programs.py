"""Programs that the bench starts: found, started in a session of their own, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.bench.measure import tree

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 5.0


class Missing(Exception):
    """A peer can't be had here; the text says why."""


class Program:
    """One running program and its descendants."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=None if env is None else dict(env),
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self._child.pid

    def pids(self) -> list[int]:
        """Itself and everything that it started and that still runs."""
        return tree(self.pid)

    def check(self) -> None:
        """Raise `Missing` with the end of its log when it has ended."""
        if self._child.poll() is not None:
            raise Missing(f"{self.log.stem} ended: {self.log.read_text(errors='replace')[-300:]}")

    def stop(self) -> None:
        """End it and its descendants, by id."""
        left = []
        for pid in self.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                left.append(psutil.Process(pid))
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            _, left = psutil.wait_procs(left, STOP_TIMEOUT_S)
        self._child.wait(STOP_TIMEOUT_S)


def tool(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        Missing: it isn't installed.
    """
    beside = Path(sys.executable).parent
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:{beside}")
    if path is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def cache_directory() -> Path:
    """Where peers are installed once: $MOORING_BENCH_DIR, else ~/.cache/mooring-bench."""
    path = Path(os.environ.get("MOORING_BENCH_DIR") or Path.home() / ".cache" / "mooring-bench")
    path.mkdir(parents=True, exist_ok=True)
    return path


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_port(port: int, program: Program, timeout_s: float = 30.0) -> None:
    """Wait until somebody listens.

    Raises:
        Missing: the program ended, or nobody did in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        program.check()
        if time.monotonic() > deadline:
            raise Missing(f"{program.log.stem} did not open port {port} in {timeout_s:.0f} s")
        time.sleep(0.1)
