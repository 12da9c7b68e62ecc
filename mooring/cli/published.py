"""`mooring published`: the services of nodes that are in browsers' reach."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import confirm, note, print_fields, print_json, print_table
from mooring.cli.places import Place
from mooring.cli.settings import settings_of
from mooring.cli.units import size, when
from mooring.sdk import Client, calls
from mooring.sdk.ways import PublishedService

app = typer.Typer(add_completion=False)
Name = Annotated[str, typer.Argument(metavar="NAME", help="A published service's name.")]


@app.callback(epilog="Example:  mooring published list")
def published() -> None:
    """Published services; mooring publish adds one."""


@app.command("list", epilog="Example:  mooring published list")
def list_(context: typer.Context) -> None:
    """List the published services."""
    with Client.connect() as hub:
        found = list(hub.each(calls.published()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (one.name, one.node, _target(one), one.url, one.created_by, one.active) for one in found
    ]
    print_table(("NAME", "NODE", "TO", "URL", "BY", "OPEN"), rows)


@app.command(epilog="Example:  mooring published show grafana")
def show(context: typer.Context, name: Name) -> None:
    """Show everything about a published service."""
    with Client.connect() as hub:
        found = hub.call(calls.published_service(name))
    if settings_of(context).json:
        print_json(found)
        return
    print_fields(
        (
            ("name", found.name),
            ("url", found.url),
            ("node", found.node),
            ("leads to", _target(found)),
            ("certificate", "verified" if found.verify else None),
            ("host", "the browser's" if found.keep_host else None),
            ("by", found.created_by),
            ("since", when(found.created_at)),
            ("requests", f"{found.requests} so far, {found.active} open"),
            ("sent", size(found.sent_bytes)),
            ("received", size(found.received_bytes)),
        )
    )


@app.command(epilog="Example:  mooring published remove grafana")
def remove(context: typer.Context, name: Name) -> None:
    """Publish a service no longer; who uses it is cut off."""
    confirm(context, f"take {name} out of everybody's browser?")
    with Client.connect() as hub:
        hub.call(calls.withdraw(name))
    note(f"{name} is no longer published")


def _target(service: PublishedService) -> str:
    return f"{service.scheme}://{Place(service.host, service.port)}"
