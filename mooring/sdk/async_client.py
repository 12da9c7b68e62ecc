"""The asynchronous client, and the client's tunnel for shells and forwards.

The same calls as `Client`, with `await` and `async for`; one instance serves many tasks.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from types import TracebackType
from typing import TypeVar

import httpx

from mooring.sdk import exchange, identity
from mooring.sdk.call import BASE, Call, Listing, Stream
from mooring.sdk.errors import (
    HubNotTrusted,
    HubUnreachable,
    MooringError,
    NotSignedIn,
    Unavailable,
    error_of,
)
from mooring.sdk.identity import HTTP_ALPN, TUNNEL_ALPN, Identity
from mooring.sdk.models import Event
from mooring.sdk.waits import LONGEST_WAIT_RESUMING_S, Waits
from protocol.aio import GoAwayCode, Handler, Tunnel, TunnelClosed
from protocol.aio.websocket import ConnectRefused, connect_websocket
from protocol.frames import Hello
from protocol.guard import LIMITS_OF_HUB
from protocol.messages import HubOpenAtClient
from protocol.session import Side

logger = logging.getLogger(__name__)

T = TypeVar("T")


class AsyncClient:
    """A hub, seen by one identity."""

    def __init__(self, who: Identity, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """Make a client.

        Args:
            who: which hub, and the token for it.
            transport: what carries requests; by default HTTPS.
        """
        self.identity = who
        self._http = httpx.AsyncClient(
            base_url=who.url,
            transport=transport
            or httpx.AsyncHTTPTransport(
                verify=who.tls(HTTP_ALPN),
                proxy=who.proxy(),
                socket_options=exchange.keep_alive(),
            ),
            headers=exchange.headers_of(who),
            timeout=exchange.TIMEOUT,
        )

    @classmethod
    def connect(cls) -> AsyncClient:
        """Use the identity of the environment or of `mooring login`.

        Raises:
            NoIdentity: there is none.
        """
        return cls(identity.load())

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def call(self, call: Call[T], headers: Mapping[str, str] | None = None) -> T:
        """Carry out one call.

        Raises:
            MooringError: the class says why.
        """
        with self._failures():
            request = self._http.build_request(**exchange.request_of(call, headers))
            return exchange.answer_of(call, await self._http.send(request))

    async def each(self, listing: Listing[T], limit: int | None = None) -> AsyncIterator[T]:
        """Yield what a list holds, `limit` items at most, page after page."""
        cursor, left = None, limit
        while left is None or left > 0:
            page = await self.call(listing.page(cursor, exchange.page_size(left)))
            for item in page.items if left is None else page.items[:left]:
                yield item
            left = None if left is None else left - len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def count(self, listing: Listing[T]) -> int:
        """How many items a list has."""
        page = await self.call(listing.page(limit=1))
        return page.total if page.total is not None else len(page.items)

    async def stream(self, stream: Stream[T]) -> AsyncIterator[T]:
        """Yield the objects of a stream as they come, until it ends."""
        lines = exchange.Lines()
        async with aclosing(self._bytes(stream.path, {})) as parts:
            async for data in parts:
                for line in lines.feed(data):
                    yield exchange.decode(line, stream.yields)

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Yield what happens in the mesh, after the event `after`, until the hub goes away."""
        params = {} if after is None else {"after": str(after)}
        decoder = exchange.ServerEvents()
        async with aclosing(self._bytes(f"{BASE}/events", params)) as parts:
            async for data in parts:
                for event in decoder.feed(data):
                    yield exchange.decode(event, Event)

    async def upload(
        self, call: Call[T], parts: AsyncIterable[bytes], size_bytes: int, sha256: str | None = None
    ) -> T:
        """Carry out a call whose body is `parts`, `size_bytes` in all; see `Client.upload`."""
        arguments = exchange.request_of(call, exchange.upload_headers(size_bytes, sha256))
        arguments["content"] = parts
        with self._failures():
            request = self._http.build_request(**arguments, timeout=exchange.UPLOAD_TIMEOUT)
            return exchange.answer_of(call, await self._http.send(request))

    @asynccontextmanager
    async def tunnel(self, arrived: Handler | None = None) -> AsyncIterator[Tunnel]:
        """Hold a tunnel to the hub; open the streams of `protocol.messages.ClientOpen` on it.

        When its connection is lost, another one is dialled and the streams go on; after a minute
        without, or when the hub has forgotten it, the tunnel is closed.

        Args:
            arrived: serves the `ClientArrival` streams that the hub opens for `ClientListen` ones;
                without it the hub may open none.

        Raises:
            MooringError: the hub can't be reached or refuses.
        """
        tunnel = self._new_tunnel(arrived)
        async with _running(tunnel) as tasks:
            await self._dial(tunnel)
            keeping = tasks.create_task(self._keep_connected(tunnel))
            try:
                yield tunnel
            except TunnelClosed as error:
                raise (refused(tunnel) or error) from error
            finally:
                keeping.cancel()

    async def _keep_connected(self, tunnel: Tunnel) -> None:
        waits = Waits(LONGEST_WAIT_RESUMING_S)
        while not tunnel.closed:
            waits.connected()
            await tunnel.disconnected()
            while not (tunnel.is_connected or tunnel.closed):
                await waits.wait()
                try:
                    await self._reconnect(tunnel)
                except (HubUnreachable, Unavailable) as error:
                    logger.info("%s", error)
                except MooringError as error:
                    tunnel.abort(str(error))

    async def _reconnect(self, tunnel: Tunnel) -> None:
        """One attempt; the tunnel is closed when the hub has forgotten it."""
        fresh = self._new_tunnel()
        if await self._dial(fresh, tunnel) is fresh:
            await fresh.close()
            tunnel.abort("the hub has forgotten this tunnel: it was restarted, or it took too long")

    def _new_tunnel(self, arrived: Handler | None = None) -> Tunnel:
        return Tunnel(
            Side.DIALLED,
            Hello(software="mooring", max_streams=LIMITS_OF_HUB.max_streams if arrived else 0),
            arrived,
            accepts=HubOpenAtClient if arrived else None,
            limits=LIMITS_OF_HUB,
            name=self.identity.url,
            resume=b"",
        )

    async def _dial(self, tunnel: Tunnel, previous: Tunnel | None = None) -> Tunnel:
        who = self.identity
        try:
            attached = await connect_websocket(
                tunnel,
                f"wss://{who.url.removeprefix('https://')}/client",
                who.tls(TUNNEL_ALPN),
                previous=previous,
                headers={"Authorization": f"Bearer {who.token}"},
                proxy=who.proxy(),
            )
            if not await attached.greeted():
                raise TunnelClosed(await attached.disconnected())
        except ConnectRefused as error:
            raise error_of(error.status, error.detail.encode()) from error
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate isn't trusted: {error.verify_message}"
            raise HubNotTrusted(who.url, reason) from error
        except (OSError, TunnelClosed) as error:
            unreachable = HubUnreachable(who.url, str(error) or "timed out")
            raise (refused(tunnel) or unreachable) from error
        return attached

    async def _bytes(self, path: str, params: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        with self._failures():
            async with self._http.stream(
                "GET", path, params=params, timeout=exchange.STREAM_TIMEOUT
            ) as response:
                if not response.is_success:
                    exchange.check(response.status_code, await response.aread(), response.headers)
                async for data in response.aiter_bytes():
                    yield data

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise exchange.failure_of(error, self.identity.url) from error


def refused(tunnel: Tunnel) -> NotSignedIn | None:
    """The error of a tunnel that the hub ended because of our token, None for any other end."""
    goaway = tunnel.goaway
    if goaway is None or goaway.code is not GoAwayCode.REVOKED:
        return None
    return NotSignedIn(goaway.reason or "the hub doesn't accept the token")


@asynccontextmanager
async def _running(tunnel: Tunnel) -> AsyncIterator[asyncio.TaskGroup]:
    """Run a tunnel while the body runs; what the body raises comes out as it is, in no group."""
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tunnel.run())
        try:
            yield tasks
        except BaseException as error:  # raised again below, outside the group
            failure = error
        finally:
            await tunnel.close()
    if failure is not None:
        raise failure
