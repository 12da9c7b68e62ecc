"""Places as people write them: HOST:PORT in all the forms that forwards, links and proxies take.

The rule it guards: the same words mean the same everywhere. An IPv6 address stands in brackets, a
host that is left out is 127.0.0.1, port 0 lets the system pick one where something listens.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

import typer

LOOPBACK = "127.0.0.1"
_HOST = r"\[[0-9A-Fa-f:.%]+\]|[^:\[\]\s]+"
_PORT = r"[0-9]{1,5}"
_PLACE = re.compile(rf"(?:(?P<host>{_HOST}):)?(?P<port>{_PORT})")
_ROUTE = re.compile(rf"(?P<listen>(?:(?:{_HOST}):)?{_PORT}):(?P<target>(?:{_HOST}):{_PORT})")
_ON_NODE = re.compile(r"(?P<node>[A-Za-z0-9._-]+):(?P<place>.+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """What to listen on, and where to come out."""

    listen: Place
    target: Place


def listening(text: str) -> Place:
    """Read [BIND:]PORT.

    Raises:
        typer.BadParameter: it is something else.
    """
    return _place(text, lowest_port=0, example="1080, 0.0.0.0:1080 or [::1]:1080")


def target(text: str) -> Place:
    """Read [HOST:]PORT.

    Raises:
        typer.BadParameter: it is something else.
    """
    return _place(text, lowest_port=1, example="3000, db.internal:5432 or [fd00::7]:443")


def route(text: str) -> Route:
    """Read [BIND:]PORT:HOST:PORT, as ssh takes it after -L and -R.

    Raises:
        typer.BadParameter: it is something else.
    """
    match = _ROUTE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no forward; write 8080:localhost:80, IPv6 addresses in brackets"
        )
    return Route(listening(match["listen"]), target(match["target"]))


def on_node(text: str) -> tuple[str, Place]:
    """Read NODE:[HOST:]PORT.

    Raises:
        typer.BadParameter: it is something else.
    """
    match = _ON_NODE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no place on a node; write web-1:8080")
    return match["node"], target(match["place"])


def check_bind(place: Place) -> Place:
    """Return a place that a node is to listen on; the node looks no names up for that.

    Raises:
        typer.BadParameter: its host is no address.
    """
    if place.host not in ("localhost", "*"):
        try:
            ipaddress.ip_address(place.host)
        except ValueError:
            raise typer.BadParameter(
                f"{place.host!r} is no address that a node could listen on; leave it out for "
                "127.0.0.1, or write 0.0.0.0 or [::1]"
            ) from None
    return place


def _place(text: str, *, lowest_port: int, example: str) -> Place:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no port; write {example}")
    port = int(match["port"])
    if not lowest_port <= port <= 65535:
        raise typer.BadParameter(f"{text!r}: a port is {lowest_port} to 65535 here")
    return Place((match["host"] or LOOPBACK).strip("[]"), port)
