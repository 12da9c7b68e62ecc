"""A hub's tunnels on a real port, agents that behave, and peers whose every byte the test makes."""

from __future__ import annotations

import asyncio
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from certs.contexts import TUNNEL_ALPN, agent_context
from certs.keys import make_key_and_csr
from certs.servers import Role as Face
from certs.servers import keep_current
from certs.tokens import decode_token, secret_to_text
from hub.admission import Lane
from hub.agent_tunnels import TUNNEL_PATH, AgentTunnels
from hub.authz import Role, Subject
from hub.client_tunnels import CLIENT_PATH, ClientTunnels
from hub.core import Hub
from hub.listener import Listener, Route, bind
from hub.tls import CLIENT_ALPN, make_faces
from protocol import frames
from protocol.aio import Handler, Stream, Tunnel
from protocol.aio.websocket import accept_websocket, connect_websocket
from protocol.errors import GoAwayCode, ResetCode
from protocol.frames import Frame, Hello
from protocol.messages import Facts, Forward, HubOpen, Open
from protocol.session import Side

ADMIN = Subject(name="ada", role=Role.ADMIN, user_id="1", via="token", credential="1")
_BINARY, _PING = 0x82, 0x89


@dataclass
class Port:
    """A hub that takes tunnels."""

    hub: Hub
    scratch: Path
    number: int
    nodes: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"wss://127.0.0.1:{self.number}"

    async def join(self) -> tuple[str, ssl.SSLContext]:
        """A node that may dial: its id, and its TLS."""
        created = await self.hub.join_tokens.create(ADMIN, uses=1)
        key, csr = make_key_and_csr()
        name = f"node-{len(self.nodes)}"
        joined = await self.hub.enrolment.join(
            secret_to_text(decode_token(created.text).secret),
            csr,
            name,
            Facts(hostname=name),
            f"192.0.2.{len(self.nodes)}",
        )
        chain_file, key_file = self.scratch / f"{name}.pem", self.scratch / f"{name}.key"
        chain_file.write_bytes(joined.certificate_pem)
        key_file.write_bytes(key)
        self.nodes.append(joined.node_id)
        context = agent_context(chain_file, key_file, self.hub.authority.trust_pem)
        return joined.node_id, context

    @asynccontextmanager
    async def agent(self, handler: Handler) -> AsyncIterator[str]:
        """A node that behaves, for as long as the block runs; its id."""
        node_id, context = await self.join()
        tunnel = Tunnel(Side.DIALLED, Hello(software="good"), handler, accepts=HubOpen)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tunnel.run())
            await connect_websocket(tunnel, self.address + TUNNEL_PATH, context)
            await tunnel.ready()
            while not self.hub.registry.is_online(node_id):
                await asyncio.sleep(0)
            try:
                yield node_id
            finally:
                await tunnel.close()

    @asynccontextmanager
    async def hostile_agent(self, *, hello: bool = True) -> AsyncIterator[tuple[str, RawPeer]]:
        """A node that says what the test says, after HELLO unless told otherwise; its id."""
        node_id, context = await self.join()
        async with self.connection(context) as peer:
            await peer.upgrade(TUNNEL_PATH)
            if hello:
                peer.send(frames.hello(Hello(software="hostile")))
                while not self.hub.registry.is_online(node_id):
                    await asyncio.sleep(0)
            yield node_id, peer

    @asynccontextmanager
    async def connection(self, context: ssl.SSLContext) -> AsyncIterator[RawPeer]:
        """A TLS connection and nothing else."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.number, ssl=context, server_hostname="localhost"
        )
        try:
            yield RawPeer(reader, writer)
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def client(self, role: Role = Role.OPERATOR) -> AsyncIterator[Tunnel]:
        """A client's tunnel with a token of the fixture's user of that role."""
        user = await self.hub.accounts.users.find(role.value)
        new = await self.hub.accounts.tokens.create(user.id, user.name, "test", role)
        tunnel = Tunnel(Side.DIALLED, Hello(software="client"))
        headers = {"Authorization": f"Bearer {new.secret}"}
        url = self.address + CLIENT_PATH
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(tunnel.run())
            await connect_websocket(tunnel, url, self.client_tls(), headers=headers)
            await tunnel.ready()
            try:
                yield tunnel
            finally:
                await tunnel.close()

    def client_tls(self, alpn: str = CLIENT_ALPN) -> ssl.SSLContext:
        """TLS of somebody without a certificate."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        return context


