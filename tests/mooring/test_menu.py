from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from mooring.cli.menu import COMMANDS, app
from tests.mooring.conftest import Run


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name in command.list_commands(None) if hasattr(command, "list_commands") else ():
        yield from commands(command.get_command(None, name), (*path, name))


ALL = list(commands(get_command(app)))


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_says_what_it_does_and_has_an_example(
    path: tuple[str, ...], command: Any
) -> None:
    assert command.help
    assert command.epilog.startswith("Example:  ")
    assert " ".join(("mooring", *path)) in command.epilog or path == ()


def test_help_is_the_subcommands_wherever_it_stands(run: Run) -> None:
    before, after = run("--help", "nodes", "show"), run("nodes", "show", "--help")
    assert before == after
    assert before.code == 0
    assert "Show everything about a node" in before.out


def test_no_words_show_the_menu(run: Run) -> None:
    done = run()
    assert done.code == 0
    assert all(name in done.out for name in COMMANDS)


def test_a_command_that_is_misspelt_gets_a_suggestion(run: Run) -> None:
    done = run("node")
    assert done.code == 2
    assert "'nodes'" in done.err


def test_exec_imports_neither_the_hub_nor_the_agent_nor_tables() -> None:
    script = (
        "import sys, mooring.cli.main, mooring.cli.execute\n"
        "heavy = {'hub', 'edge_agent', 'rich', 'asyncio', 'picows', 'cryptography'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
