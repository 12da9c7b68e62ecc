from __future__ import annotations

import pytest

from mooring.cli.settings import Settings, take_globals


@pytest.mark.parametrize(
    ("argv", "settings", "words"),
    [
        (["--json", "nodes"], Settings(json=True), ["nodes"]),
        (["nodes", "--json"], Settings(json=True), ["nodes"]),
        (["exec", "a", "--yes", "--", "b"], Settings(yes=True), ["exec", "a", "--", "b"]),
        (["exec", "a", "--", "b", "--json"], Settings(), ["exec", "a", "--", "b", "--json"]),
        (["--help", "exec"], Settings(), ["exec", "--help"]),
        (["exec", "-h", "--", "x"], Settings(), ["exec", "--help"]),
        ([], Settings(), ["--help"]),
    ],
)
def test_global_options_stand_anywhere_before_the_command_to_run(
    argv: list[str], settings: Settings, words: list[str]
) -> None:
    assert take_globals(argv) == (settings, words)
