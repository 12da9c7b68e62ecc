"""The browser's live socket, `/api/v1/live`: events, watched nodes, the fleet as they change.

The rules it guards: the page proves itself by cookie, Origin and a one-time ticket in its first
frame; it sees what its role may; it is cut when its rights end or change, when it does not read for
ten seconds, and when it talks too much. Whatever waits for a slow page is bounded where it waits:
events in the database, samples in a feed that drops the oldest, the fleet in its versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from msgspec import Meta

from hub.accounts.changes import Ended
from hub.api.guards import authenticate, requires
from hub.authz import Subject, Verb, allows, authorize
from hub.core import Hub
from hub.errors import BadRequest, HubError, NotSignedIn, Throttled
from hub.events import Event
from hub.live.fleet import TICK_S
from hub.metrics import Feed, NodeSchema, SeriesInfo
from protocol.messages import Name

logger = logging.getLogger(__name__)

WATCH_LIMIT = 32
TEXT_LIMIT = 16 * 1024
TICKET_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
"""A page that takes no frame for so long is gone, or hostile."""
RIGHTS_CHECK_S = 4.0
FRAMES_PER_S, FRAMES_BURST = 5.0, 50
CLOSE_GOING_AWAY, CLOSE_POLICY = 1001, 1008

Socket = WebSocket[Any, Any, Any]
_FrameT = TypeVar("_FrameT")


class Hello(msgspec.Struct, frozen=True):
    """The page's first frame."""

    ticket: Annotated[str, Meta(max_length=256)]


class Wish(msgspec.Struct, frozen=True):
    """A later frame: which nodes to watch from now on, whether to show the fleet."""

    watch: Annotated[list[Name], Meta(max_length=WATCH_LIMIT)] | None = None
    fleet: bool | None = None


class Ready(msgspec.Struct, frozen=True, tag_field="type", tag="ready"):
    """The ticket was taken."""


class EventMessage(msgspec.Struct, frozen=True, tag_field="type", tag="event"):
    """Something happened."""

    event: Event


class SchemaMessage(msgspec.Struct, frozen=True, tag_field="type", tag="schema"):
    """What the samples of a node that follow mean."""

    node: str
    series: tuple[SeriesInfo, ...]


class SampleMessage(msgspec.Struct, frozen=True, tag_field="type", tag="sample"):
    """A watched node's values, in the order of its schema; null is a gap."""

    node: str
    at: float
    values: list[float | None]


class Failed(msgspec.Struct, frozen=True, tag_field="type", tag="error"):
    """Why the socket closes, or what was not done."""

    code: str
    detail: str


Message = Ready | EventMessage | SchemaMessage | SampleMessage | Failed


class Viewer:
    """One page's socket."""

    def __init__(self, socket: Socket, hub: Hub, subject: Subject, feed: Feed) -> None:
        self._socket = socket
        self._hub = hub
        self._subject = subject
        self._feed = feed
        self._sending = asyncio.Lock()
        self._fleet_on = asyncio.Event()
        self._rights_ended = asyncio.Event()

    async def serve(self) -> None:
        """Show and listen until the page leaves.

        Raises:
            HubError: why the hub ends it.
        """
        with self._hub.accounts.watch(self._note_end):
            await _until_first(
                self._listen(),
                self._show_events(),
                self._show_samples(),
                self._show_fleet(),
                self._check_rights(),
            )

    async def send(self, message: Message) -> None:
        """Send a message; waits for the page to read."""
        await self._send_text(msgspec.json.encode(message).decode())

    async def _send_text(self, text: str) -> None:
        """Send one frame.

        Raises:
            BadRequest: the page did not read for ten seconds.
        """
        async with self._sending:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self._socket.send_data(text, mode="text")
            except TimeoutError as error:
                raise BadRequest("the page does not read what it asked for") from error

    # --- what the page wants ---

    async def _listen(self) -> None:
        tokens, last = float(FRAMES_BURST), asyncio.get_running_loop().time()
        while (frame := await _receive(self._socket)) is not None:
            now = asyncio.get_running_loop().time()
            tokens, last = min(FRAMES_BURST, tokens + (now - last) * FRAMES_PER_S) - 1, now
            if tokens < 0:
                raise Throttled(1.0)
            await self._obey(_decode(Wish, frame))

    async def _obey(self, wish: Wish) -> None:
        if wish.watch is not None:
            await self._watch(wish.watch)
        if wish.fleet is not None:
            (self._fleet_on.set if wish.fleet else self._fleet_on.clear)()

    async def _watch(self, names: list[str]) -> None:
        """Watch the nodes of these names; the page is told of those that are not there."""
        ids = []
        for name in names:
            try:
                view = self._hub.nodes.get(name)
                authorize(self._subject, Verb.METRICS, view.name)
                ids.append(view.id)
            except HubError as error:
                await self.send(Failed(error.code, str(error)))
        self._feed.watch(ids)

    # --- what the page sees ---

    async def _show_events(self) -> None:
        with self._hub.events.subscribe() as events:
            async for event in events:
                if allows(self._subject, Verb.VIEW):
                    await self.send(EventMessage(event))

    async def _show_samples(self) -> None:
        schemas: dict[str, NodeSchema] = {}
        async for sample in self._feed:
            name = self._hub.nodes.name_of(sample.node_id)
            if schemas.get(sample.node_id) is not sample.schema:
                if len(schemas) >= 2 * WATCH_LIMIT:
                    schemas.clear()  # told again when they come: a page may watch many in its life
                schemas[sample.node_id] = sample.schema
                await self.send(SchemaMessage(name, sample.schema.series))
            await self.send(SampleMessage(name, sample.at, sample.values))

    async def _show_fleet(self) -> None:
        version = 0
        while True:
            if not self._fleet_on.is_set():
                version = 0
                await self._fleet_on.wait()
            version, text = self._hub.fleet.since(version)
            if text is not None:
                await self._send_text(text)
            await asyncio.sleep(TICK_S)

    # --- what the page may ---

    def _note_end(self, ended: Ended) -> None:
        if ended.covers(self._subject):
            self._rights_ended.set()

    async def _check_rights(self) -> None:
        """End when the credential does: told of, or found out within five seconds."""
        while True:
            try:
                async with asyncio.timeout(RIGHTS_CHECK_S):
                    await self._rights_ended.wait()
                raise NotSignedIn("your rights have changed; reload the page")
            except TimeoutError:
                subject = await authenticate(self._socket)
                if subject.role is not self._subject.role:
                    raise NotSignedIn("your role has changed; reload the page") from None


