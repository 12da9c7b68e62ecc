"""`mooring sessions`: the terminals that are or were open on nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import note, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import when
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)


@app.callback(epilog="Example:  mooring sessions list")
def sessions() -> None:
    """Shell sessions: who has, or had, a terminal where."""


@app.command("list", epilog="Example:  mooring sessions list --all")
def list_(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Past ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="Look at the newest so many.")] = 500,
) -> None:
    """List the open shells."""
    with Client.connect() as hub:
        found = [
            session
            for session in hub.each(calls.shell_sessions(), limit)
            if every or session.ended_at is None
        ]
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (s.id, s.node, s.subject, s.origin, when(s.started_at), when(s.ended_at), " ".join(s.argv))
        for s in found
    ]
    print_table(("SESSION", "NODE", "BY", "FROM", "SINCE", "UNTIL", "COMMAND"), rows)


@app.command(epilog="Example:  mooring sessions kill 7b1e")
def kill(session: Annotated[str, typer.Argument(metavar="SESSION", help="From the list.")]) -> None:
    """End a shell and every process in it."""
    with Client.connect() as hub:
        hub.call(calls.kill_session(session))
    note(f"session {session} is ended")
