"""Small real proxies: HTTP CONNECT and SOCKS5, with passwords, TLS, and every way to say no.

async with ProxyServer("socks5", login=("ann", "pw")).open() as proxy: ... proxy.url
with ProxyServer("http").in_thread() as proxy: ...
python -m tests.proxies http 192.168.77.3 3128 ann:pw          # in a network namespace
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote


@dataclass
class ProxyServer:
    kind: str = "http"
    """`http` or `socks5`."""
    login: tuple[str, str] | None = None
    tls: ssl.SSLContext | None = None
    says: bytes | None = None
    """What to answer instead of serving; b"" closes at once."""
    reply: int | None = None
    """A SOCKS reply or an HTTP status to refuse targets with."""
    names: dict[str, str] = field(default_factory=dict)
    """Names that only this proxy can resolve."""
    bind: str = "127.0.0.1"
    port: int = 0
    targets: list[str] = field(default_factory=list)
    """host:port of what it was asked for, as it was asked."""
    heads: list[bytes] = field(default_factory=list)
    """The HTTP requests, whole."""

    @property
    def url(self) -> str:
        return self.url_of(*(self.login or (None, "")))

    def url_of(self, user: str | None, password: str = "") -> str:
        login = "" if user is None else f"{quote(user, '')}:{quote(password, '')}@"
        scheme = "https" if self.tls else self.kind
        return f"{scheme}://{login}{'localhost' if self.tls else self.bind}:{self.port}"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ProxyServer]:
        server = await asyncio.start_server(self._serve, self.bind, self.port, ssl=self.tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    @contextmanager
    def in_thread(self) -> Iterator[ProxyServer]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def main() -> None:
            async with self.open():
                ready.set()
                await stop.wait()

        def run() -> None:
            with contextlib.closing(loop):
                loop.run_until_complete(main())
                for task in asyncio.all_tasks(loop):
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            if self.says is None:
                await (self._socks5 if self.kind == "socks5" else self._http)(reader, writer)
            elif self.says:
                await reader.read(1)
                writer.write(self.says)
                await writer.drain()
        writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self.login is not None:
            expected = base64.b64encode(":".join(self.login).encode())
            if b"\r\nProxy-Authorization: Basic " + expected + b"\r\n" not in head:
                writer.write(b"HTTP/1.1 407 who are you\r\nProxy-Authenticate: Basic\r\n\r\n")
                return await writer.drain()
        host, _, port = head.split()[1].decode().rpartition(":")
        if self.reply is not None:
            writer.write(b"HTTP/1.1 %d no\r\nContent-Length: 0\r\n\r\n" % self.reply)
            return await writer.drain()
        try:
            far = await self._connect(host.strip("[]"), int(port))
        except OSError:
            writer.write(b"HTTP/1.1 502 can't\r\n\r\n")
            return await writer.drain()
        writer.write(b"HTTP/1.1 200 joined\r\nVia: a small one\r\n\r\n")
        await join(reader, writer, *far)

    async def _socks5(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = 0 if self.login is None else 2
        if wanted not in methods:
            writer.write(b"\x05\xff")
            return await writer.drain()
        writer.write(bytes([5, wanted]))
        if self.login is not None:
            await reader.readexactly(1)
            given = [await _word(reader), await _word(reader)]
            granted = given == [word.encode() for word in self.login]
            writer.write(bytes([1, 0 if granted else 1]))
            if not granted:
                return await writer.drain()
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await _word(reader)).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        try:
            far = await self._connect(host, port) if self.reply is None else None
        except OSError:
            far, self.reply = None, 5
        if far is None:
            writer.write(bytes([5, self.reply or 1, 0, 1, 0, 0, 0, 0, 0, 0]))
            return await writer.drain()
        writer.write(bytes([5, 0, 0, 3, 4]) + b"here" + b"\0\0")
        await join(reader, writer, *far)

    async def _connect(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.targets.append(f"{host}:{port}")
        return await asyncio.open_connection(self.names.get(host, host), port)


async def _word(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly((await reader.readexactly(1))[0])


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    """Pass bytes both ways until one side ends."""
    async with asyncio.TaskGroup() as tasks:
        pumps = [
            tasks.create_task(_pump(reader, far_writer)),
            tasks.create_task(_pump(far_reader, writer)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        far_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def _main(kind: str, bind: str, port: str, login: str = "") -> None:
    user, _, password = login.partition(":")
    proxy = ProxyServer(kind, (user, password) if login else None, bind=bind, port=int(port))
    async with proxy.open():
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
