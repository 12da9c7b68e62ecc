"""A real hub and real agents as processes, driven through the `mooring` command."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

MOORING = str(Path(sys.executable).with_name("mooring"))
T = TypeVar("T")


def wait_for(what: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first true answer of `what`, asked a few times a second."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout_s:.0f} s: {answer!r}")
        select.select([], [], [], 0.05)


class Process:
    """A child whose output goes to a file; ended by its own id."""

    def __init__(self, argv: Sequence[str], log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as file:
            self.child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 15.0) -> int:
        if self.alive:
            self.child.send_signal(number)
        return self.child.wait(timeout_s)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)


class Mesh:
    """A hub in its state directory, its agents, and the operator's command."""

    def __init__(
        self,
        directory: Path,
        *,
        hub_prefix: Iterable[str] = (),
        bind: str = "127.0.0.1",
        options: Iterable[str] = (),
    ) -> None:
        self.directory = directory
        self.state = directory / "hub"
        self.port = 0
        self.options = list(options)
        self.hub_prefix = list(hub_prefix)
        self.bind = bind
        self.agents: dict[str, Process] = {}
        home = directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        self.base_env = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
        }
        self.hub = self.start_hub()

    def start_hub(self) -> Process:
        log = self.directory / "hub.log"
        before = log.stat().st_size if log.exists() else 0
        self.hub = Process(
            [
                *self.hub_prefix,
                MOORING,
                "hub",
                "serve",
                "--state-dir",
                str(self.state),
                "--bind",
                self.bind,
                "--port",
                str(self.port),
                *self.options,
            ],
            log,
            self.base_env,
        )
        wait_for(lambda: "\nready\n" in self.hub.text()[before:] or not self.hub.alive)
        assert self.hub.alive, self.hub.text()
        self.port = int(re.findall(r":(\d+)$", self.env["MOORING_URL"])[0])
        return self.hub

    @property
    def env(self) -> dict[str, str]:
        """What an operator has after sourcing operator.env."""
        found = dict(
            re.findall(
                r"^export (MOORING_\w+)=(.*)$", (self.state / "operator.env").read_text(), re.M
            )
        )
        return self.base_env | found

    def command(self, *arguments: str) -> list[str]:
        return [*self.hub_prefix, MOORING, *arguments]

    def run(
        self, *arguments: str, code: int | None = 0, timeout_s: float = 60.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run `mooring`; its exit code must be `code` unless that is None."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.env | options.pop("env", {}),
            **options,
        )
        if code is not None:
            assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.run("--json", *arguments, **options).stdout)

    def ndjson(self, *arguments: str, **options: Any) -> list[Any]:
        done = self.run("--json", *arguments, **options)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def get(self, path: str) -> Any:
        """What the API answers to a GET."""
        return self.call("GET", path)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """What the API answers, None when that is nothing."""
        context = ssl.create_default_context(cafile=self.env["MOORING_CA"])
        call = urllib.request.Request(
            self.env["MOORING_URL"] + path,
            None if body is None else json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.env['MOORING_TOKEN']}",
                "Content-Type": "application/json",
            },
            method=method,
        )
        with urllib.request.urlopen(call, context=context, timeout=20) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    # --- nodes ---

    def token(self) -> str:
        return self.run("token", "create").stdout.strip()

    def join(
        self,
        name: str,
        *,
        prefix: Iterable[str] = (),
        url: str | None = None,
        code: int = 0,
        token: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                *prefix,
                MOORING,
                "agent",
                "join",
                "--hub",
                url or self.env["MOORING_URL"],
                "--state-dir",
                str(self.agent_dir(name)),
                "--name",
                name,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env=self.base_env | {"MOORING_JOIN_TOKEN": token or self.token()},
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def agent_dir(self, name: str) -> Path:
        return self.directory / f"agent-{name}"

    def start_agent(
        self, name: str, *, prefix: Iterable[str] = (), log: str | None = None
    ) -> Process:
        process = Process(
            [*prefix, MOORING, "agent", "run", "--state-dir", str(self.agent_dir(name))],
            self.directory / f"{log or name}.log",
            self.base_env,
        )
        self.agents[log or name] = process
        return process

    def add(self, *names: str, prefix: Iterable[str] = (), url: str | None = None) -> None:
        prefix = list(prefix)
        for name in names:
            self.join(name, prefix=prefix, url=url)
            self.start_agent(name, prefix=prefix)
        for name in names:
            self.wait_status(name, "online")

    def status(self, name: str) -> str:
        done = self.run("--json", "nodes", "show", name, code=None)
        return str(json.loads(done.stdout)["status"]) if done.returncode == 0 else "unknown"

    def wait_status(self, name: str, status: str, timeout_s: float = 30.0) -> None:
        wait_for(lambda: self.status(name) == status, timeout_s)

    def task(self, task: str) -> Any:
        return self.json("tasks", "show", task)

    def wait_task(self, task: str, timeout_s: float = 60.0) -> Any:
        def ended() -> Any:
            shown = self.task(task)
            return shown if shown["state"] != "running" else None

        return wait_for(ended, timeout_s)

    def close(self) -> None:
        for process in [*self.agents.values(), self.hub]:
            try:
                process.stop()
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
