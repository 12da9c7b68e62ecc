"""`mooring hub`: run a hub on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mooring.cli.failures import FAILED, USAGE, CommandError

app = typer.Typer(add_completion=False)


@app.callback(epilog="Example:  mooring hub serve --state-dir /var/lib/mooring-hub --bind 0.0.0.0")
def hub() -> None:
    """The hub: the one place that all nodes dial to."""


@app.command(
    epilog="Example:  mooring hub serve --state-dir /var/lib/mooring-hub --bind 0.0.0.0"
    " --public-url https://hub.example:8443"
)
def serve(
    state_dir: Annotated[Path, typer.Option(help="Where the hub keeps everything.")],
    bind: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: the system picks one.")] = 8443,
    tunnel_port: Annotated[
        int | None, typer.Option(help="A port for tunnels alone; else they share --port.")
    ] = None,
    public_url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="How nodes and people reach it; repeatable."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM chain for the pages.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="And its key.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Instead of SQLite in the state directory.")
    ] = None,
    tunnels_per_s: Annotated[
        int, typer.Option(help="Agents that may connect in a second; the rest wait in line.")
    ] = 250,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
) -> None:
    """Run the hub until SIGTERM or Ctrl-C; prints ready when API and tunnels are open.

    Leaves operator.env (source it to use this command line on the same machine) and, at the first
    start, admin-password in the state directory, both readable by this user only.
    """
    try:
        from certs.errors import CertsError
        from hub.config import HubConfig
        from hub.errors import BadRequest, HubError
        from hub.logs import configure
        from hub.serve import run
    except ModuleNotFoundError as error:
        what = "this command needs the hub: pip install 'mooring[hub]'"
        raise CommandError(what, f"{error.name} isn't installed here", USAGE) from error

    configure(log_json)
    try:
        config = HubConfig(
            state_dir=state_dir.absolute(),
            bind=bind,
            port=port,
            tunnel_port=tunnel_port,
            public_urls=tuple(public_url or ()),
            tls_cert=tls_cert,
            tls_key=tls_key,
            database_url=database_url,
            tunnels_per_s=tunnels_per_s,
        )
        run(config)
    except BadRequest as error:
        raise CommandError(str(error), "run: mooring hub serve --help", USAGE) from error
    except (HubError, CertsError, OSError) as error:
        advice = "the hub did not start; change that and try again"
        raise CommandError(str(error), advice, FAILED) from error
