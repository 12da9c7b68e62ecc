"""`exchange`: one request to a published service and its answer, streamed both ways.

The rule it guards: h11 parses what the service says and writes what it is told, so neither side can
smuggle a second request or answer; one connection carries one exchange; nothing waits here but the
piece that moves. An answer may pause, as an event stream does, until its connection is idle.
"""

from __future__ import annotations

import asyncio
import logging

import h11

from hub.published.asgi import Call, Message
from hub.published.connect import Unreachable, Wire
from hub.published.entries import Entry
from hub.published.headers import Place, to_browser, to_service
from hub.published.visit import Visit
from protocol.errors import StreamReset, TunnelClosed

logger = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024
HEAD_S = 60.0
"""From the end of the request to the beginning of the answer."""


class ClientGone(Exception):
    """The browser went away."""


async def exchange(wire: Wire, visit: Visit) -> None:
    """Serve one HTTP request.

    An answer that breaks off in the middle is left unfinished: the server then cuts the browser's
    connection, so that it is not taken for a whole one.

    Raises:
        Unreachable: before the answer has begun.
        StreamReset, TunnelClosed: likewise.
    """
    request = _request(visit)
    served = _Exchange(wire, visit.call)
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = (
                tasks.create_task(served.ask(request)),
                tasks.create_task(_watch(visit.entry)),
            )
            await served.answer(visit.place)
            for task in watching:
                task.cancel()
    except ExceptionGroup as errors:
        cause = errors.exceptions[0]
        if not isinstance(cause, ClientGone | Unreachable | StreamReset | TunnelClosed):
            raise
        if not isinstance(cause, ClientGone) and not served.has_begun:
            raise cause from None


async def _watch(entry: Entry) -> None:
    await entry.ended()
    raise Unreachable(401, "Your sign-in ended or its rights changed; load the page again.")


def _request(visit: Visit) -> h11.Request:
    given = visit.call.headers
    headers = [*to_service(given, visit.place), (b"connection", b"close")]
    if any(name.lower() == b"transfer-encoding" for name, _ in given):
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append((b"transfer-encoding", b"chunked"))
    method = visit.call.scope["method"]
    try:
        return h11.Request(method=method, target=visit.target, headers=headers)
    except h11.LocalProtocolError as error:
        raise Unreachable(400, f"the request cannot be passed on: {error}") from error


class _Exchange:
    def __init__(self, wire: Wire, call: Call) -> None:
        self.has_begun = False
        self._wire = wire
        self._receive = call.receive
        self._send = call.send
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._patience = asyncio.timeout(None)

    async def ask(self, request: h11.Request) -> None:
        """Send the request as it comes, then watch whether the browser stays.

        A service may answer, and close, before it has read everything: what it answers counts.

        Raises:
            ClientGone: the browser does not stay.
        """
        try:
            await self._write(request)
            while (message := await self._hear()).get("more_body", False):
                await self._write(h11.Data(data=message.get("body", b"")))
            await self._write(h11.Data(data=message.get("body", b"")))
            await self._write(h11.EndOfMessage())
        except (StreamReset, TunnelClosed) as error:
            logger.debug("the service takes no more: %s", error)
        if not self.has_begun:
            self._patience.reschedule(asyncio.get_running_loop().time() + HEAD_S)
        while True:
            await self._hear()

    async def answer(self, place: Place) -> None:
        """Pass the answer on as it comes.

        Raises:
            Unreachable, StreamReset, TunnelClosed: there is none, or it breaks off.
        """
        try:
            async with self._patience:
                while isinstance(head := await self._next(), h11.InformationalResponse):
                    pass
        except TimeoutError:
            raise Unreachable(504, f"the service did not answer within {HEAD_S:.0f} s") from None
        assert isinstance(head, h11.Response), "h11: an answer begins with its head"
        headers = to_browser(head.headers.raw_items(), place)
        self.has_begun = True
        await self._send(
            {"type": "http.response.start", "status": head.status_code, "headers": headers}
        )
        while isinstance(piece := await self._next(), h11.Data):
            await self._send_body(bytes(piece.data), more=True)
        await self._send_body(b"", more=False)

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _hear(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def _write(self, event: h11.Event) -> None:
        if data := self._http.send(event):
            await self._wire.write(data)

    async def _next(self) -> h11.Event:
        """Wait for the next part of the answer."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._wire.read())
        except h11.RemoteProtocolError as error:
            raise Unreachable(
                502, f"the service does not speak HTTP as it should: {error}"
            ) from error
        assert isinstance(event, h11.Event), "one connection carries one exchange: never paused"
        return event
