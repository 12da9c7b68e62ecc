"""`mooring forward`: ports here that come out on a node, and with -R the other way round."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.linked import Linked, failed, serve_linked
from mooring.cli.output import note, print_json, show_warnings
from mooring.cli.places import Place, Route, check_bind, route
from mooring.cli.settings import settings_of
from mooring.sdk.forwarding import Forwarder
from mooring.sdk.reverse import Reverse

app = typer.Typer(add_completion=False)


@app.command(
    "forward", epilog="Example:  mooring forward web-1 5433:localhost:5432 -R 9000:localhost:3000"
)
def forward(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    forwards: Annotated[
        list[str] | None,
        typer.Argument(metavar="[BIND:]PORT:HOST:PORT...", help="HOST as the node sees it."),
    ] = None,
    reverse: Annotated[
        list[str] | None,
        typer.Option(
            "-R",
            "--reverse",
            metavar="[BIND:]PORT:HOST:PORT",
            help="Listen on the node; HOST as this machine sees it. Repeatable.",
        ),
    ] = None,
) -> int:
    """Listen here and connect from the node, or with -R the other way round, until Ctrl-C.

    Listens on 127.0.0.1 unless BIND says otherwise; an IPv6 address stands in brackets; port 0 lets
    the system pick one. The node's own policy decides where connections go and which ports it
    opens; by default connections to the node itself only. Everything comes back by itself when
    hub, node or network were away; open connections go on after up to a minute without network,
    and end when hub or agent restart.
    """
    import uvloop

    routes = [route(text) for text in forwards or []]
    reversed_ = [route(text) for text in reverse or []]
    for wanted in reversed_:
        check_bind(wanted.listen)
    if not routes and not reversed_:
        raise typer.BadParameter("nothing to forward; write 8080:localhost:80, or -R before it")
    as_json = settings_of(context).json

    async def start(linked: Linked) -> None:
        for wanted in routes:
            await _listen_here(linked, wanted, as_json=as_json)
        for wanted in reversed_:
            _listen_there(linked, wanted, as_json=as_json)

    show_warnings()
    return uvloop.run(serve_linked(node, start))


async def _listen_here(linked: Linked, wanted: Route, *, as_json: bool) -> None:
    here, target = wanted.listen, wanted.target
    forwarder = Forwarder(linked.link, linked.node, target.host, target.port, failed)
    for place in await linked.listen(forwarder.listen(here.host, here.port), here):
        if as_json:
            _print_event("local", linked.node, here=place, there=target)
        else:
            print(f"forwarding {place} -> {linked.node}:{target}", flush=True)


def _listen_there(linked: Linked, wanted: Route, *, as_json: bool) -> None:
    target, printed = wanted.target, False

    def opened(port: int) -> None:
        nonlocal printed
        place = Place(wanted.listen.host, port)
        if printed:
            note(f"{linked.node}:{place} is open again")
        elif as_json:
            _print_event("reverse", linked.node, here=target, there=place)
        else:
            print(f"forwarding {linked.node}:{place} -> {target}", flush=True)
        printed = True

    reverse = Reverse(linked.link, linked.node, target.host, target.port, failed)
    linked.keep(reverse.run(wanted.listen.host, wanted.listen.port, opened))


def _print_event(direction: str, node: str, *, here: Place, there: Place) -> None:
    event = {"type": "forwarding", "direction": direction}
    print_json(event | {"local": str(here), "node": node, "remote": str(there)})
