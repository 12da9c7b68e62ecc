"""`mooring tasks`: the commands that were given, by whom, and how they went."""

from __future__ import annotations

from typing import Annotated

import typer

from mooring.cli.follow import follow_task
from mooring.cli.output import clean_output, note, print_fields, print_json, print_table
from mooring.cli.settings import settings_of
from mooring.cli.transcript import Transcript
from mooring.cli.units import when
from mooring.sdk import Client, calls
from mooring.sdk.models import OutputEvent, Run, Task

app = typer.Typer(add_completion=False)
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="A task's id.")]


@app.callback(epilog="Example:  mooring tasks show --json 0c3f | jq '.runs[] | .node, .state'")
def tasks() -> None:
    """Tasks: commands given with exec, running or ended."""


@app.command("list", epilog="Example:  mooring tasks list --limit 20")
def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="The newest so many.")] = 50,
) -> None:
    """List tasks, newest first."""
    with Client.connect() as hub:
        found = list(hub.each(calls.tasks(), limit))
    if settings_of(context).json:
        print_json(found)
        return
    rows = [
        (t.id, t.state, _counts(t), when(t.created_at), t.subject, t.target, " ".join(t.argv)[:60])
        for t in found
    ]
    print_table(("TASK", "STATE", "NODES", "GIVEN", "BY", "TARGET", "COMMAND"), rows)


def _counts(task: Task) -> str:
    return ", ".join(f"{count} {state}" for state, count in task.counts.items() if count)


@app.command(epilog="Example:  mooring tasks show 0c3f")
def show(context: typer.Context, task: TaskId) -> None:
    """Show a task with every node's result and output."""
    with Client.connect() as hub:
        found = hub.call(calls.task(task))
    if settings_of(context).json:
        print_json(found)
        return
    print_fields(
        (
            ("task", found.id),
            ("state", found.state),
            ("command", " ".join(found.argv)),
            ("target", found.target),
            ("by", found.subject),
            ("given", when(found.created_at)),
            ("ended", when(found.finished_at)),
        )
    )
    runs = found.runs or []
    print()
    rows = [(r.node, r.state, r.exit_code, r.signal, r.reason) for r in runs]
    print_table(("NODE", "STATE", "EXIT", "SIGNAL", "REASON"), rows)
    print()
    transcript = Transcript(width=max((len(run.node) for run in runs), default=0))
    for run in runs:
        print(clean_output(_output(transcript, run)), end="")


def _output(transcript: Transcript, run: Run) -> str:
    texts = []
    for stream, data in (("stdout", run.stdout), ("stderr", run.stderr)):
        places = transcript.output(OutputEvent(node=run.node, stream=stream, data=data))
        texts += [text for _, text in (*places, *transcript.end())]
    return "".join(texts)


@app.command(epilog="Example:  mooring tasks watch 0c3f")
def watch(context: typer.Context, task: TaskId) -> int:
    """Show a task's output from its beginning until it ends; the exit code is like exec's."""
    with Client.connect() as hub:
        return follow_task(hub, task, as_json=settings_of(context).json)


@app.command(epilog="Example:  mooring tasks cancel 0c3f")
def cancel(context: typer.Context, task: TaskId) -> None:
    """End what of a task still runs, and drop what still waits."""
    with Client.connect() as hub:
        found = hub.call(calls.cancel_task(task))
    if settings_of(context).json:
        print_json(found)
    else:
        note(f"task {found.id}: {found.state}")
