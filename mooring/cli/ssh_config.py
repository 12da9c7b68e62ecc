"""`mooring ssh-config`: what `~/.ssh/config` needs so that plain ssh reaches nodes."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mooring.cli.output import print_json
from mooring.cli.settings import settings_of
from mooring.cli.ssh_proxy import SUFFIX
from mooring.sdk import Client, calls

app = typer.Typer(add_completion=False)
ALIVE_S = 60  # the hub resets connections on which nothing passed for an hour


@app.command("ssh-config", epilog="Example:  mooring ssh-config >> ~/.ssh/config")
def ssh_config(
    context: typer.Context,
    target: Annotated[
        str | None, typer.Argument(help="A block for each of these nodes; one for all without it.")
    ] = None,
) -> None:
    """Print the lines for ~/.ssh/config after which `ssh NODE.mooring` reaches a node.

    A block per node is for editors that offer the hosts of that file. Programs that are started
    without your environment need the identity of mooring login.
    """
    names = ["*"] if target is None else _names(target)
    hosts = [f"{name}{SUFFIX}" for name in names]
    if settings_of(context).json:
        print_json([{"host": host, "proxy_command": _proxy_command()} for host in hosts])
        return
    for host in hosts:
        print(f"Host {host}")
        print(f"    ProxyCommand {_proxy_command()}")
        print(f"    ServerAliveInterval {ALIVE_S}\n")


def _names(target: str) -> list[str]:
    with Client.connect() as hub:
        return [node.name for node in hub.each(calls.nodes(target))]


def _proxy_command() -> str:
    """Name ourselves so that ssh finds us; %n is the host as it was written, %h has no capitals."""
    ours = Path(sys.argv[0]).resolve()
    on_path = shutil.which("mooring")
    is_found = on_path is not None and Path(on_path).resolve() == ours
    return f"{'mooring' if is_found else shlex.quote(str(ours))} ssh-proxy %n %p"
