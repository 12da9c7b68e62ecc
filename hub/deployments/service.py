"""`Deployments`: makes, drives, cancels and shows deployments, takes them up after a crash.

The rule it guards: a deployment and its nodes are stored before the first send, the state of a node
at each change. `run()` lives as long as the hub; each node has one task of it until it has ended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from hub.artifacts import Artifacts
from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.deployments.chunks import ChunkReader
from hub.deployments.drive import LOST_AFTER_S, Driver
from hub.deployments.follow import follow
from hub.deployments.recorder import Recorder
from hub.deployments.state import FINAL, Ending, LiveDeployment, LiveStep, StepState, live_step
from hub.deployments.views import Deployment, DeploymentSpec, deployment_view, node_event
from hub.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable
from hub.events import EventLog
from hub.ids import sortable_id
from hub.nodes import Nodes
from hub.nodeview import NodeView
from hub.registry import Registry
from hub.store import deployments as queries
from hub.store import packages as package_queries
from hub.store.deployments import DeploymentRow
from hub.store.engine import Store
from hub.store.packages import ArtifactRow, PackageRow
from protocol.archive_rules import NAME_PATTERN, valid_name

logger = logging.getLogger(__name__)

MAX_NODES = 10_000
MAX_LIVE_NODES = 50_000
"""Of all unfinished deployments: a task and some hundred bytes each."""
TELL_EVERY_S = 0.25
PUBLISH_EVERY_S = 0.5
"""How often a node's progress goes to those who follow, and into the stored events."""


