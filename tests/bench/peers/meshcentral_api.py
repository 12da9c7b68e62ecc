"""MeshCentral's control socket and relay sockets, as far as the bench speaks them.

Messages are JSON objects with an `action`; a relay socket first says `c` or `cr` once the agent
has joined it, then carries bytes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect

from tests.bench.programs import HOST

USER = "bench"
ANSWER_TIMEOUT_S = 30.0
TERMINAL = 1
"""MeshCentral's number for a tunnel that is a terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    """Where the server is, and the password of `USER`."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """The server's WebSocket address."""
        return f"wss://{HOST}:{self.port}"


def trusting() -> ssl.SSLContext:
    """TLS without verification: the server makes its own certificate, on loopback."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def open_socket(account: Account, path: str, **headers: str) -> ClientConnection:
    """Open a WebSocket without compression, pings or a limit."""
    return await connect(
        account.url + path,
        ssl=trusting(),
        additional_headers=headers,
        max_size=None,
        ping_interval=None,
        compression=None,
        proxy=None,
    )


class Control:
    """A signed-in control socket."""

    def __init__(self, account: Account, socket: ClientConnection) -> None:
        self._account = account
        self._socket = socket

    @classmethod
    async def open(cls, account: Account) -> Control:
        """Sign in."""
        words = (USER, account.password)
        token = ",".join(base64.b64encode(word.encode()).decode() for word in words)
        socket = await open_socket(account, "/control.ashx", **{"x-meshauth": token})
        control = cls(account, socket)
        await control.until(lambda message: message.get("action") == "userinfo")
        return control

    async def send(self, **message: object) -> None:
        """Send one message."""
        await self._socket.send(json.dumps(message))

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next message that is wanted; the others are dropped."""
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while True:
                message: dict[str, Any] = json.loads(await self._socket.recv())
                if wanted(message):
                    return message

    async def ask(self, action: str, **fields: object) -> dict[str, Any]:
        """Send a message and return the answer of the same action."""
        await self.send(action=action, **fields)
        return await self.until(lambda message: message.get("action") == action)

    async def run(self, node: str, command: str) -> str:
        """Run a shell command as the agent; returns its output."""
        mark = secrets.token_hex(6)
        await self.send(
            action="runcommands",
            nodeids=[node],
            type=0,
            cmds=command,
            runAsUser=0,
            reply=True,
            responseid=mark,
        )
        answer = await self.until(
            lambda message: message.get("responseid") == mark and "result" in message
        )
        return str(answer["result"])

    async def group(self) -> str:
        """The id of the first device group; made when there is none."""
        groups = (await self.ask("meshes"))["meshes"]
        if not groups:
            await self.send(action="createmesh", meshname="bench", meshtype=2, responseid="made")
            await self.until(lambda message: message.get("responseid") == "made")
            groups = (await self.ask("meshes"))["meshes"]
        return str(groups[0]["_id"]).rsplit("/", 1)[-1]

    async def online_node(self) -> str | None:
        """The id of a node whose agent is connected."""
        groups = (await self.ask("nodes"))["nodes"]
        for node in (node for nodes in groups.values() for node in nodes):
            if node.get("conn", 0) & 1:
                return str(node["_id"])
        return None

    async def terminal(self, node: str) -> ClientConnection:
        """Open a relay socket to a terminal on the node."""
        cookies = await self.ask("authcookie")
        mark = secrets.token_hex(6)
        agent = f"*/meshrelay.ashx?p={TERMINAL}&nodeid={node}&id={mark}&rauth={cookies['rcookie']}"
        await self.send(
            action="msg", nodeid=node, type="tunnel", usage=1, value=agent, responseid=mark
        )
        where = f"browser=1&p={TERMINAL}&nodeid={quote(node, safe='')}&id={mark}"
        return await self._joined(f"/meshrelay.ashx?{where}&auth={cookies['cookie']}")

    async def forward(self, node: str, port: int) -> ClientConnection:
        """Open a relay socket to a TCP port of the node."""
        cookie = (await self.ask("authcookie"))["cookie"]
        where = f"nodeid={quote(node, safe='')}&tcpport={port}&noping=1"
        return await self._joined(f"/meshrelay.ashx?auth={cookie}&{where}")

    async def _joined(self, path: str) -> ClientConnection:
        socket = await open_socket(self._account, path)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            while await socket.recv() not in ("c", "cr", b"c"):
                pass
        return socket

    async def close(self) -> None:
        """Close the socket."""
        await self._socket.close()
