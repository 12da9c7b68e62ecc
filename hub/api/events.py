"""What happens, as an event stream: `/events`, resumable by id.

The rule it guards: a stream ends when the caller's rights do, and within an hour at the latest;
clients come back with the last id that they have seen and miss nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Controller, get
from litestar.params import HeaderParameter, Parameter
from litestar.response import Stream

from hub.accounts.changes import Ended
from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.errors import BadRequest
from hub.events import Event, Subscription

KEEP_ALIVE_S = 15.0
LIFE_S = 3_600.0
LAST_ID = 2**63 - 1
"""The largest id that the database can hold."""
MEDIA_TYPE = "text/event-stream"


class EventsController(Controller):
    """The event stream."""

    path = "/events"
    tags = ("events",)

    @get(guards=[requires(Verb.VIEW)], media_type=MEDIA_TYPE)
    async def stream_events(
        self,
        hub: Hub,
        subject: Subject,
        after: Annotated[int | None, Parameter(ge=0, le=LAST_ID)] = None,
        last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
    ) -> Stream:
        """Send events after an id, or from now on, as they happen."""
        if last_event_id is not None:
            after = _id(last_event_id)
        return Stream(
            _stream(hub, subject, after),
            media_type=MEDIA_TYPE,
            headers={"X-Accel-Buffering": "no"},
        )


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadRequest("Last-Event-ID is not the id of an event")
    return int(text)


async def _stream(hub: Hub, subject: Subject, after: int | None) -> AsyncIterator[bytes]:
    with hub.events.subscribe(after) as subscription:

        def close_with_rights(ended: Ended) -> None:
            if ended.covers(subject):
                subscription.close()

        until = asyncio.get_running_loop().time() + LIFE_S
        with hub.accounts.watch(close_with_rights):
            yield b": connected\n\n"
            while asyncio.get_running_loop().time() < until:
                try:
                    yield await _next(subscription)
                except StopAsyncIteration:
                    return


async def _next(subscription: Subscription) -> bytes:
    try:
        async with asyncio.timeout(KEEP_ALIVE_S):
            return _encoded(await anext(subscription))
    except TimeoutError:
        return b": still here\n\n"


def _encoded(event: Event) -> bytes:
    head = f"id: {event.id}\nevent: {event.kind}\ndata: ".encode()
    return head + msgspec.json.encode(event) + b"\n\n"
