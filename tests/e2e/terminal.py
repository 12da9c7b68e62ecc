"""An operator at a terminal, and a script whose every line can be missed."""

from __future__ import annotations

import os
import select
import subprocess
import time
from pathlib import Path

from tests.e2e.mesh import MOORING


class Terminal:
    """`mooring shell` on a terminal of its own, as a person has it."""

    def __init__(self, env: dict[str, str], node: str, script: str) -> None:
        self.shown = ""
        self._keyboard, theirs = os.openpty()
        argv = [MOORING, "shell", node, "--", "sh", "-c", script]
        self._child = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()
        os.close(self._keyboard)

    def type(self, line: str) -> None:
        os.write(self._keyboard, line.encode() + b"\r")

    def read_until(self, text: str, timeout_s: float = 60.0) -> None:
        """Wait until it was shown."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown:
            assert self._read(deadline), f"{text!r} was not shown: …{self.shown[-500:]}"

    def exit_code(self, timeout_s: float = 60.0) -> int:
        """Wait for the end of the command; all that it showed is in `shown` then."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self._child.wait(max(0.0, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        """Take what is shown next; False when that is nothing, at the end or in time."""
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._keyboard], [], [], left)[0]:
            return False
        try:
            self.shown += os.read(self._keyboard, 1 << 16).decode()
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        return True


class Counting:
    """A script that counts aloud and answers what is typed, until that is "over"."""

    TICK_S = 0.02
    """At least so long between two numbers."""

    def __init__(self, directory: Path) -> None:
        self._aloud = directory / "counted"
        self.script = f"""
            test -t 0 && stty -echo
            (while ! test -e {directory}/over; do
                i=$((i + 1)); echo $i >> {self._aloud}; echo count $i; sleep {self.TICK_S}
            done) &
            while read line && test "$line" != over; do echo "typed $line"; done
            touch {directory}/over; wait; echo end; exit 3
        """

    @property
    def count(self) -> int:
        """How far it is, whoever hears it."""
        return self._aloud.read_text().count("\n")

    def check(self, shown: str, typed: list[str]) -> None:
        """Every line was shown once, in order."""
        lines = shown.splitlines()
        answers = [line for line in lines if line.startswith("typed")]
        assert answers == [f"typed {line}" for line in typed]
        counted = [f"count {number}" for number in range(1, self.count + 1)]
        assert [line for line in lines if line not in answers] == [*counted, "end"]