class RawPeer:
    """A WebSocket by hand over TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def upgrade(self, path: str) -> None:
        """Ask for the WebSocket and take the answer."""
        self.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: mooring.v1\r\n\r\n".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head.splitlines()[0], head

    def send(self, frame: bytes | bytearray) -> None:
        """Send one message; nothing waits for it to go out."""
        self.writer.write(_masked(_BINARY, bytes(frame)))

    def ping_websocket(self) -> None:
        """A ping of the carrier."""
        self.writer.write(_masked(_PING, bytes(125)))

    async def receive(self) -> Frame | None:
        """The next frame of the protocol; None when the hub closed the connection."""
        try:
            while True:
                first, size = await self._reader.readexactly(2)
                if size >= 126:
                    code, count = ("!H", 2) if size == 126 else ("!Q", 8)
                    (size,) = struct.unpack(code, await self._reader.readexactly(count))
                payload = await self._reader.readexactly(size)
                if first == _BINARY:
                    return frames.parse(payload)
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def told(self) -> tuple[list[ResetCode], GoAwayCode | None]:
        """Read to the end of the connection: the resets, and the code of GOAWAY."""
        resets, goaway = list[ResetCode](), None
        async with asyncio.timeout(20):
            while (frame := await self.receive()) is not None:
                if frame.type == frames.Type.RESET:
                    resets.append(frames.parse_reset(frame)[0])
                elif frame.type == frames.Type.GOAWAY:
                    goaway = frames.parse_goaway(frame)[0]
        return resets, goaway


def _masked(first: int, payload: bytes) -> bytes:
    """A WebSocket frame whose mask is zero: the payload as it is."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + bytes(4) + payload


class Echo:
    """A stream through the hub to a good agent, tried while others misbehave."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def answers(self) -> bool:
        await self._stream.write(b"still there?")
        async with asyncio.timeout(5):
            return await self._stream.read() == b"still there?"


async def echo(_: Open, stream: Stream) -> None:
    """What a good agent does with a forward."""
    while data := await stream.read():
        await stream.write(data)


@asynccontextmanager
async def open_port(hub: Hub, scratch: Path) -> AsyncIterator[Port]:
    """Take tunnels of agents and clients on a port of the system's choice."""
    now = time.time()
    mesh, _ = keep_current(scratch / "tls", Face.HUB, hub.authority, ["localhost"], now)
    pages, _ = keep_current(scratch / "tls", Face.PAGES, hub.authority, ["localhost"], now)
    faces = make_faces(mesh, pages, hub.authority.trust_pem)
    sockets = bind("127.0.0.1", 0)
    port = Port(hub, scratch, sockets[0].getsockname()[1])
    async with asyncio.TaskGroup() as tasks:
        agents = AgentTunnels(hub, tasks, "test")
        clients = ClientTunnels(hub, tasks, "test", agents.budget)
        tunnel = Route(faces.tunnel, lambda: accept_websocket(agents.on_request), Lane(), fast=True)
        client = Route(
            faces.client, lambda: accept_websocket(clients.on_request), Lane(), fast=True
        )
        routes = {TUNNEL_ALPN.encode(): tunnel, CLIENT_ALPN.encode(): client}
        listening = tasks.create_task(Listener(routes, client, hub.addresses).serve(sockets))
        presence = tasks.create_task(hub.nodes.run())
        try:
            yield port
        finally:
            listening.cancel()
            presence.cancel()
            await hub.registry.close_all(0.0)
            await clients.close_all()


@asynccontextmanager
async def undisturbed(port: Port) -> AsyncIterator[Echo]:
    """An echo that has to work before, whenever the test asks, and after."""
    async with port.agent(echo) as node_id:
        stream = await port.hub.registry.open(node_id, Forward(host="localhost", port=7))
        line = Echo(stream)
        assert await line.answers()
        yield line
        assert await line.answers()
        stream.close()