class Deployments:
    """All deployments of the hub."""

    def __init__(
        self,
        store: Store,
        artifacts: Artifacts,
        registry: Registry,
        nodes: Nodes,
        events: EventLog,
        audit: Audit,
        *,
        lost_after_s: float = LOST_AFTER_S,
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._events = events
        self._audit = audit
        self._recorder = Recorder(store, events)
        self._driver = Driver(
            registry, nodes, ChunkReader(artifacts), self._changed, self._progressed, lost_after_s
        )
        self._live: dict[str, LiveDeployment] = {}
        self._group: asyncio.TaskGroup | None = None
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Take up what the last hub left behind, then drive deployments until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._resume()
                self._ready.set()
                await asyncio.get_running_loop().create_future()
            finally:
                self._group = None

    async def ready(self) -> None:
        """Wait until `run` has taken up the unfinished deployments."""
        await self._ready.wait()

    # --- what the API asks ---

    async def create(self, subject: Subject, spec: DeploymentSpec) -> Deployment:
        """Store a deployment with its nodes, and start it.

        Raises:
            BadRequest, InvalidTarget: The specification cannot be taken.
            NotFound: There is no such package or version.
            NothingMatches: No node is meant.
            Forbidden: On one of the nodes.
            Unavailable: The hub has too much to do, or is starting or stopping.
        """
        package = await self._choose(spec)
        selected = self._nodes.select(spec.target)
        if len(selected) > MAX_NODES:
            raise BadRequest(f"{len(selected)} nodes match; a deployment takes {MAX_NODES} at most")
        await self._authorize(subject, spec, selected)
        self._check_room(len(selected))
        row = DeploymentRow(
            id=sortable_id(),
            subject=subject.name,
            target=spec.target,
            action=spec.action,
            package=spec.package,
            version=package.version if package is not None else "",
            digest=package.digest if package is not None else None,
            parallel=spec.parallel,
            state="running",
            created_at=time.time(),
        )
        deployment = LiveDeployment(
            row=row,
            steps={node.id: LiveStep(node.id, node.name) for node in selected},
            slots=asyncio.Semaphore(spec.parallel),
            format=package.format if package is not None else "tar.gz",
        )
        await self._insert(deployment)
        await self._start(deployment)
        await self._tell_created(subject, deployment)
        return self._view(deployment)

    async def cancel(self, subject: Subject, deployment_id: str) -> Deployment:
        """End what is queued or being transferred; an installation that goes on is let end.

        Raises:
            NotFound: There is no such deployment.
            Conflict: It has ended.
            Forbidden: On one of its nodes.
        """
        deployment = self._live.get(deployment_id)
        if deployment is None:
            await self.get(deployment_id)
            raise Conflict("the deployment has ended; there is nothing to cancel")
        for step in deployment.steps.values():
            authorize(subject, Verb.DEPLOY, step.node_name)
        await self._store.write(
            lambda connection: queries.update_deployment(
                connection, deployment_id, "cancelled", None
            )
        )
        deployment.cancelled = True
        for step in deployment.steps.values():
            installs = step.state is StepState.INSTALLING and step.attached
            if step.work is not None and not step.is_final and not installs:
                step.work.cancel()
        await self._audit.record(
            subject.name, "deployment.cancel", deployment_id, address=subject.address
        )
        return self._view(deployment)

    async def get(self, deployment_id: str) -> Deployment:
        """Show one deployment with its nodes.

        Raises:
            NotFound: There is no such deployment.
        """
        deployment = self._live.get(deployment_id) or await self._load(deployment_id)
        return self._view(deployment, with_nodes=True)

    async def page(
        self, limit: int, cursor: str | None
    ) -> tuple[list[Deployment], str | None, int]:
        """Show the newest ones without nodes: the page, the next cursor, how many in all."""
        async with self._store.read() as connection:
            rows, total = await queries.list_deployments(connection, limit + 1, cursor)
            more = rows[limit - 1].id if len(rows) > limit else None
            rows = rows[:limit]
            counts = await queries.count_states(connection, [row.id for row in rows])
        return [deployment_view(row, counts[row.id]) for row in rows], more, total

    async def follow(self, deployment_id: str) -> AsyncGenerator[bytes, None]:
        """Return an iterator over a deployment's NDJSON, from how it is now to its end.

        Raises:
            NotFound: There is no such deployment.
            Unavailable: Too many readers follow it.
        """
        deployment = self._live.get(deployment_id) or await self._load(deployment_id)
        return follow(deployment, deployment.feed.join(list(deployment.steps)))

    # --- what the tunnel's code tells ---

    def node_came_online(self, node_id: str) -> None:
        """Go on with the node's unfinished deployments; call it once per tunnel."""
        self._driver.arrivals.arrived(node_id)

    # --- making one ---

    async def _choose(self, spec: DeploymentSpec) -> PackageRow | None:
        if not valid_name(spec.package):
            raise BadRequest(f"the package {spec.package!r} does not match {NAME_PATTERN}")
        if spec.action == "uninstall":
            if spec.version is not None:
                raise BadRequest("an uninstallation takes no version: it removes what is installed")
            return None
        async with self._store.read() as connection:
            if spec.version is None:
                package = await package_queries.newest_package(connection, spec.package)
            else:
                package = await package_queries.find_package(connection, spec.package, spec.version)
        if package is None:
            raise NotFound("package", f"{spec.package} {spec.version or ''}".strip())
        return package

    async def _authorize(
        self, subject: Subject, spec: DeploymentSpec, nodes: Sequence[NodeView]
    ) -> None:
        try:
            for node in nodes:
                authorize(subject, Verb.DEPLOY, node.name)
        except Forbidden:
            await self._audit.record(
                subject.name,
                "deployment.create",
                spec.target,
                outcome="denied",
                address=subject.address,
                detail=spec,
            )
            raise

    def _check_room(self, more: int) -> None:
        if self._group is None or not self._ready.is_set():
            raise Unavailable("the hub is starting or stopping; try again in a moment")
        if sum(len(one.steps) for one in self._live.values()) + more > MAX_LIVE_NODES:
            raise Unavailable(f"deployments to {MAX_LIVE_NODES} nodes are under way; try later")

    async def _insert(self, deployment: LiveDeployment) -> None:
        row, steps = deployment.row, [step.row() for step in deployment.steps.values()]
        if not await self._store.write(
            lambda connection: queries.insert_deployment(connection, row, steps)
        ):
            raise NotFound("package", f"{row.package} {row.version}")

    async def _tell_created(self, subject: Subject, deployment: LiveDeployment) -> None:
        row = deployment.row
        data = {"deployment": row.id, "package": row.package, "version": row.version}
        await self._events.publish("deployment.created", data={**data, "action": row.action})
        await self._audit.record(
            subject.name,
            "deployment.create",
            row.id,
            address=subject.address,
            detail={**data, "action": row.action, "target": row.target},
        )

    async def _start(self, deployment: LiveDeployment) -> None:
        self._live[deployment.row.id] = deployment
        artifact = await self._artifact(deployment)
        if self._group is None:  # the hub stops: the next one takes it up
            return
        for step in deployment.steps.values():
            if not step.is_final:
                step.work = self._group.create_task(self._work(deployment, step, artifact))

    async def _artifact(self, deployment: LiveDeployment) -> ArtifactRow | None:
        if deployment.row.digest is None:
            return None
        async with self._store.read() as connection:
            return await package_queries.get_artifact(connection, deployment.row.digest)

    # --- driving it ---

    async def _work(
        self, deployment: LiveDeployment, step: LiveStep, artifact: ArtifactRow | None
    ) -> None:
        try:
            ending = await self._driver.drive(deployment, step, artifact)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not deployment.cancelled or task is None or task.uncancel() > 0:
                raise  # the hub stops
            ending = Ending(StepState.CANCELLED, "cancelled")
        except Exception:
            logger.exception("deployment %s on %s failed", deployment.row.id, step.node_name)
            ending = Ending(StepState.FAILED, "the hub failed; its log says why")
        await self._conclude(deployment, step, ending)

    async def _conclude(self, deployment: LiveDeployment, step: LiveStep, ending: Ending) -> None:
        step.error, step.changed = ending.error, ending.changed
        step.finished_at = time.time()
        step.move(ending.state)
        await self._recorder.ending(deployment.row.id, step.row())
        deployment.feed.touch(step.node_id)
        await self._publish(deployment, step)
        deployment.settled += 1
        if deployment.settled == len(deployment.steps):
            await self._finish(deployment)

    async def _finish(self, deployment: LiveDeployment) -> None:
        state, now = deployment.state, time.time()
        await self._recorder.end(deployment.row.id, state, now)
        deployment.row = replace(deployment.row, state=state, finished_at=now)
        del self._live[deployment.row.id]
        deployment.feed.close()
        await self._recorder.tell(
            "deployment.finished",
            {
                "deployment": deployment.row.id,
                "package": deployment.row.package,
                "state": state,
                "counts": deployment.counts(),
            },
        )

    async def _changed(self, deployment: LiveDeployment, step: LiveStep) -> None:
        await self._recorder.state(deployment.row.id, step.row())
        deployment.feed.touch(step.node_id)
        await self._publish(deployment, step)

    async def _progressed(self, deployment: LiveDeployment, step: LiveStep) -> None:
        now = asyncio.get_running_loop().time()
        if now - step.told_at >= TELL_EVERY_S:
            step.told_at = now
            deployment.feed.touch(step.node_id)
        if now - step.published_at >= PUBLISH_EVERY_S:
            await self._publish(deployment, step)

    async def _publish(self, deployment: LiveDeployment, step: LiveStep) -> None:
        step.published_at = asyncio.get_running_loop().time()
        row = step.row()
        await self._recorder.tell("deployment.node", node_event(row, deployment.row), row)

    # --- loading it ---

    async def _resume(self) -> None:
        async with self._store.read() as connection:
            rows = await queries.unfinished(connection)
        for row in rows:
            deployment = await self._load(row.id)
            deployment.resumed = True
            await self._start(deployment)
            if deployment.settled == len(deployment.steps):
                await self._finish(deployment)
        logger.info("%d unfinished deployments are taken up again", len(self._live))

    async def _load(self, deployment_id: str) -> LiveDeployment:
        async with self._store.read() as connection:
            row = await queries.get_deployment(connection, deployment_id)
            if row is None:
                raise NotFound("deployment", deployment_id)
            steps = await queries.list_steps(connection, deployment_id)
            package = await package_queries.find_package(connection, row.package, row.version)
        return LiveDeployment(
            row=row,
            steps={step.node_id: live_step(step) for step in steps},
            slots=asyncio.Semaphore(row.parallel),
            format=package.format if package is not None else "tar.gz",
            cancelled=row.state == "cancelled",
            settled=sum(StepState(step.state) in FINAL for step in steps),
        )

    def _view(self, deployment: LiveDeployment, *, with_nodes: bool = False) -> Deployment:
        steps = [step.row() for step in deployment.steps.values()] if with_nodes else None
        row = replace(deployment.row, state=deployment.state)
        return deployment_view(row, deployment.counts(), steps)
