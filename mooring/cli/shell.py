"""`mooring shell`: a terminal on a node, as if one sat there."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Annotated, TypeAlias, assert_never

import typer

from mooring.cli.failures import FAILED
from mooring.cli.output import note, show_warnings
from mooring.cli.refusals import connection_ended, refusal
from mooring.cli.terminal import Escape, keys, on_resize, raw_terminal, terminal_size
from mooring.sdk.async_client import AsyncClient
from protocol.aio import Channel, ProtocolError, ResetCode, StreamReset, TunnelClosed
from protocol.messages import ClientShell
from protocol.record_types import Exited, Input, PtyFromHub, PtyFromNode, Resize, Screen

app = typer.Typer(add_completion=False)
Pty: TypeAlias = Channel[PtyFromHub, PtyFromNode]
STDIN, STDOUT = 0, 1
LEFT = "left by its user"
END_OF_FILE = b"\x04"  # what a terminal makes of it, VEOF


@app.command("shell", epilog="Example:  mooring shell web-1 -- htop")
def shell(
    node: Annotated[str, typer.Argument(metavar="NODE", help="A node's name or id.")],
    command: Annotated[
        list[str] | None, typer.Argument(help="Instead of the login shell, after --.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="As this user of the node.")] = None,
) -> int:
    """Open a terminal on a node; Enter ~ . leaves it when nothing else helps.

    The exit code is the shell's, 128 and the signal's number when a signal ended it.
    """
    rows, columns = terminal_size()
    term = os.environ.get("TERM") or "xterm-256color"
    message = ClientShell(
        node=node.removeprefix("id:"),
        argv=command or [],
        user=user,
        rows=rows,
        columns=columns,
        term=term[:256],
    )
    show_warnings()
    with raw_terminal(STDIN):
        ended = asyncio.run(_session(message))
    return _report(node, ended)


async def _session(message: ClientShell) -> Exited | None:
    """Run the terminal until it ends; None: it was left by its escape."""
    try:
        async with AsyncClient.connect() as hub, hub.tunnel() as tunnel:
            pty: Pty = Channel(await tunnel.open(message), PtyFromNode)
            return await _converse(pty)
    except StreamReset as error:
        if error.reason == LEFT:
            return None
        raise refusal(message.node, error) from error
    except ProtocolError as error:
        raise connection_ended(error) from error


async def _converse(pty: Pty) -> Exited:
    """Show what comes, send what is typed; what ends the stream is raised from showing."""
    resized = asyncio.Event()
    failure: ProtocolError | None = None
    async with asyncio.TaskGroup() as tasks:
        typing = tasks.create_task(_type(pty))
        sizing = tasks.create_task(_follow_size(pty, resized))
        try:
            with on_resize(resized.set):
                ended = await _show(pty)
        except ProtocolError as error:
            failure = error
        typing.cancel()
        sizing.cancel()
    if failure is not None:
        raise failure
    return ended


async def _show(pty: Pty) -> Exited:
    while (record := await pty.receive()) is not None:
        match record:
            case Screen(data=data):
                await asyncio.to_thread(_write, data)  # a stopped terminal must not stop the loop
            case Exited():
                return record
            case _:
                assert_never(record)
    raise TunnelClosed("the terminal ended without saying how")


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]


async def _type(pty: Pty) -> None:
    escape, is_terminal = Escape(), os.isatty(STDIN)
    with suppress(ProtocolError):
        async for data in keys(STDIN):
            sent, wants_out = escape.feed(data) if is_terminal else (data, False)
            if sent:
                await pty.send(Input(data=sent))
            if wants_out:
                pty.reset(ResetCode.CANCELLED, LEFT)
                return
        await pty.send(Input(data=END_OF_FILE))


async def _follow_size(pty: Pty, resized: asyncio.Event) -> None:
    with suppress(ProtocolError):
        while True:
            await resized.wait()
            resized.clear()
            rows, columns = terminal_size()
            await pty.send(Resize(rows=rows, columns=columns))


def _report(node: str, ended: Exited | None) -> int:
    if ended is None:
        note(f"left {node}; the shell there is ended")
        return 0
    if ended.reason and ended.reason != "killed":
        note(f"{node}: {ended.detail or ended.reason}")
    if ended.exit_code is not None:
        return ended.exit_code
    return FAILED if ended.signal is None else 128 + ended.signal
