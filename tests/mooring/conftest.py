"""One real hub as a process for all tests of this folder; the command line in this process."""

from __future__ import annotations

import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mooring.cli import main
from mooring.cli.up import read_operator
from mooring.sdk import Client, Identity


@dataclass(frozen=True)
class Hub:
    """A hub that runs."""

    state: Path
    who: Identity

    @property
    def env(self) -> dict[str, str]:
        lines = (self.state / "operator.env").read_text()
        return dict(re.findall(r"^export (\w+)=(.*)$", lines, re.M))


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    state = tmp_path_factory.mktemp("hub")
    log = (state / "log").open("wb")
    words = ["hub", "serve", "--state-dir", str(state), "--port", "0"]
    child = subprocess.Popen(
        [sys.executable, "-m", "mooring.cli.main", *words], stdout=subprocess.PIPE, stderr=log
    )
    assert child.stdout is not None
    try:
        assert wait_for_line(child, b"ready\n"), (state / "log").read_text()
        yield Hub(state, read_operator(state))
    finally:
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
        child.stdout.close()
        log.close()


def wait_for_line(child: subprocess.Popen[bytes], wanted: bytes, timeout_s: float = 30) -> bool:
    """Read a child's stdout up to a line."""
    assert child.stdout is not None
    deadline, seen = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while wanted not in seen:
            if not selector.select(max(0, deadline - time.monotonic())):
                return False
            data = child.stdout.read1(65536)  # type: ignore[attr-defined]  # it is a BufferedReader
            if not data:
                return False
            seen += data
    return True


@pytest.fixture
def client(hub: Hub) -> Iterator[Client]:
    with Client(hub.who) as made:
        yield made


@dataclass(frozen=True)
class Done:
    """What a command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `mooring` in this process, with an empty home and nobody signed in."""
    for name in ("MOORING_URL", "MOORING_TOKEN", "MOORING_CA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run_words(*words: str, stdin: str = "", env: dict[str, str] | None = None) -> Done:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        path = tmp_path / "stdin"
        path.write_text(stdin)
        with path.open() as file:
            monkeypatch.setattr("sys.stdin", file)
            code = main.run(list(words))
        seen = capsys.readouterr()
        return Done(code, seen.out, seen.err)

    return run_words


@pytest.fixture
def mooring(run: Run, hub: Hub) -> Run:
    """Run `mooring` as the local administrator."""

    def run_signed_in(*words: str, stdin: str = "") -> Done:
        return run(*words, stdin=stdin, env=hub.env)

    return run_signed_in
