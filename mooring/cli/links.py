"""`mooring links`: ports on one node that come out on another, kept by the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import confirm, note, print_fields, print_json, print_table
from mooring.cli.places import Place, check_bind, on_node
from mooring.cli.settings import settings_of
from mooring.cli.units import when
from mooring.sdk import Client, calls
from mooring.sdk.call import Call
from mooring.sdk.ways import Link

app = typer.Typer(add_completion=False)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A link's name.")]


@app.callback(epilog="Example:  mooring links add db --from web-1:5432 --to db-1:5432")
def links() -> None:
    """Links: programs on one node reach a port of another as if it were their own."""


@app.command("list", epilog="Example:  mooring links list")
def list_(context: typer.Context) -> None:
    """List the links."""
    with Client.connect() as hub:
        found = list(hub.each(calls.links()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [(link.name, _from(link), _to(link), link.state, link.reason) for link in found]
    print_table(("NAME", "FROM", "TO", "STATE", "BECAUSE"), rows)


@app.command(epilog="Example:  mooring links add db --from web-1:5432 --to db-1:5432")
def add(
    context: typer.Context,
    name: Name,
    listen: Annotated[
        str, typer.Option("--from", metavar="NODE:[BIND:]PORT", help="Where to listen.")
    ],
    target: Annotated[
        str, typer.Option("--to", metavar="NODE:[HOST:]PORT", help="Where to come out.")
    ],
) -> None:
    """Make a link; it lasts until it is removed, through restarts of hub and agents."""
    from_node, here = on_node(listen)
    to_node, there = on_node(target)
    check_bind(here)
    call = calls.create_link(
        name,
        from_node=from_node,
        bind=here.host,
        port=here.port,
        to_node=to_node,
        host=there.host,
        to_port=there.port,
    )
    _change(context, call)


@app.command(epilog="Example:  mooring links show db")
def show(context: typer.Context, name: Name) -> None:
    """Show everything about a link."""
    with Client.connect() as hub:
        found = hub.call(calls.link(name))
    if settings_of(context).json:
        print_json(found)
        return
    print_fields(
        (
            ("name", found.name),
            ("from", _from(found)),
            ("to", _to(found)),
            ("state", found.state),
            ("because", found.reason),
            ("forward", found.forward),
            ("made by", found.created_by),
            ("made", when(found.created_at)),
        )
    )


@app.command(epilog="Example:  mooring links enable db")
def enable(context: typer.Context, name: Name) -> None:
    """Open a link's port again."""
    _change(context, calls.change_link(name, enabled=True))


@app.command(epilog="Example:  mooring links disable db")
def disable(context: typer.Context, name: Name) -> None:
    """Close a link's port and end its connections; the link stays in the list."""
    _change(context, calls.change_link(name, enabled=False))


@app.command(epilog="Example:  mooring links remove db")
def remove(context: typer.Context, name: Name) -> None:
    """Close a link and forget it."""
    confirm(context, f"remove the link {name}?")
    with Client.connect() as hub:
        hub.call(calls.remove_link(name))
    note(f"the link {name} is removed")


def _change(context: typer.Context, call: Call[Link]) -> None:
    with Client.connect() as hub:
        link = hub.call(call)
    if settings_of(context).json:
        print_json(link)
    else:
        note(f"{link.name}: {_from(link)} -> {_to(link)}, {link.state}")


def _from(link: Link) -> str:
    return f"{link.from_node}:{Place(link.bind, link.port)}"


def _to(link: Link) -> str:
    return f"{link.to_node}:{Place(link.host, link.to_port)}"
