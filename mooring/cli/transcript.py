"""A task's events as a transcript: lines with the node's name in front, a summary, an exit code.

Pure: events in, text out; `execute` and `tasks` print it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from zlib import crc32

from mooring.cli.failures import FAILED, TIMED_OUT
from mooring.cli.output import clean_output
from mooring.sdk.models import OutputEvent, ResultEvent

Place: TypeAlias = tuple[Literal["stdout", "stderr"], str]
"""Where a text goes, and the text."""
PARTIAL_LIMIT = 64 * 1024  # characters of an unfinished line that are kept back


@dataclass(slots=True)
class Transcript:
    """What was seen of a task so far."""

    width: int = 0
    """Names are padded to it."""
    terminal: bool = False
    """Colour the names, keep control characters of the output away."""
    results: list[ResultEvent] = field(default_factory=list)
    _partial: dict[tuple[str, str], str] = field(default_factory=dict)

    def output(self, event: OutputEvent) -> list[Place]:
        """Take a piece of output; return the lines that it completes."""
        key = (event.node, event.stream)
        *lines, rest = (self._partial.pop(key, "") + event.data).split("\n")
        if len(rest) > PARTIAL_LIMIT:
            lines, rest = [*lines, rest], ""
        if rest:
            self._partial[key] = rest
        if not lines:
            return []
        return [(self._place(event.stream), "".join(self._line(event.node, x) for x in lines))]

    def result(self, event: ResultEvent) -> list[Place]:
        """Take a run's end; return its unfinished lines."""
        self.results.append(event)
        return list(self._flush(event.node))

    def end(self) -> list[Place]:
        """Return all unfinished lines."""
        nodes = dict.fromkeys(node for node, _ in self._partial)
        return [place for node in nodes for place in self._flush(node)]

    def _flush(self, node: str) -> Iterator[Place]:
        for stream in ("stdout", "stderr"):
            if rest := self._partial.pop((node, stream), ""):
                yield self._place(stream), self._line(node, rest)

    @staticmethod
    def _place(stream: str) -> Literal["stdout", "stderr"]:
        return "stderr" if stream == "stderr" else "stdout"

    def _line(self, node: str, text: str) -> str:
        text = text.removesuffix("\r")
        name = node.ljust(self.width)
        if self.terminal:
            text = clean_output(text)
            name = f"\x1b[{31 + crc32(node.encode()) % 6}m{name}\x1b[0m"
        return f"{name} | {text}\n"

    def summary(self) -> str:
        """Say how many went well, and what went wrong where, equal outcomes together."""
        groups: dict[str, list[str]] = defaultdict(list)
        for result in self.results:
            if result.state != "succeeded":
                groups[outcome(result)].append(result.node)
        failed = sum(map(len, groups.values()))
        lines = [f"{len(self.results) - failed} ok, {failed} failed"]
        for what, nodes in sorted(groups.items(), key=lambda item: -len(item[1])):
            lines.append(f"  {what}: {', '.join(sorted(nodes))}")
        return "\n".join(lines)

    def exit_code(self) -> int:
        """0 all went well, 124 only timeouts stand in the way, 1 otherwise."""
        bad = {result.state for result in self.results} - {"succeeded"}
        if not bad:
            return 0
        return TIMED_OUT if bad == {"timed_out"} else FAILED


def outcome(result: ResultEvent) -> str:
    """Describe an end that isn't a success."""
    if result.state == "failed" and result.exit_code is not None:
        return f"exit code {result.exit_code}"
    if result.state == "failed" and result.signal is not None:
        return f"signal {result.signal}"
    state = result.state.replace("_", " ")
    known = result.reason in ("", "timeout", "cancelled")
    return state if known else f"{state} ({result.reason})"
