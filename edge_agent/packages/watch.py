"""Stop working for a hub that is gone.

The rule it guards: a tunnel ends only when its handlers have ended, and the agent dials again only
then; so a handler that unpacks or waits for its turn must notice at once that nobody listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from protocol.aio import Channel, ProtocolError, RemoteProtocolError
from protocol.messages import Message

SendT = TypeVar("SendT", bound=Message)
ReceiveT = TypeVar("ReceiveT")


@asynccontextmanager
async def while_open(hub: Channel[SendT, ReceiveT]) -> AsyncIterator[None]:
    """Run a block in which the hub has nothing to say; cancel it when the stream ends.

    Raises:
        StreamReset, TunnelClosed: The stream ended.
        RemoteProtocolError: The hub said something.
    """
    block = asyncio.current_task()
    assert block is not None
    ended: ProtocolError | None = None
    failure: Exception | None = None

    async def watch() -> None:
        nonlocal ended
        try:
            await hub.receive()
            ended = RemoteProtocolError("the hub spoke or ended the stream out of turn")
        except ProtocolError as error:
            ended = error
        block.cancel()

    async with asyncio.TaskGroup() as tasks:
        watcher = tasks.create_task(watch())
        try:
            yield
        except asyncio.CancelledError:
            if ended is None or block.uncancel() > 0:
                raise
            failure = ended
        except Exception as error:  # the block's own, not to be wrapped in a group
            failure = error
        finally:
            watcher.cancel()
    if failure is not None:
        raise failure
