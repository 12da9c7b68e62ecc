"""`mooring deploy`: bring a package to nodes and watch it arrive."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, assert_never

import typer

from mooring.cli.failures import FAILED, INTERRUPTED, UNREACHABLE, CommandError
from mooring.cli.output import clean, colours, note, print_json
from mooring.cli.settings import settings_of
from mooring.cli.units import size
from mooring.sdk import Client, calls
from mooring.sdk.errors import HubUnreachable
from mooring.sdk.models import DeploymentSpec, DeploymentSummary, NodeProgress

app = typer.Typer(add_completion=False)
ENDED = frozenset({"succeeded", "failed", "skipped", "cancelled", "lost"})


class Action(StrEnum):
    """What to do with the package."""

    INSTALL = "install"
    UPDATE = "update"
    UNINSTALL = "uninstall"


@app.command("deploy", epilog="Example:  mooring deploy web@1.4.0 'group:web' --parallel 5")
def deploy(
    context: typer.Context,
    package: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="What; newest without.")],
    target: Annotated[str, typer.Argument(help="Which nodes.")],
    action: Annotated[Action, typer.Option(help="What to do with it.")] = Action.INSTALL,
    parallel: Annotated[int, typer.Option(min=1, max=1000, help="Nodes at once.")] = 10,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Print the deployment's id and don't wait.")
    ] = False,
) -> int:
    """Install, update or uninstall a package on every node that matches.

    Each node verifies the archive, unpacks it beside the running version and switches over at the
    end, or stays as it was. The deployment goes on when this program ends.

    Exit code: 0 it succeeded everywhere, 1 it failed somewhere, 4 no such package or no node.
    """
    name, at, version = package.partition("@")
    if not name or (at and not version):
        raise typer.BadParameter(f"{package!r} is not a package; write NAME or NAME@VERSION")
    spec = DeploymentSpec(
        package=name,
        version=version or None,
        target=target,
        action=action.value,
        parallel=parallel,
    )
    as_json = settings_of(context).json
    with Client.connect() as hub:
        made = hub.call(calls.deploy(spec))
        if not no_wait:
            return _watch(hub, made.id, as_json=as_json)
    if as_json:
        print_json({"deployment": made.id})
    else:
        print(made.id)
    return 0


def _watch(hub: Client, deployment_id: str, *, as_json: bool) -> int:
    try:
        with _board(as_json) as show:
            states = _follow(hub, deployment_id, show)
    except KeyboardInterrupt:
        note(f"\ndeployment {deployment_id} goes on; the hub's pages show it")
        return INTERRUPTED
    except HubUnreachable as error:
        advice = f"deployment {deployment_id} goes on; the hub's pages show it"
        raise CommandError(str(error), advice, UNREACHABLE) from error
    counts = Counter(states.values())
    if not as_json:
        note(", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    return 0 if set(counts) <= {"succeeded"} and counts else FAILED


def _follow(
    hub: Client, deployment_id: str, show: Callable[[NodeProgress | DeploymentSummary], None]
) -> dict[str, str]:
    """Show what happens until the end; returns the nodes' last states."""
    states: dict[str, str] = {}
    for event in hub.stream(calls.deployment_stream(deployment_id)):
        show(event)
        match event:
            case NodeProgress():
                states[event.node] = event.state
            case DeploymentSummary():
                return states
            case _:
                assert_never(event)
    raise HubUnreachable(hub.identity.url, "the stream ended before the deployment did")


@contextmanager
def _board(as_json: bool) -> Iterator[Callable[[NodeProgress | DeploymentSummary], None]]:
    if as_json:
        yield print_json
    elif colours(sys.stdout):
        with _live_board() as show:
            yield show
    else:
        yield _Lines().show


class _Lines:
    """A line for each step of each node; bytes are left out."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def show(self, event: NodeProgress | DeploymentSummary) -> None:
        if isinstance(event, DeploymentSummary):
            return
        line = describe(event)
        if self._said.get(event.node) != line:
            self._said[event.node] = line
            print(clean(f"{event.node} | {line}"), flush=True)


def describe(event: NodeProgress) -> str:
    """Say where a node is."""
    if event.state == "succeeded" and not event.changed:
        return "succeeded (nothing to change)"
    if event.error:
        return f"{event.state}: {event.error}"
    if event.state in ENDED or event.stage in ("", "transfer", "install"):
        return event.state
    return f"{event.state}: {event.stage}"


@contextmanager
def _live_board() -> Iterator[Callable[[NodeProgress | DeploymentSummary], None]]:
    """A bar per node that is at work; nodes that ended move up as lines."""
    from rich.progress import BarColumn, Progress, TaskID, TextColumn
    from rich.text import Text

    bars: dict[str, TaskID] = {}
    text = TextColumn("{task.description}", markup=False)
    with Progress(text, BarColumn(), TextColumn("{task.fields[where]}", markup=False)) as progress:

        def show(event: NodeProgress | DeploymentSummary) -> None:
            if isinstance(event, DeploymentSummary) or event.state == "queued":
                return
            name = clean(event.node)
            if event.state in ENDED:
                if event.node in bars:
                    progress.remove_task(bars.pop(event.node))
                style = "green" if event.state == "succeeded" else "red"
                progress.console.print(Text(f"{name} | {clean(describe(event))}", style=style))
                return
            if event.node not in bars:
                bars[event.node] = progress.add_task(name, total=None, where="")
            where = clean(event.stage or event.state)
            if event.total_bytes and event.state == "transferring":
                where = f"{size(event.done_bytes)} of {size(event.total_bytes)}"
            progress.update(
                bars[event.node],
                total=event.total_bytes or None,
                completed=event.done_bytes,
                where=where,
            )

        yield show
