"""`mooring forwards`: what is being forwarded now, by whom; end some of it."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.menu import TargetOrCommand
from mooring.cli.output import note, print_fields, print_json, print_table
from mooring.cli.places import Place
from mooring.cli.settings import settings_of
from mooring.cli.units import age, size, when
from mooring.sdk import Client, calls
from mooring.sdk.ways import OpenForward

app = typer.Typer(cls=TargetOrCommand, add_completion=False)
ID = Annotated[str, typer.Argument(metavar="ID", help="From the list.")]


@app.callback(epilog="Example:  mooring forwards", subcommand_metavar="[COMMAND]")
def forwards() -> None:
    """List what is being forwarded through the hub, or work on one entry."""


@app.command("list", epilog="Example:  mooring forwards list")
def list_(context: typer.Context) -> None:
    """List what is being forwarded; what mooring forwards does without more words."""
    with Client.connect() as hub:
        found = list(hub.each(calls.forwards()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (
            forward.id,
            forward.kind,
            forward.node,
            _listens(forward),
            _target(forward),
            forward.subject,
            age(forward.since),
            forward.connections,
            size(forward.sent_bytes),
            size(forward.received_bytes),
        )
        for forward in found
    ]
    print_table(
        ("ID", "KIND", "NODE", "LISTENS", "TO", "BY", "SINCE", "OPEN", "SENT", "RECEIVED"), rows
    )


@app.command(epilog="Example:  mooring forwards show 01a1fbd0f217f858")
def show(context: typer.Context, forward: ID) -> None:
    """Show everything about one."""
    with Client.connect() as hub:
        found = hub.call(calls.forward(forward))
    if settings_of(context).json:
        print_json(found)
        return
    print_fields(
        (
            ("id", found.id),
            ("kind", found.kind),
            ("name", found.name),
            ("node", found.node),
            ("listens on", _listens(found)),
            ("leads to", _target(found)),
            ("by", found.subject),
            ("since", when(found.since)),
            ("connections", f"{found.connections} open, {found.connections_total} in all"),
            ("sent", size(found.sent_bytes)),
            ("received", size(found.received_bytes)),
            ("last activity", when(found.last_activity)),
        )
    )
    if found.open_connections:
        _print_connections(found)


@app.command(epilog="Example:  mooring forwards close 01a1fbd0f217f858")
def close(
    forwards: Annotated[list[str], typer.Argument(metavar="ID...", help="From the list.")],
) -> None:
    """End forwards with all their connections; who opened them is told."""
    with Client.connect() as hub:
        for forward in forwards:
            hub.call(calls.close_forward(forward))
            note(f"forward {forward} is ended")


def _listens(forward: OpenForward) -> str:
    if forward.listen_port is None:
        return ""
    return str(Place(forward.bind or "", forward.listen_port))


def _target(forward: OpenForward) -> str:
    if forward.port is None:
        return {"socks": "anywhere", "reverse": "its client"}.get(forward.kind, "")
    place = str(Place(forward.host, forward.port))
    return f"{forward.to_node}:{place}" if forward.to_node else place


def _print_connections(forward: OpenForward) -> None:
    print()
    rows = [
        (
            connection.peer,
            str(Place(connection.host, connection.port)) if connection.port else "",
            age(connection.since),
            age(connection.last_activity),
            size(connection.sent_bytes),
            size(connection.received_bytes),
        )
        for connection in forward.open_connections
    ]
    print_table(("FROM", "TO", "SINCE", "IDLE", "SENT", "RECEIVED"), rows)
