"""The browser's shell: `/api/v1/shell` joins a page's terminal to a node's.

The rule it guards: the hub reads from the node only while less than 256 KiB wait in the browser
(sent minus acknowledged), so a flood stops at the PTY and Ctrl-C is never behind megabytes. The
page proves itself by cookie, Origin and a one-time ticket in its first frame; what it sends is
hostile.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from msgspec import Meta

from hub.accounts.changes import Ended
from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.errors import BadRequest, HubError
from hub.shells import Shell, Terminal, until_first
from protocol.errors import StreamReset, TunnelClosed
from protocol.messages import Cells, Name
from protocol.record_types import Input, Resize

logger = logging.getLogger(__name__)

UNACKNOWLEDGED_BYTES = 256 * 1024
TEXT_LIMIT = 4096
INPUT_LIMIT = 1024 * 1024
"""Bytes of one frame of keystrokes; a paste."""
PIECE_BYTES = 64 * 1024
HELLO_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
"""A page that takes no message for so long is gone; its session must not stay listed for it."""
CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008

Socket = WebSocket[Any, Any, Any]
_FrameT = TypeVar("_FrameT")


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The page's first frame."""

    ticket: Annotated[str, Meta(max_length=256)]
    node: Name
    rows: Cells = 24
    columns: Cells = 80
    user: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class Control(msgspec.Struct, frozen=True):
    """A later text frame: a new size, or how many bytes the terminal has shown."""

    resize: tuple[Cells, Cells] | None = None
    ack: Annotated[int, Meta(ge=0)] | None = None


class Opened(msgspec.Struct, frozen=True, tag_field="type", tag="opened"):
    """The terminal is open."""

    session: str


class TerminalEnded(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="exited"):
    """The terminal ended; `reason` says why when it did not simply exit."""

    exit_code: int | None
    signal: int | None
    reason: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The terminal cannot be opened, or the page broke a rule."""

    code: str
    detail: str


class Window:
    """How much of what was sent the browser has not shown yet."""

    def __init__(self) -> None:
        self._sent = 0
        self._acknowledged = 0
        self._moved = asyncio.Event()

    async def wait_open(self) -> None:
        """Wait until less than 256 KiB are unacknowledged."""
        while self._sent - self._acknowledged >= UNACKNOWLEDGED_BYTES:
            self._moved.clear()
            await self._moved.wait()

    def sent(self, size: int) -> None:
        """Count bytes that were sent."""
        self._sent += size

    def acknowledge(self, total: int) -> None:
        """Take the browser's count of all bytes shown.

        Raises:
            BadRequest: it goes back, or beyond what was sent.
        """
        if not self._acknowledged <= total <= self._sent:
            raise BadRequest(f"ack {total} is not between {self._acknowledged} and {self._sent}")
        self._acknowledged = total
        self._moved.set()


@websocket("/shell", guards=[requires(Verb.SHELL)])
async def shell_socket(socket: Socket, hub: Hub, subject: Subject) -> None:
    """Serve one terminal until it ends or the page goes away."""
    await socket.accept()
    try:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            hello = _decode(Hello, await _receive(socket))
        hub.accounts.tickets.redeem(hello.ticket, subject, "shell", hello.node)
        terminal = Terminal(user=hello.user, rows=hello.rows, columns=hello.columns)
        async with hub.shells.open(subject, hello.node, terminal, "browser") as shell:
            await _send(socket, Opened(shell.id))
            with hub.accounts.watch(partial(_end_with_rights, shell)):
                await _serve(socket, shell)
        await socket.close(CLOSE_NORMAL)
    except HubError as error:
        await _fail(socket, error)
    except TimeoutError:
        await _fail(socket, BadRequest("the first frame with the ticket did not come in time"))
    except (WebSocketDisconnect, OSError) as error:
        logger.debug("the browser left: %s", error)


def _end_with_rights(shell: Shell, ended: Ended) -> None:
    if ended.covers(shell.subject):
        shell.end("the sign-in ended or its rights changed")


async def _serve(socket: Socket, shell: Shell) -> None:
    window = Window()
    refusals: list[HubError] = []
    await until_first(
        _show(socket, shell, window), _obey(socket, shell, window, refusals), shell.killed()
    )
    for refusal in refusals:
        raise refusal
    exited = shell.exited
    await _send(
        socket,
        TerminalEnded(
            exit_code=exited.exit_code if exited else None,
            signal=exited.signal if exited else None,
            reason=shell.reason,
        ),
    )


async def _show(socket: Socket, shell: Shell, window: Window) -> None:
    """Pass the terminal's output, no faster than the browser shows it."""
    try:
        await window.wait_open()
        while (screen := await shell.receive()) is not None:
            window.sent(len(screen.data))
            await socket.send_data(screen.data, mode="binary")
            await window.wait_open()
    except (WebSocketDisconnect, OSError) as error:
        logger.debug("the browser left: %s", error)


async def _obey(socket: Socket, shell: Shell, window: Window, refusals: list[HubError]) -> None:
    """Pass keystrokes and sizes, take acknowledgements, until the page leaves or breaks a rule."""
    try:
        while True:
            frame = await _receive(socket)
            if isinstance(frame, bytes):
                await _type(shell, frame)
            else:
                await _control(shell, window, _decode(Control, frame))
    except WebSocketDisconnect:
        shell.end("the browser left")
    except (StreamReset, TunnelClosed) as error:
        shell.reason = shell.reason or str(error)
    except HubError as error:
        shell.end(str(error))
        refusals.append(error)


async def _type(shell: Shell, keys: bytes) -> None:
    if len(keys) > INPUT_LIMIT:
        raise BadRequest(f"a frame of {len(keys)} bytes: at most {INPUT_LIMIT} at once")
    for start in range(0, len(keys), PIECE_BYTES):
        await shell.send(Input(data=keys[start : start + PIECE_BYTES]))


async def _control(shell: Shell, window: Window, control: Control) -> None:
    if control.ack is not None:
        window.acknowledge(control.ack)
    if control.resize is not None:
        rows, columns = control.resize
        await shell.send(Resize(rows=rows, columns=columns))


async def _receive(socket: Socket) -> str | bytes:
    """Wait for a frame.

    Raises:
        WebSocketDisconnect: the page went away.
    """
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(detail="the page went away")
    frame = message.get("bytes")
    if frame is None:
        frame = message.get("text")
    assert isinstance(frame, bytes | str), "ASGI: a frame is bytes or text"
    return frame


def _decode(kind: type[_FrameT], frame: str | bytes) -> _FrameT:
    if isinstance(frame, bytes) or len(frame) > TEXT_LIMIT:
        raise BadRequest(f"expected a text frame of at most {TEXT_LIMIT} characters")
    try:
        return msgspec.json.decode(frame, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"a malformed frame: {error}") from error


async def _send(socket: Socket, message: Opened | TerminalEnded | Failed) -> None:
    """Send a text frame.

    Raises:
        WebSocketDisconnect: the page left, or reads nothing.
    """
    try:
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await socket.send_data(msgspec.json.encode(message).decode(), mode="text")
    except TimeoutError as error:
        raise WebSocketDisconnect(detail="the page does not read") from error


async def _fail(socket: Socket, error: HubError) -> None:
    """Tell the page what is wrong, and close."""
    try:
        await _send(socket, Failed(code=error.code, detail=str(error)))
        await socket.close(CLOSE_POLICY)
    except (WebSocketDisconnect, OSError) as gone:
        logger.debug("the browser left: %s", gone)
