"""What holds for every subcommand: `--json`, `--yes`, `--help`, wherever they stand before `--`."""

from __future__ import annotations

from dataclasses import dataclass

import typer


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options of one call."""

    json: bool = False
    yes: bool = False


def take_globals(argv: list[str]) -> tuple[Settings, list[str]]:
    """Take the global options out of the words before `--`; what is left is for the subcommand.

    `--help` goes to the end, so that it is the subcommand's wherever it stood.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    head, tail = argv[:end], argv[end:]
    if "--help" in head or "-h" in head or not argv:
        tail = ["--help"]
    rest = [word for word in head if word not in ("--json", "--yes", "-y", "--help", "-h")]
    return Settings("--json" in head, "--yes" in head or "-y" in head), rest + tail


def settings_of(context: typer.Context) -> Settings:
    """The global options of the call that `context` belongs to."""
    settings = context.obj
    assert isinstance(settings, Settings)
    return settings
