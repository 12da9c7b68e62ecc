"""`mooring audit`: who did what."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import when
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)


@app.command("audit", epilog="Example:  mooring audit --subject alice --act task.create --limit 20")
def audit(
    context: typer.Context,
    subject: Annotated[str | None, typer.Option(help="Only what this user or node did.")] = None,
    act: Annotated[str | None, typer.Option(help="Only this act, for example task.create.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100000, help="The newest so many.")] = 100,
) -> None:
    """List the audit log, newest first."""
    with Client.connect() as hub:
        entries = list(hub.each(calls.audit(subject, act), limit))
    if settings_of(context).json:
        print_json(entries)
        return
    rows = [(when(e.at), e.subject, e.address, e.act, e.object, e.outcome) for e in entries]
    print_table(("AT", "WHO", "FROM", "DID", "TO", "OUTCOME"), rows)
