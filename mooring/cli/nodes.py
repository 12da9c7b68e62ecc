"""`mooring nodes`: list the fleet or what a target matches; show, rename, label, remove one."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.menu import TargetOrCommand
from mooring.cli.output import confirm, note, print_fields, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.units import age, size, when
from mooring.sdk import Client, calls
from mooring.sdk.models import Node

app = typer.Typer(cls=TargetOrCommand, add_completion=False)
Name = Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")]


@app.callback(
    epilog="Example:  mooring nodes 'group:web and status==online'", subcommand_metavar="[TARGET]"
)
def nodes() -> None:
    """List the nodes that TARGET matches (all without one), or work on one node.

    show, rename, label and remove are always subcommands; to list a node that is called like one of
    them, write '~^show$' or id:UUID.
    """


@app.command("list", epilog="Example:  mooring nodes list 'label.site==berlin'")
def list_(
    context: typer.Context,
    target: Annotated[str | None, typer.Argument(help="Which nodes; all without it.")] = None,
) -> None:
    """List nodes; what mooring nodes TARGET does."""
    with Client.connect() as hub:
        found = list(hub.each(calls.nodes(target)))
    if settings_of(context).json:
        print_json(found)
        return
    print_table(
        ("NAME", "STATUS", "SINCE", "GROUPS", "LABELS", "PACKAGES", "SYSTEM"),
        [
            (
                node.name,
                node.status,
                age(node.status_since),
                ",".join(node.groups),
                _labels(node),
                _packages(node),
                f"{node.facts.os_id} {node.facts.os_version} {node.facts.arch}".strip(),
            )
            for node in found
        ],
    )


def _labels(node: Node) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(node.labels.items()))


def _packages(node: Node) -> str:
    return ",".join(f"{package.name}@{package.version}" for package in node.packages)


@app.command(epilog="Example:  mooring nodes show web-1")
def show(context: typer.Context, node: Name) -> None:
    """Show everything about a node."""
    with Client.connect() as hub:
        found = hub.call(calls.node(node))
    if settings_of(context).json:
        print_json(found)
        return
    facts = found.facts
    print_fields(
        (
            ("name", found.name),
            ("id", found.id),
            ("status", f"{found.status} since {when(found.status_since)}"),
            ("because", found.status_reason),
            ("round trip", f"{found.rtt_ms:.1f} ms" if found.rtt_ms is not None else None),
            ("groups", ", ".join(found.groups)),
            ("labels", _labels(found)),
            ("packages", _packages(found)),
            ("address", found.address),
            ("host name", facts.hostname),
            ("system", f"{facts.os_name} {facts.os_version}".strip()),
            ("kernel", f"{facts.kernel} {facts.arch}".strip()),
            ("processors", f"{facts.cpus} {facts.cpu_model}".strip() if facts.cpus else None),
            ("memory", size(facts.memory_bytes) if facts.memory_bytes else None),
            ("disks", ", ".join(f"{d.mount} {size(d.size_bytes)}" for d in facts.disks)),
            ("addresses", ", ".join(facts.addresses)),
            ("agent", f"{facts.agent_version} as {facts.agent_user}" if facts.agent_user else None),
            ("allows", ", ".join(facts.verbs)),
            ("joined", when(found.created_at)),
            ("last seen", when(found.last_seen_at)),
            ("certificate until", when(found.certificate_expires_at)),
        )
    )


@app.command(epilog="Example:  mooring nodes rename ip-10-0-0-7 web-1")
def rename(
    context: typer.Context, node: Name, name: Annotated[str, typer.Argument(help="The new name.")]
) -> None:
    """Give a node another name."""
    with Client.connect() as hub:
        _show_changed(context, hub.call(calls.change_node(node, rename=name)))


@app.command(epilog="Example:  mooring nodes label web-1 site=berlin role=web old-")
def label(
    context: typer.Context,
    node: Name,
    changes: Annotated[
        list[str], typer.Argument(metavar="K=V|K-", help="KEY=VALUE sets, KEY- takes away.")
    ],
) -> None:
    """Set a node's labels, or take some away."""
    with Client.connect() as hub:
        labels = dict(hub.call(calls.node(node)).labels)
        for change in changes:
            key, equals, value = change.partition("=")
            if equals and key:
                labels[key] = value
            elif key.endswith("-") and len(key) > 1:
                labels.pop(key[:-1], None)
            else:
                raise typer.BadParameter(f"{change!r} is neither KEY=VALUE nor KEY-")
        _show_changed(context, hub.call(calls.change_node(node, labels=labels)))


def _show_changed(context: typer.Context, node: Node) -> None:
    if settings_of(context).json:
        print_json(node)
    else:
        note(f"{node.name}: {_labels(node) or 'no labels'}")


@app.command(epilog="Example:  mooring nodes remove web-1 --yes")
def remove(context: typer.Context, node: Name) -> None:
    """Revoke a node's certificates, cut its tunnel and forget it; the agent has to join again."""
    confirm(context, f"remove {node}, with its history?")
    with Client.connect() as hub:
        hub.call(calls.remove_node(node))
    note(f"{node} is removed")
