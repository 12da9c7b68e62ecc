"""`mooring groups`: static groups of nodes."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import confirm, note, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.sdk import Client, calls
from mooring.sdk.call import Call
from mooring.sdk.models import Group

app = typer.Typer(add_completion=False)
GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="A group's name.")]
NodeNames = Annotated[list[str], typer.Argument(metavar="NODE...", help="Names or ids of nodes.")]


@app.callback(epilog="Example:  mooring groups create web && mooring groups add web web-1 web-2")
def groups() -> None:
    """Groups of nodes; a node may be in many. In a TARGET: group:NAME."""


@app.command("list", epilog="Example:  mooring groups list")
def list_(context: typer.Context) -> None:
    """List the groups with their nodes."""
    with Client.connect() as hub:
        found = list(hub.each(calls.groups()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [(g.name, len(g.nodes), ",".join(g.nodes), g.description) for g in found]
    print_table(("NAME", "COUNT", "NODES", "DESCRIPTION"), rows)


@app.command(epilog="Example:  mooring groups create web --description 'the shop front'")
def create(
    context: typer.Context,
    group: GroupName,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Make an empty group."""
    with Client.connect() as hub:
        _show(context, hub.call(calls.create_group(group, description)))


@app.command(epilog="Example:  mooring groups add web web-1 web-2")
def add(context: typer.Context, group: GroupName, nodes: NodeNames) -> None:
    """Put nodes into a group."""
    _for_each(context, [calls.add_to_group(group, node) for node in nodes])


@app.command(epilog="Example:  mooring groups drop web web-2")
def drop(context: typer.Context, group: GroupName, nodes: NodeNames) -> None:
    """Take nodes out of a group."""
    _for_each(context, [calls.drop_from_group(group, node) for node in nodes])


@app.command(epilog="Example:  mooring groups delete web")
def delete(context: typer.Context, group: GroupName) -> None:
    """Delete a group; its nodes stay."""
    confirm(context, f"delete the group {group}?")
    with Client.connect() as hub:
        hub.call(calls.delete_group(group))
    note(f"the group {group} is deleted")


def _for_each(context: typer.Context, changes: list[Call[Group]]) -> None:
    with Client.connect() as hub:
        *_, last = [hub.call(change) for change in changes]
    _show(context, last)


def _show(context: typer.Context, group: Group) -> None:
    if settings_of(context).json:
        print_json(group)
    else:
        note(f"{group.name}: {', '.join(group.nodes) or 'no nodes'}")
