"""Following a task on the terminal, for `exec` and `tasks watch`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import assert_never

from mooring.cli.failures import FAILED, INTERRUPTED, CommandError
from mooring.cli.output import colours, note, print_json
from mooring.cli.transcript import Place, Transcript
from mooring.sdk import Client, calls
from mooring.sdk.errors import HubUnreachable
from mooring.sdk.models import OutputEvent, ResultEvent, SummaryEvent


def follow_task(hub: Client, task_id: str, *, as_json: bool) -> int:
    """Print a task's events until it ends; Ctrl-C leaves it running. Returns the exit code."""
    transcript = Transcript(terminal=colours(sys.stdout))
    if transcript.terminal and not as_json:
        runs = hub.call(calls.task(task_id)).runs or []
        transcript.width = max((len(run.node) for run in runs), default=0)
    try:
        return _print_events(hub, task_id, transcript, as_json=as_json)
    except KeyboardInterrupt:
        note(
            f"\ntask {task_id} goes on; see it with: mooring tasks watch {task_id}"
            f"  end it with: mooring tasks cancel {task_id}"
        )
        return INTERRUPTED
    except HubUnreachable as error:
        advice = f"task {task_id} goes on; see it with: mooring tasks watch {task_id}"
        raise CommandError(str(error), advice, 5) from error


def _print_events(hub: Client, task_id: str, transcript: Transcript, *, as_json: bool) -> int:
    ended = False
    for event in hub.stream(calls.task_stream(task_id)):
        if as_json:
            print_json(event)
        match event:
            case OutputEvent():
                places = transcript.output(event)
            case ResultEvent():
                places = transcript.result(event)
            case SummaryEvent():
                places, ended = transcript.end(), True
            case _:
                assert_never(event)
        if not as_json:
            _write(places)
    if not ended:
        _write(transcript.end())
        raise HubUnreachable(hub.identity.url, "the stream ended before the task did")
    if not as_json:
        sys.stdout.flush()
        note(transcript.summary())
    return transcript.exit_code() if transcript.results else FAILED


def _write(places: Iterable[Place]) -> None:
    for stream, text in places:
        target = sys.stdout if stream == "stdout" else sys.stderr
        target.buffer.write(text.encode("utf-8", "replace"))
        target.buffer.flush()
