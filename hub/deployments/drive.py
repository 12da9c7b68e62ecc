"""Takes a deployment on one node to its end: its turn, transfer, install, again after any cut.

The rule it guards: one deployment of a package at a time on a node, the older first; a cut link is
waited out for an hour and costs at most the chunk that was on its way; an installation is asked for
again under the same id, which the node carries out once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

from hub.deployments.carry import Delivery, InstallChannel, TransferChannel, follow_install
from hub.deployments.chunks import ChunkReader
from hub.deployments.state import Ending, LiveDeployment, LiveStep, StepState
from hub.errors import HubError, NodeOffline, NotFound
from hub.node_reports import clean_text
from hub.nodes import Nodes
from hub.registry import Registry
from hub.store.packages import ArtifactRow
from hub.tasks.arrivals import Arrivals, was_cut
from protocol.aio import ProtocolError, StreamReset
from protocol.errors import ResetCode
from protocol.messages import Install, Transfer
from protocol.record_types import Installed, InstallFromNode, TransferFromNode

logger = logging.getLogger(__name__)

LOST_AFTER_S = 3600.0
"""How long a node that went away in the middle is waited for."""
ATTEMPTS = 3
"""Attempts that may end in a fault of the node before it counts as failed."""

Note = Callable[[LiveDeployment, LiveStep], Awaitable[None]]


class Driver:
    """Drives steps; one call of `drive` each."""

    def __init__(
        self,
        registry: Registry,
        nodes: Nodes,
        chunks: ChunkReader,
        changed: Note,
        progressed: Note,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        """`changed` stores and tells a step's new state, `progressed` only tells its bytes."""
        self.arrivals = Arrivals()
        self._registry = registry
        self._nodes = nodes
        self._chunks = chunks
        self._changed = changed
        self._progressed = progressed
        self._lost_after_s = lost_after_s
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def drive(
        self, deployment: LiveDeployment, step: LiveStep, artifact: ArtifactRow | None
    ) -> Ending:
        """Take the step to its ending, which the caller stores."""
        turn = self._turns.setdefault((step.node_id, deployment.row.package), asyncio.Lock())
        async with turn:
            try:
                return await self._until_ended(deployment, step, artifact)
            except TimeoutError:
                if step.state is StepState.QUEUED:
                    return Ending(StepState.SKIPPED, f"{step.node_name} is not connected")
                return Ending(StepState.LOST, "the node did not come back in time")
            except HubError as error:
                return Ending(StepState.FAILED, str(error))

    async def _until_ended(
        self, deployment: LiveDeployment, step: LiveStep, artifact: ArtifactRow | None
    ) -> Ending:
        if deployment.cancelled and step.state is not StepState.INSTALLING:
            return Ending(StepState.CANCELLED, "cancelled")
        faults = 0
        while True:
            seen = self.arrivals.seen(step.node_id)
            try:
                async with deployment.slots:
                    step.attached = True
                    return await self._attempt(deployment, step, artifact)
            except NodeOffline as error:
                if step.state is StepState.QUEUED and not deployment.resumed:
                    return Ending(StepState.SKIPPED, str(error))
            except ProtocolError as error:
                if not was_cut(error):
                    faults += 1
                    if faults == ATTEMPTS or _is_refusal(error):
                        return Ending(StepState.FAILED, clean_text(str(error)))
                    continue
                logger.info("deployment %s: %s: %s", deployment.row.id, step.node_name, error)
            finally:
                step.attached = False
            if deployment.cancelled:
                return Ending(StepState.CANCELLED, "cancelled while the node was away")
            async with asyncio.timeout(self._lost_after_s):
                await self.arrivals.wait(step.node_id, seen)

    async def _attempt(
        self, deployment: LiveDeployment, step: LiveStep, artifact: ArtifactRow | None
    ) -> Ending:
        if artifact is not None:
            await self._transfer(deployment, step, artifact)
        answer = await self._install(deployment, step)
        await self._take_packages(step, answer)
        if not answer.ok:
            error = clean_text(answer.error) or "the node did not say why"
            return Ending(StepState.FAILED, error, answer.changed)
        return Ending(StepState.SUCCEEDED, changed=answer.changed)

    async def _transfer(
        self, deployment: LiveDeployment, step: LiveStep, artifact: ArtifactRow
    ) -> None:
        opening = Transfer(
            digest=artifact.digest,
            size_bytes=artifact.size_bytes,
            chunk_bytes=artifact.chunk_bytes,
            subject=deployment.row.subject,
        )
        stream = await self._registry.open(step.node_id, opening)
        step.total_bytes = artifact.size_bytes
        await self._enter(deployment, step, StepState.TRANSFERRING, "transfer")

        async def progress(held_bytes: int) -> None:
            step.done_bytes = held_bytes
            await self._progressed(deployment, step)

        channel: TransferChannel = TransferChannel(stream, TransferFromNode)
        await Delivery(channel, artifact, self._chunks, progress).run()

    async def _install(self, deployment: LiveDeployment, step: LiveStep) -> Installed:
        row = deployment.row
        opening = Install(
            deployment=row.id,
            action=row.action,
            package=row.package,
            version=row.version,
            digest=row.digest,
            format=deployment.format,
            subject=row.subject,
        )
        stream = await self._registry.open(step.node_id, opening)
        await self._enter(deployment, step, StepState.INSTALLING, row.action)

        async def stage(name: str) -> None:
            step.stage = clean_text(name)[:32]
            await self._changed(deployment, step)

        return await follow_install(InstallChannel(stream, InstallFromNode), stage)

    async def _enter(
        self, deployment: LiveDeployment, step: LiveStep, state: StepState, stage: str
    ) -> None:
        """Move on; an attempt after a cut never moves back."""
        if step.started_at is None:
            step.started_at = time.time()
        if step.state is not state and step.state is not StepState.INSTALLING:
            step.move(state)
            step.stage = stage
            await self._changed(deployment, step)

    async def _take_packages(self, step: LiveStep, answer: Installed) -> None:
        try:
            await self._nodes.set_packages(step.node_id, answer.packages)
        except NotFound:
            logger.info("node %s was removed during a deployment", step.node_name)


def _is_refusal(error: Exception) -> bool:
    """Whether trying again would be answered alike."""
    return isinstance(error, StreamReset) and error.code in (
        ResetCode.REFUSED,
        ResetCode.UNKNOWN_KIND,
        ResetCode.TIMEOUT,
    )
