"""A terminal of each peer behind one interface: bytes typed, bytes shown."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection, connect

from mooring.sdk.identity import HTTP_ALPN
from tests.bench.peers.meshcentral import MeshCentral
from tests.bench.peers.meshcentral_api import Control
from tests.bench.peers.mooring import NODE, Mooring
from tests.bench.peers.openssh import OpenSSH

COOKIE = "__Host-mooring"
ACKNOWLEDGE_EVERY = 64 * 1024
READ = 256 * 1024


class Terminal(Protocol):
    """What is typed and what is shown."""

    async def write(self, keys: bytes) -> None:
        """Type."""

    async def read(self) -> bytes:
        """The next piece that is shown."""


class MooringTerminal:
    """The browser's socket, driven as the page drives it: signed in, ticket, acknowledging."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._shown = self._acknowledged = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, mooring: Mooring) -> AsyncIterator[MooringTerminal]:
        """Sign in with the administrator's password and open a shell on the node."""
        who = mooring.identity()
        tls = who.tls(HTTP_ALPN)
        async with httpx.AsyncClient(base_url=who.url, verify=tls, trust_env=False) as browser:
            browser.headers["Origin"] = who.url
            body = {"username": "admin", "password": mooring.password()}
            session = (await browser.post("/api/v1/session", json=body)).raise_for_status()
            proof = {"X-CSRF-Token": session.json()["csrf"]}
            body = {"purpose": "shell", "node": NODE}
            ticket = await browser.post("/api/v1/tickets", json=body, headers=proof)
            first = {**ticket.raise_for_status().json(), "node": NODE, "rows": 25, "columns": 80}
            del first["expires_at"]
            cookie = f"{COOKIE}={session.cookies[COOKIE]}"
        async with connect(
            f"wss://{who.url.removeprefix('https://')}/api/v1/shell",
            ssl=tls,
            origin=who.url,  # type: ignore[arg-type]  # a NewType of str
            additional_headers={"Cookie": cookie},
            max_size=None,
            ping_interval=None,
            proxy=None,
        ) as socket:
            await socket.send(json.dumps(first))
            answer = json.loads(await socket.recv())
            if answer["type"] != "opened":
                raise ConnectionError(f"no shell: {answer}")
            yield cls(socket)

    async def write(self, keys: bytes) -> None:
        """Type."""
        await self._socket.send(keys)

    async def read(self) -> bytes:
        """The next piece; acknowledged as the page does, when it is all or 64 KiB."""
        message = await self._socket.recv()
        if isinstance(message, str):
            raise ConnectionError(f"the shell ended: {message}")
        self._shown += len(message)
        small = len(message) < ACKNOWLEDGE_EVERY // 2
        if small or self._shown - self._acknowledged >= ACKNOWLEDGE_EVERY:
            self._acknowledged = self._shown
            await self._socket.send(msgspec.json.encode({"ack": self._shown}).decode())
        return message


class MeshCentralTerminal:
    """A relay socket to a terminal that the agent starts."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    @classmethod
    @asynccontextmanager
    async def open(cls, central: MeshCentral) -> AsyncIterator[MeshCentralTerminal]:
        """Ask for a terminal on the agent's node."""
        control = await Control.open(central.account)
        socket = await control.terminal(central.node)
        options = {"ctrlChannel": "102938", "type": "options", "cols": 80, "rows": 25}
        await socket.send(json.dumps(options))
        await socket.send("1")
        try:
            await asyncio.sleep(1.0)  # what is typed before its shell is up is lost
            yield cls(socket)
        finally:
            await socket.close()
            await control.close()

    async def write(self, keys: bytes) -> None:
        """Type."""
        await self._socket.send(keys)

    async def read(self) -> bytes:
        """The next piece; text frames are control messages or text."""
        while True:
            message = await self._socket.recv()
            if isinstance(message, bytes):
                return message
            if not message.startswith('{"ctrlChannel"'):
                return message.encode()


class SecureShellTerminal:
    """`ssh -tt` over pipes: a terminal on the node, none here."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    @asynccontextmanager
    async def open(cls, ssh: OpenSSH) -> AsyncIterator[SecureShellTerminal]:
        """Start a login shell on a terminal."""
        argv = ssh.command("-tt", "node")
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, limit=READ)
        try:
            yield cls(process)
        finally:
            process.terminate()
            await process.wait()

    async def write(self, keys: bytes) -> None:
        """Type."""
        self._stdin.write(keys)
        await self._stdin.drain()

    async def read(self) -> bytes:
        """The next piece."""
        data = await self._stdout.read(READ)
        if not data:
            raise ConnectionError("ssh ended")
        return data
