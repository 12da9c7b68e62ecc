"""Writes what happens to deployments: states as they come, endings for as long as it takes.

The rule it guards: what a node does goes on when the store takes nothing. A state that is not
stored does no harm (the next start resumes from an earlier one, and the node carries out an
installation once); an ending is offered again until it is stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from hub.errors import Unavailable
from hub.events import EventLog
from hub.store import deployments as queries
from hub.store.deployments import StepRow
from hub.store.engine import Store

logger = logging.getLogger(__name__)

AGAIN_S = 10.0
ATTEMPTS = 8_640
"""A day of asking; then the next start of the hub takes the deployment up."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """The one writer of deployments that go on."""

    store: Store
    events: EventLog

    async def state(self, deployment_id: str, row: StepRow) -> None:
        """Store where a node is, when the store takes it."""
        try:
            await self.store.write(lambda c: queries.update_step(c, deployment_id, row))
        except Unavailable as error:
            logger.warning("%s on %s is not stored: %s", row.state, row.node_name, error)

    async def ending(self, deployment_id: str, row: StepRow) -> None:
        """Store how a node ended."""
        await self._at_last(
            lambda: self.store.write(lambda c: queries.update_step(c, deployment_id, row))
        )

    async def end(self, deployment_id: str, state: str, now: float) -> None:
        """Store that a deployment ended."""
        await self._at_last(
            lambda: self.store.write(
                lambda c: queries.update_deployment(c, deployment_id, state, now)
            )
        )

    async def tell(
        self, kind: str, data: msgspec.Struct | dict[str, Any], row: StepRow | None = None
    ) -> None:
        """Publish an event, of a node when `row` says of which, when the store takes it."""
        node_id, node = (None, None) if row is None else (row.node_id, row.node_name)
        try:
            await self.events.publish(kind, node_id=node_id, node=node, data=data)
        except Unavailable as error:
            logger.warning("the event %s is not stored: %s", kind, error)

    async def _at_last(self, write: Callable[[], Awaitable[None]]) -> None:
        for _ in range(ATTEMPTS):
            try:
                return await write()
            except Unavailable as error:
                logger.warning("an end of a deployment is not stored yet: %s", error)
                await asyncio.sleep(AGAIN_S)
        logger.error("an end of a deployment is not stored; the next start takes it up")
