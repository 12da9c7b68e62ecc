"""`mooring socks`: a SOCKS5 proxy here whose connections begin on a node."""

from __future__ import annotations

import ipaddress
from typing import Annotated

import typer

from mooring.cli.linked import Linked, failed, serve_linked
from mooring.cli.output import note, print_json, show_warnings
from mooring.cli.places import Place, listening
from mooring.cli.settings import settings_of
from mooring.sdk.socks import SocksProxy

app = typer.Typer(add_completion=False)


@app.command("socks", epilog="Example:  mooring socks web-1 1080")
def socks(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    port: Annotated[
        str, typer.Argument(metavar="[BIND:]PORT", help="Where to listen; 0: the system picks.")
    ],
) -> int:
    """Listen here as a SOCKS5 proxy; connections and names are the node's, until Ctrl-C.

    Try it with curl --proxy socks5h://127.0.0.1:1080 URL. The node's own policy decides where
    connections may go; by default to the node itself only. Nobody is asked for a password: leave
    it on this machine's own address.
    """
    import uvloop

    place, as_json = listening(port), settings_of(context).json

    async def start(linked: Linked) -> None:
        proxy = SocksProxy(linked.link, linked.node, failed)
        for bound in await linked.listen(proxy.listen(place.host, place.port), place):
            _say(bound, linked.node, as_json=as_json)

    show_warnings()
    return uvloop.run(serve_linked(node, start))


def _say(bound: Place, node: str, *, as_json: bool) -> None:
    if not ipaddress.ip_address(bound.host.partition("%")[0]).is_loopback:
        note(f"warning: whoever reaches {bound} goes through {node}, without a password")
    if as_json:
        event = {"type": "forwarding", "direction": "socks"}
        print_json(event | {"local": str(bound), "node": node, "remote": None})
    else:
        print(f"SOCKS5 on {bound} -> {node}", flush=True)