@websocket("/live", guards=[requires(Verb.VIEW)])
async def live_socket(socket: Socket, hub: Hub, subject: Subject) -> None:
    """Serve one page until it leaves or its rights end."""
    await socket.accept()
    try:
        await _take_ticket(socket, hub, subject)
        with hub.metrics.feed() as feed:
            viewer = Viewer(socket, hub, subject, feed)
            await viewer.send(Ready())
            await viewer.serve()
        await socket.close(CLOSE_GOING_AWAY)
    except HubError as error:
        await _fail(socket, error)
    except (WebSocketDisconnect, OSError) as error:
        logger.debug("the browser left: %s", error)


async def _take_ticket(socket: Socket, hub: Hub, subject: Subject) -> None:
    try:
        async with asyncio.timeout(TICKET_TIMEOUT_S):
            frame = await _receive(socket)
    except TimeoutError as error:
        raise BadRequest("the first frame with the ticket did not come in time") from error
    if frame is None:
        raise WebSocketDisconnect(detail="the page left before its ticket")
    hub.accounts.tickets.redeem(_decode(Hello, frame).ticket, subject, "live")


async def _until_first(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Run until one has ended, end the others, and raise what it raised itself."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_outcome(coroutine)) for coroutine in coroutines]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    for task in done:
        if (error := task.result()) is not None:
            raise error


async def _outcome(coroutine: Coroutine[Any, Any, None]) -> Exception | None:
    """Return what a coroutine raises: in a TaskGroup it would come wrapped."""
    try:
        await coroutine
    except Exception as error:
        return error
    return None


async def _receive(socket: Socket) -> str | bytes | None:
    """Wait for a frame, None when the page left."""
    message: dict[str, Any] = dict(await socket.receive())
    if message["type"] == "websocket.disconnect":
        return None
    text: str | None = message.get("text")
    data: bytes | None = message.get("bytes")
    return text if text is not None else data or b""


def _decode(kind: type[_FrameT], frame: str | bytes) -> _FrameT:
    if isinstance(frame, bytes) or len(frame) > TEXT_LIMIT:
        raise BadRequest(f"expected a text frame of at most {TEXT_LIMIT} characters")
    try:
        return msgspec.json.decode(frame, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"a malformed frame: {error}") from error


async def _fail(socket: Socket, error: HubError) -> None:
    """Tell the page what is wrong, and close."""
    try:
        async with asyncio.timeout(1.0):
            text = msgspec.json.encode(Failed(error.code, str(error))).decode()
            await socket.send_data(text, mode="text")
            await socket.close(CLOSE_POLICY)
    except (TimeoutError, WebSocketDisconnect, OSError) as gone:
        logger.debug("the browser left: %s", gone)
