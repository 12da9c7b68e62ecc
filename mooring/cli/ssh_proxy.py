"""`mooring ssh-proxy`: standard input and output joined to a node's ssh server.

The rule it guards: stdout carries the target's bytes and nothing else, each direction ends by
itself, and whatever ssh does to its proxy (a signal, a closed pipe) ends it without a word.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from contextlib import suppress
from typing import Annotated

import typer

from mooring.cli.descriptors import nonblocking, read, write
from mooring.cli.output import show_warnings
from mooring.cli.places import LOOPBACK
from mooring.cli.refusals import connection_ended, refusal
from mooring.sdk.async_client import AsyncClient
from protocol.aio import ProtocolError, Stream, StreamReset
from protocol.messages import ClientForward

app = typer.Typer(add_completion=False)
STDIN, STDOUT = 0, 1
PIECE_BYTES = 64 * 1024
SUFFIX = ".mooring"


@app.command(
    "ssh-proxy", epilog="Example:  ssh -o ProxyCommand='mooring ssh-proxy %h %p' user@web-1"
)
def ssh_proxy(
    node: Annotated[
        str, typer.Argument(metavar="NODE", help=f"A node's name or id; NAME{SUFFIX} too.")
    ],
    port: Annotated[int, typer.Argument(min=1, max=65535, help="Of the node's ssh server.")] = 22,
) -> int:
    """Join standard input and output to a port of the node itself, as ssh's ProxyCommand.

    ssh, scp, sftp, rsync and the remote modes of editors work through it; mooring ssh-config prints
    the lines for ~/.ssh/config.
    """
    import uvloop

    show_warnings()
    name = node.removeprefix("id:").removesuffix(SUFFIX)
    with nonblocking(STDIN, STDOUT):
        return uvloop.run(_until_signalled(name, port))


async def _until_signalled(node: str, port: int) -> int:
    """Return 0 when both directions have ended, else 128 and the number of what ended it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "it runs in one"
    ended_by: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        ended_by.append(number)
        task.cancel()

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await _carry(node, port)
    except asyncio.CancelledError:
        return 128 + ended_by[0]
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    return 0


async def _carry(node: str, port: int) -> None:
    opened = ClientForward(node=node, host=LOOPBACK, port=port, via="ssh-proxy")
    try:
        async with AsyncClient.connect() as hub, hub.tunnel() as tunnel:
            async with await tunnel.open(opened) as stream:
                await _join(stream)
    except StreamReset as error:
        advice = "check that it is online, mooring nodes, and that an ssh server listens there"
        raise refusal(node, error, unreachable=advice) from error
    except ProtocolError as error:
        raise connection_ended(error) from error


async def _join(stream: Stream) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_send(stream))
            tasks.create_task(_receive(stream))
    except ExceptionGroup as group:  # one direction failed and ended the other
        raise group.exceptions[0] from group


async def _send(stream: Stream) -> None:
    with suppress(OSError):  # a terminal that went away has ended
        while data := await read(STDIN, PIECE_BYTES):
            await stream.write(data)
    stream.finish()


async def _receive(stream: Stream) -> None:
    while data := await stream.read(PIECE_BYTES):
        await write(STDOUT, data)
    _finish(STDOUT)


def _finish(descriptor: int) -> None:
    """Let the reader see the end; nothing is left behind that a later flush could fail on."""
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as shared:
            shared.shutdown(socket.SHUT_WR)
    os.set_blocking(descriptor, True)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
