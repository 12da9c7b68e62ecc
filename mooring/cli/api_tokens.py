"""`mooring api-tokens`: bearer tokens for programs."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import note, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import seconds, when
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)


@app.callback(epilog="Example:  mooring api-tokens create ci --role deployer --ttl 30d")
def api_tokens() -> None:
    """API tokens: what programs sign in with; a token's role is at most its owner's."""


@app.command("list", epilog="Example:  mooring api-tokens list")
def list_(context: typer.Context) -> None:
    """List your tokens (an administrator: everyone's); never the secrets."""
    with Client.connect() as hub:
        found = list(hub.each(calls.api_tokens()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (t.id, t.name, t.user, t.role, when(t.created_at), when(t.expires_at), when(t.last_used_at))
        for t in found
    ]
    print_table(("ID", "NAME", "USER", "ROLE", "SINCE", "UNTIL", "USED"), rows)


@app.command(epilog="Example:  mooring api-tokens create ci --role deployer --ttl 30d > token")
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    role: Annotated[str, typer.Option(help="viewer, operator, deployer or admin.")] = "viewer",
    ttl: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="How long it lives; for ever without."),
    ] = None,
) -> None:
    """Make a token and print it, alone, on stdout. It is shown this once."""
    with Client.connect() as hub:
        made = hub.call(calls.create_api_token(name, role, ttl))
    if settings_of(context).json:
        print_json(made)
    else:
        print(made.token)


@app.command(epilog="Example:  mooring api-tokens remove 91d0")
def remove(token: Annotated[str, typer.Argument(metavar="ID", help="From the list.")]) -> None:
    """Make a token useless."""
    with Client.connect() as hub:
        hub.call(calls.delete_api_token(token))
    note(f"the API token {token} is removed")
