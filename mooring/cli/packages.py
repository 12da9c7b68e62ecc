"""`mooring packages`: what the hub keeps for deployments."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from mooring.cli.failures import USAGE, CommandError
from mooring.cli.output import colours, confirm, note, print_fields, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import size, when
from mooring.sdk import Client, calls
from mooring.sdk.models import Package

app = typer.Typer(add_completion=False)
PART_BYTES = 256 * 1024
Reference = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A package.")]


@app.callback(epilog="Example:  mooring packages push web-1.4.0.tar.gz && mooring deploy web all")
def packages() -> None:
    """Packages: named, versioned archives that never change; deploy brings them to nodes."""


@app.command(epilog="Example:  mooring packages push build/web-1.4.0.tar.gz")
def push(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tar.gz or .zip.")],
    name: Annotated[str | None, typer.Option(help="If neither service.json says it.")] = None,
    version: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    description: Annotated[str | None, typer.Option(help="What is new.")] = None,
) -> None:
    """Upload an archive; name and version come from its service.json, the options or its name."""
    try:
        with file.open("rb") as content, Client.connect() as hub:
            total = file.stat().st_size
            digest = hashlib.file_digest(content, hashlib.sha256).hexdigest()
            content.seek(0)
            call = calls.push_package(
                file.name, name=name, version=version, description=description
            )
            with _progress(file.name, total) as advance:
                parts = _parts(content.read, advance)
                package = hub.upload(call, parts, total, digest)
    except OSError as error:
        detail = f"{file} can't be read: {error.strerror or error}"
        raise CommandError(detail, "name a .tar.gz or .zip file", USAGE) from error
    if settings_of(context).json:
        print_json(package)
    else:
        note(f"{package.name}@{package.version}, {size(package.size_bytes)}, {package.digest}")


def _parts(read: Callable[[int], bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    while data := read(PART_BYTES):
        yield data
        advance(len(data))


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr when it is a terminal; yields what to call with each count of bytes."""
    if not colours(sys.stderr):
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(name, total=total)
        yield lambda count: progress.advance(bar, count)


@app.command("list", epilog="Example:  mooring packages list")
def list_(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Only this package's versions.")] = None,
) -> None:
    """List packages and versions, and where they are installed."""
    with Client.connect() as hub:
        found = list(hub.each(calls.packages(name)))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (
            p.name,
            p.version,
            p.format,
            size(p.size_bytes),
            _nodes(p),
            when(p.created_at),
            p.created_by,
        )
        for p in found
    ]
    print_table(("NAME", "VERSION", "FORMAT", "SIZE", "NODES", "PUSHED", "BY"), rows)


def _nodes(package: Package) -> str:
    nodes = package.nodes
    return str(nodes) if isinstance(nodes, int) else ",".join(nodes)


@app.command(epilog="Example:  mooring packages show web@1.4.0")
def show(context: typer.Context, package: Reference) -> None:
    """Show a version of a package, or all of them."""
    name, _, version = package.partition("@")
    if not version:
        list_(context, name)
        return
    with Client.connect() as hub:
        found = hub.call(calls.package(name, version))
    if settings_of(context).json:
        print_json(found)
        return
    print_fields(
        (
            ("name", found.name),
            ("version", found.version),
            ("description", found.description),
            ("format", found.format),
            ("size", size(found.size_bytes)),
            ("SHA-256", found.digest),
            ("pushed", f"{when(found.created_at)} by {found.created_by}"),
            ("installed on", _nodes(found)),
        )
    )


@app.command(epilog="Example:  mooring packages remove web@1.3.0")
def remove(context: typer.Context, package: Reference) -> None:
    """Remove a version that no node and no running deployment uses."""
    name, _, version = package.partition("@")
    if not version:
        raise typer.BadParameter(f"say which version: {name}@VERSION")
    confirm(context, f"remove {package} from the repository?")
    with Client.connect() as hub:
        hub.call(calls.remove_package(name, version))
    note(f"{package} is removed")
