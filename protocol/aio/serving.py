"""The handlers of the streams that a peer opens: a task each, in a tunnel's group.

The rule it guards: a handler that fails ends its stream and nothing else, one that is done leaves
its stream, and there are never more of them than twice the streams that the peer may have open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from protocol.aio.stream import Stream
from protocol.errors import ProtocolError, ResetCode, StreamReset, TunnelClosed
from protocol.messages import Open

logger = logging.getLogger(__name__)

GRACE_S = 5.0  # an agent begins its next tunnel only when the last one's handlers are gone

Handler: TypeAlias = Callable[[Open, Stream], Awaitable[None]]


class Serving:
    """Runs the handlers of one tunnel."""

    def __init__(self, handler: Handler | None, most: int, name: str) -> None:
        """`most` handlers run at once; `name` is the peer's, for the log."""
        self._handler = handler
        self._most = most
        self._name = name
        self._group: asyncio.TaskGroup | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        """The handlers that run."""

    @contextmanager
    def within(self, group: asyncio.TaskGroup) -> Iterator[None]:
        """Let handlers begin while the block runs."""
        self._group = group
        try:
            yield
        finally:
            self._group = None

    def serve(self, stream: Stream) -> None:
        """Start the stream's handler; outside `within`, it waits for whoever enters that."""
        if len(self.tasks) >= self._most:
            stream.reset(ResetCode.OVERLOADED, "streams that ended are still being cleared up")
        elif self._group is not None:
            task = self._group.create_task(self._handle(stream))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def dismiss(self) -> None:
        """Let handlers see the end of their streams; cancel those that do not look."""
        if not self.tasks:
            return
        _, late = await asyncio.wait(self.tasks, timeout=GRACE_S)
        for task in late:
            logger.warning("%s: a handler outlived its tunnel and is cancelled", self._name)
            task.cancel()

    async def _handle(self, stream: Stream) -> None:
        assert self._handler is not None, "a side without a handler accepts no streams"
        try:
            await self._handler(stream.message, stream)
        except (StreamReset, TunnelClosed) as error:
            logger.debug("%s: stream %d ended: %s", self._name, stream.id, error)
            stream.reset(ResetCode.CANCELLED, str(error))  # it may have been another one's end
        except ProtocolError as error:
            logger.warning("%s: stream %d: %s", self._name, stream.id, error)
            stream.reset(ResetCode.PROTOCOL, str(error))
        except Exception:
            kind = type(stream.message).__name__
            logger.exception("%s: stream %d (%s) failed", self._name, stream.id, kind)
            stream.reset(ResetCode.INTERNAL, "internal error")
        else:
            stream.leave()
