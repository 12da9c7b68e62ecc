"""Joins local ports to MeshCentral's relay sockets, as its own router does; a process of its own.

MESHCENTRAL_PASSWORD=… python -m tests.bench.peers.meshcentral_router PORT NODE HERE:THERE...
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable

import uvloop
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.bench.peers.meshcentral_api import Account, Control
from tests.bench.programs import HOST

PIECE = 64 * 1024


async def main(port: int, node: str, pairs: list[str]) -> None:
    """Serve every pair until ended."""
    account = Account(port, os.environ["MESHCENTRAL_PASSWORD"])
    control = await Control.open(account)
    asking = asyncio.Lock()

    async def listen(pair: str) -> None:
        here, there = (int(part) for part in pair.split(":"))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with asking:
                    socket = await control.forward(node, there)
                await _join(reader, writer, socket)
            finally:
                writer.close()

        await (await asyncio.start_server(serve, HOST, here)).serve_forever()

    async with asyncio.TaskGroup() as tasks:
        for pair in pairs:
            tasks.create_task(listen(pair))


async def _join(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: ClientConnection
) -> None:
    """Carry bytes both ways until one side ends."""

    async def out() -> None:
        while data := await reader.read(PIECE):
            await socket.send(data)

    async def back() -> None:
        async for message in socket:
            if isinstance(message, bytes):
                writer.write(message)
                await writer.drain()

    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(_quietly(out())), tasks.create_task(_quietly(back()))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
    await socket.close()


async def _quietly(work: Awaitable[None]) -> None:
    """A connection that breaks is how a load ends."""
    with contextlib.suppress(ConnectionClosed, OSError):
        await work


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
