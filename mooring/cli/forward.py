"""`mooring forward`: a port here that comes out on a node."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Annotated

import typer

from mooring.cli.failures import FAILED, CommandError
from mooring.cli.output import note, print_json, show_warnings
from mooring.cli.settings import settings_of
from mooring.sdk import calls
from mooring.sdk.async_client import AsyncClient
from mooring.sdk.errors import MooringError
from mooring.sdk.forwarding import Forwarder, Link

app = typer.Typer(add_completion=False)
_HOST = r"\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+"
_SPEC = re.compile(rf"(?:(?P<bind>{_HOST}):)?(?P<local>\d+):(?P<host>{_HOST}):(?P<port>\d+)")


@dataclass(frozen=True, slots=True)
class Spec:
    """What to listen on here, and where to come out; local port 0: the system picks one."""

    bind: str
    local: int
    host: str
    port: int


def parse(text: str) -> Spec:
    """Read [BIND:]PORT:HOST:PORT, IPv6 addresses in brackets.

    Raises:
        typer.BadParameter: it is something else.
    """
    match = _SPEC.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no forward; write 8080:localhost:80")
    spec = Spec(
        bind=(match["bind"] or "127.0.0.1").strip("[]"),
        local=int(match["local"]),
        host=match["host"].strip("[]"),
        port=int(match["port"]),
    )
    if spec.local > 65535 or not 1 <= spec.port <= 65535:
        raise typer.BadParameter(f"{text!r} has a port beyond 65535, or 0 to connect to")
    return spec


@app.command("forward", epilog="Example:  mooring forward db-1 5433:localhost:5432")
def forward(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    forwards: Annotated[
        list[str],
        typer.Argument(metavar="[BIND:]PORT:HOST:PORT...", help="HOST as the node sees it."),
    ],
) -> int:
    """Listen here and connect from the node, until Ctrl-C.

    Listens on 127.0.0.1 unless BIND says otherwise; an IPv6 address stands in brackets; port 0 lets
    the system pick one. A node's default policy allows connections to the node itself only. The
    tunnel comes back by itself when the hub was away; open connections don't.
    """
    import uvloop

    show_warnings()
    specs = [parse(text) for text in forwards]
    return uvloop.run(_forward(node, specs, as_json=settings_of(context).json))


async def _forward(node: str, specs: list[Spec], *, as_json: bool) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncClient.connect() as hub, AsyncExitStack() as listeners:
        found = await hub.call(calls.node(node))
        link = Link(hub)
        failure: MooringError | None = None
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_keep(link))
            stopped = tasks.create_task(stop.wait())
            up = tasks.create_task(link.up())
            await asyncio.wait((running, up, stopped), return_when=asyncio.FIRST_COMPLETED)
            try:
                if up.done():
                    for spec in specs:
                        await _listen(listeners, link, found.name, spec, as_json=as_json)
                    await asyncio.wait((running, stopped), return_when=asyncio.FIRST_COMPLETED)
            except MooringError as error:
                failure = error
            if running.done():
                failure = running.result()
            for task in (running, stopped, up):
                task.cancel()
    if failure is not None:
        raise failure
    return 0


async def _keep(link: Link) -> MooringError:
    """Keep the tunnel up; returns the error after which trying again makes no sense."""
    try:
        return await link.run()
    except MooringError as error:
        return error


async def _listen(
    listeners: AsyncExitStack, link: Link, node: str, spec: Spec, *, as_json: bool
) -> None:
    def failed(peer: str, error: Exception) -> None:
        note(f"a connection from {peer} could not be carried: {str(error) or 'timed out'}")

    forwarder = Forwarder(link, node, spec.host, spec.port, failed)
    try:
        bound = await listeners.enter_async_context(forwarder.listen(spec.bind, spec.local))
    except OSError as error:
        place = f"{_bracket(spec.bind)}:{spec.local}"
        reason = error.strerror or str(error)
        advice = "choose another local port, or 0 to let the system pick one"
        raise CommandError(f"can't listen on {place}: {reason}", advice, FAILED) from error
    for host, port in bound:
        local, remote = f"{_bracket(host)}:{port}", f"{_bracket(spec.host)}:{spec.port}"
        if as_json:
            print_json({"type": "forwarding", "local": local, "node": node, "remote": remote})
        else:
            print(f"forwarding {local} -> {node}:{remote}", flush=True)


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host
