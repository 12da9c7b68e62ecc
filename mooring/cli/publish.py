"""`mooring publish`: a node's web page in the browser of everybody who is signed in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from mooring.cli.output import note, print_json
from mooring.cli.places import target
from mooring.cli.settings import settings_of
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)


class Scheme(StrEnum):
    """What the service speaks."""

    HTTP = "http"
    HTTPS = "https"


@app.command("publish", epilog="Example:  mooring publish web-1 3000 --name grafana")
def publish(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    place: Annotated[
        str, typer.Argument(metavar="[HOST:]PORT", help="Where it listens, as the node sees it.")
    ],
    name: Annotated[
        str, typer.Option(help="What to call it: lower-case letters, digits, hyphens.")
    ],
    host_name: Annotated[
        str | None, typer.Option(metavar="FQDN", help="A DNS name of its own that leads here.")
    ] = None,
    scheme: Annotated[Scheme, typer.Option(help="What the service speaks.")] = Scheme.HTTP,
    verify: Annotated[
        bool, typer.Option("--verify", help="With https: refuse a certificate nobody vouches for.")
    ] = False,
    keep_host: Annotated[
        bool, typer.Option("--keep-host", help="Let the service see the browser's Host.")
    ] = False,
) -> None:
    """Publish an HTTP service of a node, and print the address for the browser.

    Without a host name of its own it is below the hub's address, in a sandbox that many pages can't
    live in: docs/publish.md tells the two ways apart.
    """
    at = target(place)
    call = calls.publish(
        name,
        node=node.removeprefix("id:"),
        host=at.host,
        port=at.port,
        scheme=scheme.value,
        verify=verify,
        host_name=host_name,
        keep_host=keep_host,
    )
    with Client.connect() as hub:
        made = hub.call(call)
    if settings_of(context).json:
        print_json(made)
        return
    print(made.url)
    note(f"{made.name}: {made.node}:{at} is published")
