"""`mooring users`: who may sign in, and as what."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.output import confirm, note, print_json, print_table
from mooring.cli.passwords import read_password
from mooring.cli.settings import settings_of
from mooring.cli.units import when
from mooring.sdk import Client, calls
from mooring.sdk.call import Call
from mooring.sdk.models import User

app = typer.Typer(add_completion=False)
UserName = Annotated[str, typer.Argument(metavar="USER", help="A user's name.")]
ROLES = "viewer, operator, deployer or admin"


@app.callback(epilog="Example:  mooring users create alice --role operator")
def users() -> None:
    """Users and their roles: viewer, operator, deployer, admin, each includes the one before."""


@app.command("list", epilog="Example:  mooring users list")
def list_(context: typer.Context) -> None:
    """List the users."""
    with Client.connect() as hub:
        found = list(hub.each(calls.users()))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [(u.name, u.role, "disabled" if u.disabled else "", when(u.created_at)) for u in found]
    print_table(("NAME", "ROLE", "STATE", "SINCE"), rows)


@app.command(epilog="Example:  echo 'a long password' | mooring users create alice --role operator")
def create(
    context: typer.Context,
    user: UserName,
    role: Annotated[str, typer.Option(help=f"{ROLES}.")] = "viewer",
) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    password = read_password(f"password of {user}", twice=True)
    _carry_out(context, calls.create_user(user, password, role))


@app.command("set-role", epilog="Example:  mooring users set-role alice deployer")
def set_role(
    context: typer.Context, user: UserName, role: Annotated[str, typer.Argument(help=f"{ROLES}.")]
) -> None:
    """Give a user another role."""
    _carry_out(context, calls.change_user(user, role=role))


@app.command("set-password", epilog="Example:  mooring users set-password alice")
def set_password(context: typer.Context, user: UserName) -> None:
    """Set a user's password; it is asked for, or read from standard input."""
    password = read_password(f"new password of {user}", twice=True)
    _carry_out(context, calls.change_user(user, password=password))


@app.command(epilog="Example:  mooring users remove alice")
def remove(context: typer.Context, user: UserName) -> None:
    """Remove a user, with all sessions and API tokens."""
    confirm(context, f"remove the user {user}?")
    with Client.connect() as hub:
        hub.call(calls.delete_user(user))
    note(f"the user {user} is removed")


def _carry_out(context: typer.Context, call: Call[User]) -> None:
    with Client.connect() as hub:
        user = hub.call(call)
    if settings_of(context).json:
        print_json(user)
    else:
        note(f"{user.name} is {user.role}")
