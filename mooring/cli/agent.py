"""`mooring agent`: join this machine to a hub, and run its agent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mooring.cli.failures import FAILED, NOT_ALLOWED, UNREACHABLE, USAGE, CommandError
from mooring.cli.output import clean, note, print_json
from mooring.cli.settings import settings_of

if TYPE_CHECKING:
    from edge_agent.doctor import Finding

app = typer.Typer(add_completion=False)
TOKEN_LIMIT = 16 * 1024  # bytes; tokens have some 200
StatePath = Annotated[Path, typer.Option("--state-dir", help="Where the agent keeps its state.")]

ProxyUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="MOORING_PROXY",
        show_envvar=False,
        help="The way out, kept when joining; else MOORING_PROXY, HTTPS_PROXY, ALL_PROXY.",
    ),
]
NoProxy = Annotated[
    bool, typer.Option("--no-proxy", help="Use none, whatever the environment says.")
]

_NETWORK = ("unreachable", "proxy", "tls")
_EXIT = {
    "bad_token": USAGE,
    "bad_address": USAGE,
    "unreachable": UNREACHABLE,
    "proxy": UNREACHABLE,
    "tls": UNREACHABLE,
    "wrong_pin": NOT_ALLOWED,
    "token_unknown": NOT_ALLOWED,
    "token_used": NOT_ALLOWED,
    "token_expired": NOT_ALLOWED,
}
"""By `edge_agent.join.Reason`; anything else is 1."""


@app.callback(epilog="Example:  mooring agent join --state-dir /var/lib/mooring < token")
def agent() -> None:
    """The agent: what runs on every node. It dials out; no port is opened on the node."""


@app.command(
    epilog="Example:  mooring agent join --hub https://hub.example:8443"
    " --state-dir /var/lib/mooring --token-file token"
)
def join(
    context: typer.Context,
    state_dir: StatePath,
    hub: Annotated[str | None, typer.Option(help="The hub's address; else the token's.")] = None,
    name: Annotated[str | None, typer.Option(help="The node's name; else the host's.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The join token; else MOORING_JOIN_TOKEN, else stdin.")
    ] = None,
    proxy: ProxyUrl = None,
    no_proxy: NoProxy = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the identity that the directory holds.")
    ] = False,
) -> None:
    """Join this machine to a hub: makes a key here, and gets a certificate for it.

    The join token is read from --token-file, from MOORING_JOIN_TOKEN, or from standard input; never
    from the command line, where others could see it. The same holds for a proxy with a password:
    give its URL as MOORING_PROXY.
    """
    from edge_agent.join import JoinFailed
    from edge_agent.join import join as join_hub
    from edge_agent.proxies import DIRECT
    from edge_agent.state import StateDir, StateError

    token = _read_token(token_file)
    try:
        joined = join_hub(
            token,
            StateDir(state_dir),
            hub_url=hub,
            name=name,
            proxy=DIRECT if no_proxy else proxy,
            agent_version=version("mooring"),
            force=force,
        )
    except JoinFailed as error:
        advice = "nothing was changed; make a new token with: mooring token create"
        if error.reason.value in _NETWORK:
            advice = "nothing was changed, the token still holds; mooring agent doctor says more"
        code = _EXIT.get(error.reason.value, FAILED)
        raise CommandError(error.detail, advice, code) from error
    except (StateError, OSError) as error:
        advice = f"check that you may write to {state_dir}"
        raise CommandError(str(error), advice, FAILED) from error
    if settings_of(context).json:
        print_json({"node": joined.name, "id": joined.node_id, "hubs": joined.hubs})
    else:
        note(f"joined as {joined.name}; now: mooring agent run --state-dir {state_dir}")


def _read_token(file: Path | None) -> str:
    if file is None and (token := os.environ.get("MOORING_JOIN_TOKEN")):
        return token
    try:
        if file is not None:
            with file.open("rb") as opened:
                data = opened.read(TOKEN_LIMIT)
        else:
            if sys.stdin.isatty():
                print("join token: ", end="", file=sys.stderr, flush=True)
            data = sys.stdin.buffer.readline(TOKEN_LIMIT)
    except OSError as error:
        raise CommandError(
            f"{file} can't be read: {error.strerror}", "name the token file"
        ) from error
    return data.decode("ascii", "replace")


@app.command(epilog="Example:  mooring agent doctor --state-dir /var/lib/mooring-agent")
def doctor(
    context: typer.Context,
    state_dir: StatePath,
    hub: Annotated[str | None, typer.Option(help="Look at this address only.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A join token, looked at and not used up.")
    ] = None,
    proxy: ProxyUrl = None,
    no_proxy: NoProxy = False,
) -> int:
    """Look for what keeps this machine from its hub; also before it joined, with --hub or a token.

    Changes nothing, and takes no tunnel away from an agent that runs. Exits with 1 when something
    failed.
    """
    import asyncio

    from edge_agent.doctor import examine
    from edge_agent.proxies import DIRECT
    from edge_agent.state import StateDir

    token = _read_token(token_file) if token_file is not None else None
    findings = asyncio.run(
        examine(
            StateDir(state_dir),
            hub_url=hub,
            token_text=token,
            proxy=DIRECT if no_proxy else proxy,
        )
    )
    good = all(finding.status != "failed" for finding in findings)
    if settings_of(context).json:
        print_json({"ok": good, "findings": findings})
    else:
        _print_findings(findings)
    return 0 if good else FAILED


def _print_findings(findings: Iterable[Finding]) -> None:
    """Print a line each, those of a hub under its address."""
    hub = None
    for finding in findings:
        if finding.hub != hub:
            hub = finding.hub
            print(clean(str(hub)))
        advice = f": {finding.advice}" if finding.advice else ""
        word = "FAILED" if finding.status == "failed" else finding.status
        print(clean(f"{word:8} {finding.check:12} {finding.detail}{advice}"))


@app.command(epilog="Example:  mooring agent run --state-dir /var/lib/mooring")
def run(state_dir: StatePath) -> int:
    """Run the agent of this machine until it is told to stop."""
    from edge_agent.run import run as run_agent
    from edge_agent.state import StateError

    logging.basicConfig(
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", level=logging.INFO
    )
    try:
        return run_agent(state_dir)
    except (StateError, OSError) as error:
        advice = "join first: mooring agent join --hub URL --state-dir DIR"
        raise CommandError(str(error), advice, FAILED) from error
