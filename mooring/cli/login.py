"""`mooring login`: remember a hub and a token of one's own for it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from mooring.cli.failures import UNREACHABLE, CommandError
from mooring.cli.output import note, print_json
from mooring.cli.passwords import read_password
from mooring.cli.settings import settings_of
from mooring.cli.units import seconds
from mooring.sdk import Client, calls, identity
from mooring.sdk.errors import HubNotTrusted
from mooring.sdk.identity import Identity
from mooring.sdk.login import create_identity, fetch_ca, fingerprint

app = typer.Typer(add_completion=False)


@app.command("login", epilog="Example:  mooring login https://hub.example:8443 --user alice")
def login(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The hub's address.")],
    user: Annotated[str | None, typer.Option(help="Your name at the hub.")] = None,
    ca: Annotated[Path | None, typer.Option(help="A PEM file: the CA that vouches for it.")] = None,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", metavar="SHA256", help="Of the hub's own CA.")
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="How long the sign-in lives."),
    ] = None,
) -> None:
    """Sign in with name and password, and keep a token in ~/.config/mooring/config.json (0600).

    A hub whose certificate the system doesn't trust shows its CA's fingerprint: compare it with
    the line CA that the hub prints when it starts. Without a terminal, the name (unless --user) and
    the password are read from standard input, a line each.
    """
    unsigned = Identity(url=identity.check_url(url), ca_pem=_read(ca) if ca else "")
    if ca is None:
        unsigned = _trusted(unsigned, expected)
    name = user or _ask_name()
    password = read_password(f"password of {name}")
    token_name = f"{name} at {platform.node()}"[:64]
    signed, account = create_identity(unsigned, name, password, token_name, ttl)
    path = identity.config_path()
    identity.save(signed, path)
    if settings_of(context).json:
        print_json({"url": signed.url, "user": account.name, "role": account.role})
    else:
        note(f"signed in to {signed.url} as {account.name} ({account.role}); kept in {path}")


def _read(ca: Path) -> str:
    try:
        return ca.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{ca} can't be read: {error}", "name a PEM file") from error


def _ask_name() -> str:
    if sys.stdin.isatty():
        print("user: ", end="", file=sys.stderr, flush=True)
    name = sys.stdin.readline().strip()
    if not name:
        raise typer.BadParameter("no user was given; write --user NAME")
    return name


def _trusted(unsigned: Identity, expected: str | None) -> Identity:
    """Return the identity with the CA that was agreed to, or as it is when the system trusts it."""
    try:
        with Client(unsigned) as hub:
            hub.call(calls.about())
    except HubNotTrusted:
        ca_pem = fetch_ca(unsigned.url)
        _agree(unsigned.url, fingerprint(ca_pem), expected)
        return Identity(url=unsigned.url, ca_pem=ca_pem)
    return unsigned


def _agree(url: str, shown: str, expected: str | None) -> None:
    if expected is not None:
        if expected.strip().lower().removeprefix("sha256:").replace(":", "") != shown:
            detail = f"the CA of {url} has the fingerprint {shown}, not the one you gave"
            raise CommandError(detail, "don't go on: ask who runs the hub", UNREACHABLE)
        return
    if not sys.stdin.isatty():
        raise CommandError(
            f"the system doesn't trust {url}; its CA has the fingerprint {shown}",
            "compare it, then write --fingerprint SHA256, or name the CA with --ca FILE",
            UNREACHABLE,
        )
    note(f"the CA of {url} has the fingerprint\n  sha256:{shown}")
    print("is that the hub's? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("the hub isn't trusted", "ask who runs it for the fingerprint")
