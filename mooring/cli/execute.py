"""`mooring exec`: run a command on the nodes that a target names and show what they say."""

from __future__ import annotations

import base64
import sys
from typing import Annotated

import typer

from mooring.cli.follow import follow_task
from mooring.cli.output import confirm, print_json
from mooring.cli.settings import settings_of
from mooring.cli.units import pairs, seconds
from mooring.sdk import Client, TaskSpec, calls

app = typer.Typer(add_completion=False)
STDIN_LIMIT = 1024 * 1024
ASK_ABOVE = 10  # nodes
ASK_SHARE = 0.25  # of the fleet


@app.command(
    "exec",
    epilog="Example:  mooring exec 'web-* and status==online' --timeout 2m -- uptime",
)
def execute(
    context: typer.Context,
    target: Annotated[str, typer.Argument(help="Which nodes: a name, a glob, an expression.")],
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    timeout: Annotated[
        float,
        typer.Option(parser=seconds, metavar="TIME", show_default="60s", help="For each run."),
    ] = 60.0,
    user: Annotated[str | None, typer.Option(help="Run as this user of the node.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Run in this directory.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="K=V", help="Set a variable; repeatable.")
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help="Send this program's standard input, 1 MiB at most.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=1000, help="Nodes at once.")] = 50,
    max_errors: Annotated[
        int | None, typer.Option(min=0, help="Begin no more runs after so many failures.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the task's id and don't wait.")
    ] = False,
) -> int:
    """Run a command on every node that matches and show its output as it comes.

    Lines begin with the node's name; stdout goes to stdout, stderr to stderr. No shell is involved:
    write sh -c '…' when you want one. The task goes on when this program ends.

    Exit code: 0 it succeeded everywhere, 1 it failed somewhere, 124 it only timed out, 4 no node
    matches.
    """
    spec = TaskSpec(
        target=target,
        argv=command,
        user=user,
        cwd=cwd,
        env=pairs(env or [], "variable"),
        stdin_base64=_read_stdin() if stdin else None,
        timeout_s=timeout,
        parallel=parallel,
        max_errors=max_errors,
    )
    settings = settings_of(context)
    with Client.connect() as hub:
        if sys.stdin.isatty() and not settings.yes:
            _ask_if_many(context, hub, spec)
        task = hub.call(calls.run(spec))
        if not detach:
            return follow_task(hub, task.id, as_json=settings.json)
    if settings.json:
        print_json({"task": task.id})
    else:
        print(task.id)
    return 0


def _read_stdin() -> str:
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        raise typer.BadParameter("standard input is larger than 1 MiB; push a package instead")
    return base64.b64encode(data).decode()


def _ask_if_many(context: typer.Context, hub: Client, spec: TaskSpec) -> None:
    matching = hub.count(calls.nodes(spec.target))
    if matching <= ASK_ABOVE:
        return
    fleet = hub.count(calls.nodes())
    if matching > fleet * ASK_SHARE:
        confirm(context, f"run {' '.join(spec.argv)!r} on {matching} of {fleet} nodes?")
