"""`mooring token`: the join tokens that let new nodes in."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import note, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import pairs, seconds, when
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)


@app.callback(epilog="Example:  mooring token create --group web > join-token")
def token() -> None:
    """Join tokens: each lets one node (or --uses) into the mesh, for an hour (or --ttl)."""


@app.command(
    epilog="Example:  mooring token create --uses 20 --ttl 4h --group web --label site=berlin"
)
def create(
    context: typer.Context,
    uses: Annotated[int, typer.Option(min=1, help="How many nodes may join with it.")] = 1,
    ttl: Annotated[
        float,
        typer.Option(parser=seconds, metavar="TIME", show_default="1h", help="24h at most."),
    ] = 3600.0,
    group: Annotated[
        list[str] | None, typer.Option(metavar="G", help="Put the nodes there; repeatable.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Label the nodes; repeatable.")
    ] = None,
) -> None:
    """Make a join token and print it, alone, on stdout. It is shown this once."""
    call = calls.create_join_token(uses, ttl, group or [], pairs(label or [], "label"))
    with Client.connect() as hub:
        made = hub.call(call)
    if settings_of(context).json:
        print_json(made)
        return
    print(made.token)
    if made.command:
        note(f"on the new node: {made.command}")


@app.command("list", epilog="Example:  mooring token list")
def list_(context: typer.Context) -> None:
    """List the join tokens that still work; never the secrets."""
    with Client.connect() as hub:
        found = list(hub.each(calls.join_tokens()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (t.id, f"{t.uses_left}/{t.uses}", when(t.expires_at), ",".join(t.groups), t.created_by)
        for t in found
    ]
    print_table(("ID", "LEFT", "UNTIL", "GROUPS", "BY"), rows)


@app.command(epilog="Example:  mooring token remove 3f2a9c")
def remove(token: Annotated[str, typer.Argument(metavar="ID", help="From the list.")]) -> None:
    """Make a join token useless."""
    with Client.connect() as hub:
        hub.call(calls.delete_join_token(token))
    note(f"the join token {token} is removed")
