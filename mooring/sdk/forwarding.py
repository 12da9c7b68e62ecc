"""Local ports whose connections come out on a node: one `ClientForward` stream each.

`Link` keeps a tunnel to the hub up, with full jitter between attempts (up to 30 s); `Forwarder`
serves the connections of listeners; `protocol.aio.tcp` carries their bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn

from mooring.sdk.async_client import AsyncClient, refused
from mooring.sdk.errors import HubUnreachable, Unavailable
from protocol.aio import ProtocolError, Stream, Tunnel
from protocol.aio.tcp import TcpEnd, carry
from protocol.messages import ClientForward, ClientOpen

logger = logging.getLogger(__name__)

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
STABLE_AFTER_S = 60.0
OPEN_TIMEOUT_S = 20.0
MAX_CONNECTIONS = 200  # below the hub's limit of streams per tunnel


class Link:
    """A tunnel to the hub that comes back when it is cut."""

    def __init__(self, hub: AsyncClient) -> None:
        self._hub = hub
        self._tunnel: Tunnel | None = None
        self._up = asyncio.Event()

    async def run(self) -> NoReturn:
        """Keep the tunnel up until cancelled.

        Raises:
            MooringError: the first attempt failed, or the hub refuses us.
        """
        loop = asyncio.get_running_loop()
        wait_s, had_one = FIRST_WAIT_S, False
        while True:
            started = loop.time()
            try:
                await self._one_life()
                had_one = True
            except (HubUnreachable, Unavailable) as error:
                if not had_one:
                    raise
                logger.warning("%s", error)
            stable = loop.time() - started > STABLE_AFTER_S
            wait_s = FIRST_WAIT_S if stable else min(2 * wait_s, LONGEST_WAIT_S)
            await asyncio.sleep(random.uniform(0, wait_s))  # noqa: S311  # full jitter

    async def _one_life(self) -> None:
        async with self._hub.tunnel() as tunnel:
            self._tunnel = tunnel
            self._up.set()
            try:
                reason = await tunnel.wait_closed()
            finally:
                self._up.clear()
                self._tunnel = None
            if (error := refused(tunnel)) is not None:
                raise error
        logger.warning("the tunnel to %s ended: %s", self._hub.identity.url, reason)

    async def up(self) -> None:
        """Wait until the tunnel is there."""
        await self._up.wait()

    async def open(self, message: ClientOpen) -> Stream:
        """Open a stream, waiting up to 20 s for the tunnel.

        Raises:
            ProtocolError: the tunnel was cut at that moment.
            TimeoutError: there was none in time.
        """
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await self._up.wait()
        assert self._tunnel is not None, "the event is set while it is there"
        return await self._tunnel.open(message)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Joins connections to a place that a node can reach."""

    link: Link
    node: str
    host: str
    port: int
    failed: Callable[[str, Exception], None] = lambda peer, error: None
    """Called with the peer's address when a connection could not be joined."""

    @asynccontextmanager
    async def listen(self, bind: str, port: int) -> AsyncIterator[list[tuple[str, int]]]:
        """Accept connections while the block runs; yields the addresses that are listened on.

        Raises:
            OSError: the address can't be had.
        """
        slots = asyncio.Semaphore(MAX_CONNECTIONS)
        loop = asyncio.get_running_loop()

        async def serve(end: TcpEnd) -> None:
            async with slots:
                await self._serve(end)

        failure: Exception | None = None  # raised as it is, not in the group's wrapping
        async with asyncio.TaskGroup() as tasks:
            serving = set[asyncio.Task[None]]()

            def accepted(end: TcpEnd) -> None:
                if not server.is_serving():
                    end.abort()
                    return
                task = tasks.create_task(serve(end))
                serving.add(task)
                task.add_done_callback(serving.discard)

            try:
                server = await loop.create_server(lambda: TcpEnd(accepted), bind, port, backlog=128)
                with contextlib.closing(server):
                    yield [sock.getsockname()[:2] for sock in server.sockets]
            except Exception as error:
                failure = error
            finally:
                for task in serving:
                    task.cancel()
        if failure is not None:
            raise failure

    async def _serve(self, end: TcpEnd) -> None:
        try:
            message = ClientForward(node=self.node, host=self.host, port=self.port)
            async with await self.link.open(message) as stream:
                await carry(end, stream)
        except (ProtocolError, TimeoutError) as error:
            self.failed(end.peer, error)
        except OSError as error:
            logger.debug("a local connection ended: %s", error)
        finally:
            end.abort()
