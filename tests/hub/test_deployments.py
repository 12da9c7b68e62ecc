"""Deployments from the service to nodes with the agent's real handlers, over tunnels in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from edge_agent.packages import PackageRoom, handle_install, handle_transfer
from edge_agent.policy import Policy, default_policy
from hub.artifacts import CHUNK_BYTES, Artifacts
from hub.authz import Role, Subject
from hub.core import Hub
from hub.deployments import (
    Deployment,
    DeploymentNode,
    Deployments,
    DeploymentSpec,
    carry,
    drive,
    recorder,
)
from hub.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    NothingMatches,
    Unavailable,
)
from hub.packages import Packages, UploadSpec
from hub.store import deployments as queries
from hub.store.engine import Store
from protocol.aio import Channel, ResetCode, Stream, StreamReset
from protocol.messages import Install, Open, Transfer
from protocol.record_types import (
    ChunkDigests,
    ChunkStored,
    Installed,
    Missing,
    Progress,
    TransferFromHub,
)
from tests.archives import make_tar, make_zip
from tests.edge_agent.conftest import write_policy
from tests.hub.conftest import ClientFor
from tests.hub.test_packages import add_node
from tests.hub.world import World, make_world

DEPLOYER = Subject("dora", Role.DEPLOYER, "u3", "token", "t3")
OPERATOR = Subject("olga", Role.OPERATOR, "u1", "token", "t1")

Hook = Callable[[Open], Awaitable[None]]


@dataclass
class Fleet:
    """A repository and nodes that keep their state between tunnels."""

    world: World
    root: Path
    artifacts: Artifacts
    packages: Packages

    async def push(self, version: str, data: bytes | None = None) -> None:
        """Upload a version of `web`."""
        content = make_tar({"version": version.encode()}) if data is None else data

        async def body() -> AsyncIterator[bytes]:
            yield content

        await self.packages.add(DEPLOYER, UploadSpec(name="web", version=version), body())

    def room(self, name: str, policy: Policy | None = None) -> PackageRoom:
        self.root.mkdir(exist_ok=True)
        file = write_policy(self.root / f"{name}.json", policy or default_policy())
        return PackageRoom(self.root / name, file)

    def version_on(self, name: str) -> str | None:
        path = self.root / name / "packages/web/current/version"
        return path.read_text() if path.exists() else None

    @asynccontextmanager
    async def node(
        self, name: str, *, hook: Hook | None = None, policy: Policy | None = None
    ) -> AsyncIterator[PackageRoom]:
        """A connected node; `hook` may hold streams up before they are served."""
        room = self.room(name, policy)

        async def handle(opening: Open, stream: Stream) -> None:
            if hook is not None:
                await hook(opening)
            if isinstance(opening, Transfer):
                await handle_transfer(opening, stream, room)
            elif isinstance(opening, Install):
                await handle_install(opening, stream, room)

        async with self.world.connected(name, handle):
            yield room

    @asynccontextmanager
    async def hub(self, *, lost_after_s: float = 3600.0) -> AsyncIterator[Deployments]:
        """The service for as long as the block runs; leaving it is a hub that stops."""
        service = Deployments(
            self.world.store,
            self.artifacts,
            self.world.registry,
            self.world.nodes,
            self.world.events,
            self.world.audit,
            lost_after_s=lost_after_s,
        )
        running = self.world.group.create_task(service.run())
        await service.ready()
        try:
            yield service
        finally:
            running.cancel()
            await asyncio.wait([running])


@pytest.fixture
async def fleet(store: Store, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with make_world(store) as made:
        artifacts = Artifacts(tmp_path / "artifacts")
        packages = Packages(made.store, artifacts, made.events, made.audit, made.nodes.all)
        yield Fleet(made, tmp_path / "nodes", artifacts, packages)


def spec(action: str = "install", **fields: Any) -> DeploymentSpec:
    document = {"package": "web", "target": "all", "action": action, **fields}
    return msgspec.convert(document, DeploymentSpec)


async def lines(service: Deployments, deployment: str) -> list[dict[str, Any]]:
    """Follow a deployment to its end."""
    async with asyncio.timeout(30):
        text = b"".join([chunk async for chunk in await service.follow(deployment)])
    return [msgspec.json.decode(line) for line in text.splitlines()]


async def ended(service: Deployments, deployment: str) -> Deployment:
    await lines(service, deployment)
    return await service.get(deployment)


async def deploy(service: Deployments, wanted: DeploymentSpec) -> Deployment:
    return await ended(service, (await service.create(DEPLOYER, wanted)).id)


def nodes_of(deployment: Deployment) -> list[DeploymentNode]:
    assert isinstance(deployment.nodes, list)
    return deployment.nodes


def states(deployment: Deployment) -> dict[str, str]:
    return {node.node: node.state for node in nodes_of(deployment)}


async def test_install_update_and_uninstall_on_several_nodes(fleet: Fleet) -> None:
    await fleet.push("1")
    await fleet.push("2", make_zip({"version": b"2"}))
    async with fleet.node("a"), fleet.node("b"), fleet.hub() as service:
        first = await deploy(service, spec(version="1"))
        assert (first.state, first.counts, first.version) == ("succeeded", {"succeeded": 2}, "1")
        for node in nodes_of(first):
            assert node.changed
            assert 0 < node.done_bytes == node.total_bytes
            assert node.started_at is not None
            assert node.finished_at is not None
        assert [fleet.version_on(name) for name in "ab"] == ["1", "1"]
        shown = fleet.world.nodes.get("a").packages
        assert [(package.name, package.version) for package in shown] == [("web", "1")]
        assert (await fleet.packages.get("web", "1")).nodes == ["a", "b"]

        newest = await deploy(service, spec("update"))
        assert (newest.version, newest.state) == ("2", "succeeded")
        assert [fleet.version_on(name) for name in "ab"] == ["2", "2"]

        again = await deploy(service, spec(version="2"))
        assert [node.changed for node in nodes_of(again)] == [False, False]

        gone = await deploy(service, spec("uninstall", target="a"))
        assert (gone.state, gone.version) == ("succeeded", "")
        assert [fleet.version_on(name) for name in "ab"] == [None, "2"]
        assert fleet.world.nodes.get("a").packages == ()


async def test_the_stream_tells_every_state_in_order_and_ends_with_a_summary(fleet: Fleet) -> None:
    await fleet.push("1", make_tar({"x": Random(1).randbytes(3 * CHUNK_BYTES)}))
    async with fleet.node("a"), fleet.hub() as service:
        deployment = await service.create(DEPLOYER, spec())
        told = await lines(service, deployment.id)
        assert {line["type"] for line in told[:-1]} == {"node"}
        order = [line["state"] for line in told[:-1]]
        assert order == sorted(
            order, key=["queued", "transferring", "installing", "succeeded"].index
        )
        assert order[-1] == "succeeded"
        summary = {
            "type": "summary",
            "deployment": deployment.id,
            "ok": 1,
            "failed": 0,
            "state": "succeeded",
            "counts": {"succeeded": 1},
        }
        assert told[-1] == summary
        assert (await lines(service, deployment.id))[-1] == summary
        with fleet.world.events.subscribe(after=0) as events:
            async for event in events:
                if event.kind == "deployment.node":
                    last = event
                if event.kind == "deployment.finished":
                    break
    event = last
    assert event.node == "a"
    assert event.data["state"] == "succeeded"
    assert event.data["deployment"] == deployment.id


async def test_offline_nodes_are_skipped(fleet: Fleet) -> None:
    await fleet.push("1")
    await fleet.world.add_node("away")
    async with fleet.node("here"), fleet.hub() as service:
        deployment = await deploy(service, spec())
        assert states(deployment) == {"away": "skipped", "here": "succeeded"}
        assert deployment.state == "failed"
        assert "not connected" in nodes_of(deployment)[0].error


async def test_what_a_node_refuses_is_told(fleet: Fleet) -> None:
    await fleet.push("1")
    strict = Policy(verbs=["exec"], users=["*"], forward=[])
    async with fleet.node("a"), fleet.node("strict", policy=strict), fleet.hub() as service:
        deployment = await deploy(service, spec())
        assert states(deployment) == {"a": "succeeded", "strict": "failed"}
        assert "deploy" in nodes_of(deployment)[1].error
        failed = await deploy(service, spec("update", target="strict"))
        assert failed.state == "failed"
    async with fleet.node("b"), fleet.hub() as service:
        update = await deploy(service, spec("update", target="b"))
        assert "use install" in nodes_of(update)[0].error


async def test_a_cut_tunnel_continues_at_the_missing_chunks(fleet: Fleet) -> None:
    data = make_tar({"version": b"big", "x": Random(2).randbytes(6 * CHUNK_BYTES)})
    await fleet.push("1", data)
    kept = asyncio.Event()

    async def three_chunks(opening: Open, stream: Stream) -> None:
        """A node whose link breaks after three chunks."""
        assert isinstance(opening, Transfer)
        room = fleet.room("a")
        hub: Channel[Any, TransferFromHub] = Channel(_Cut(stream, 3, kept), TransferFromHub)  # type: ignore[arg-type]
        await handle_transfer(opening, hub.stream, room)

    async with fleet.hub() as service:
        async with fleet.world.connected("a", three_chunks):
            deployment = await service.create(DEPLOYER, spec())
            await kept.wait()
        assert states(await service.get(deployment.id)) == {"a": "transferring"}
        asked: list[int] = []

        async def count(opening: Open) -> None:
            if isinstance(opening, Transfer):
                partial = fleet.root / "a/artifacts" / f"{opening.digest}.partial/chunks"
                asked.append(partial.stat().st_size // 4)

        async with fleet.node("a", hook=count) as room:
            service.node_came_online("id-a")
            assert (await ended(service, deployment.id)).state == "succeeded"
            assert len(asked) == 1
            assert 3 <= asked[0] <= 7  # those confirmed, and what was stored since
            assert room.installed()[0].version == "1"
    assert fleet.version_on("a") == "big"


class _Cut:
    """A stream that swallows everything once `after` chunks were confirmed."""

    def __init__(self, stream: Stream, after: int, reached: asyncio.Event) -> None:
        self._stream = stream
        self._left = after + 1  # Missing comes first
        self._reached = reached

    async def read(self, limit: int = 65536) -> bytes:
        while self._left <= 0:
            self._reached.set()
            await self._stream.read(limit)
        return await self._stream.read(limit)

    async def write(self, data: bytes) -> None:
        self._left -= 1
        await self._stream.write(data)

    def finish(self) -> None:
        self._stream.finish()

    def reset(self, code: ResetCode, reason: str = "") -> None:
        self._stream.reset(code, reason)


@pytest.mark.parametrize(("was_cut", "state"), [(True, "succeeded"), (False, "lost")])
async def test_a_cut_that_costs_the_transfer_is_no_fault_of_the_node(
    fleet: Fleet, was_cut: bool, state: str
) -> None:
    await fleet.push("1")
    room = fleet.room("a")
    left = 2 * drive.ATTEMPTS

    async with fleet.hub(lost_after_s=3600.0 if was_cut else 0.0) as service:

        async def serve(opening: Open, stream: Stream) -> None:
            """A node that loses the first streams, or only says so."""
            nonlocal left
            if isinstance(opening, Install):
                await handle_install(opening, stream, room)
            elif isinstance(opening, Transfer) and not left:
                await handle_transfer(opening, stream, room)
            else:
                left -= 1
                stream.reset(ResetCode.LOST)
                if was_cut:
                    service.node_came_online("id-a")

        async with fleet.world.connected("a", serve):
            assert states(await deploy(service, spec())) == {"a": state}
    assert left == (0 if was_cut else 2 * drive.ATTEMPTS - 1)


async def test_a_restarted_hub_takes_deployments_up_again(fleet: Fleet) -> None:
    await fleet.push("1")
    await fleet.world.add_node("b")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def hold(opening: Open) -> None:
        if isinstance(opening, Install):
            reached.set()
            await go_on.wait()

    async with fleet.node("a", hook=hold), fleet.node("b", hook=hold):
        async with fleet.hub() as service:
            deployment = await service.create(DEPLOYER, spec(parallel=1))
            await reached.wait()
        async with fleet.hub() as service:
            found = await service.get(deployment.id)
            assert found.state == "running"
            assert sorted(states(found).values()) == ["installing", "queued"]
            go_on.set()
            assert (await ended(service, deployment.id)).counts == {"succeeded": 2}


async def test_after_a_restart_nodes_are_waited_for_and_then_lost(fleet: Fleet) -> None:
    await fleet.push("1")
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(opening: Open) -> None:
        held.set()
        await go_on.wait()

    async with fleet.node("a", hook=hold):
        async with fleet.hub() as service:
            deployment = await service.create(DEPLOYER, spec())
            await held.wait()
        go_on.set()
    async with fleet.hub(lost_after_s=0.05) as service:
        result = await ended(service, deployment.id)
        assert states(result) == {"a": "lost"}
        assert result.state == "failed"


async def test_cancel_ends_what_has_not_begun_to_install(fleet: Fleet) -> None:
    await fleet.push("1")
    installing, go_on = asyncio.Event(), asyncio.Event()

    async def hold(opening: Open) -> None:
        if isinstance(opening, Install):
            installing.set()
            await go_on.wait()

    async with fleet.node("a", hook=hold), fleet.node("b"), fleet.hub() as service:
        deployment = await service.create(DEPLOYER, spec(parallel=1))
        await installing.wait()
        with pytest.raises(Forbidden):
            await service.cancel(OPERATOR, deployment.id)
        cancelled = await service.cancel(DEPLOYER, deployment.id)
        assert cancelled.state == "cancelled"
        go_on.set()
        result = await ended(service, deployment.id)
        assert states(result) == {"a": "succeeded", "b": "cancelled"}
        assert result.state == "cancelled"
        assert result.finished_at is not None
        with pytest.raises(Conflict, match="has ended"):
            await service.cancel(DEPLOYER, deployment.id)
        assert fleet.version_on("b") is None


async def test_deployments_of_a_package_to_a_node_take_turns(fleet: Fleet) -> None:
    await fleet.push("1")
    await fleet.push("2")
    first_held, go_on = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def hold(opening: Open) -> None:
        if isinstance(opening, Install):
            order.append(opening.version)
            first_held.set()
            await go_on.wait()

    async with fleet.node("a", hook=hold), fleet.hub() as service:
        first = await service.create(DEPLOYER, spec(version="1"))
        await first_held.wait()
        second = await service.create(DEPLOYER, spec(version="2"))
        assert states(await service.get(second.id)) == {"a": "queued"}
        go_on.set()
        await ended(service, first.id)
        assert (await ended(service, second.id)).state == "succeeded"
    assert order == ["1", "2"]
    assert fleet.version_on("a") == "2"


async def test_parallel_bounds_the_nodes_at_once(fleet: Fleet) -> None:
    await fleet.push("1")
    now = most = 0
    changed = asyncio.Condition()

    async def count(opening: Open) -> None:
        nonlocal now, most
        if isinstance(opening, Transfer):
            now += 1
            most = max(most, now)
        else:
            now -= 1
        async with changed:
            changed.notify_all()

    names = [f"n{number}" for number in range(6)]
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        ready = [asyncio.Event() for _ in names]

        async def live(name: str, up: asyncio.Event) -> None:
            async with fleet.node(name, hook=count):
                up.set()
                await stop.wait()

        for name, up in zip(names, ready, strict=True):
            group.create_task(live(name, up))
        for up in ready:
            await up.wait()
        async with fleet.hub() as service:
            result = await deploy(service, spec(parallel=2))
        stop.set()
    assert result.counts == {"succeeded": 6}
    assert most <= 2


async def test_many_nodes_read_each_chunk_of_the_store_once(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_tar({"x": Random(3).randbytes(5 * CHUNK_BYTES)})
    await fleet.push("1", data)
    reads: list[int] = []
    read = Artifacts.read

    async def counted(self: Artifacts, digest: str, start: int, length: int) -> bytes:
        reads.append(start)
        return await read(self, digest, start, length)

    monkeypatch.setattr(Artifacts, "read", counted)
    async with fleet.node("a"), fleet.node("b"), fleet.node("c"), fleet.hub() as service:
        assert (await deploy(service, spec())).state == "succeeded"
    assert sorted(reads) == list(range(0, len(data), CHUNK_BYTES))


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([Missing(ranges=[(0, 99)])], "do not exist"),
        ([Missing(ranges=[(0, 0), (0, 0)])], "do not exist"),
        ([Missing(ranges=[(0, -1)])], "do not exist"),
        ([ChunkStored(index=0)], "did not say"),
        ([Missing(ranges=[(0, 0)]), ChunkStored(index=1)], "out of order"),
        ([Missing(ranges=[]), ChunkStored(index=1)], "did not confirm"),
    ],
)
async def test_a_node_that_answers_nonsense_fails(
    fleet: Fleet, answers: list[Any], reason: str
) -> None:
    await fleet.push("1")

    async def nonsense(opening: Open, stream: Stream) -> None:
        hub: Channel[Any, TransferFromHub] = Channel(stream, TransferFromHub)
        assert isinstance(await hub.receive(), ChunkDigests)
        for answer in answers:
            await hub.send(answer)
        hub.finish()
        while await hub.receive() is not None:
            pass

    async with fleet.world.connected("a", nonsense), fleet.hub() as service:
        result = await deploy(service, spec())
        assert result.state == "failed"
        assert reason in nodes_of(result)[0].error


async def test_a_node_that_reads_nothing_fails(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carry, "CHUNK_TIMEOUT_S", 0.3)
    await fleet.push("1", make_tar({"x": Random(5).randbytes(2 * CHUNK_BYTES + 1)}))
    codes: asyncio.Queue[ResetCode] = asyncio.Queue()

    async def deaf(opening: Open, stream: Stream) -> None:
        hub: Channel[Any, TransferFromHub] = Channel(stream, TransferFromHub)
        await hub.receive()
        await hub.send(Missing(ranges=[(0, 2)]))
        while not stream.ended:
            await asyncio.sleep(0.01)
        try:
            while await stream.read():
                pass
        except StreamReset as reset:
            codes.put_nowait(reset.code)

    async with fleet.world.connected("a", deaf), fleet.hub() as service:
        result = await deploy(service, spec())
        assert result.state == "failed"
        assert "reads nothing" in nodes_of(result)[0].error
        assert await codes.get() is ResetCode.CANCELLED


async def test_hostile_texts_from_a_node_are_cleaned(fleet: Fleet) -> None:
    async def hostile(opening: Open, stream: Stream) -> None:
        hub: Channel[Any, Any] = Channel(stream, Progress)
        await hub.send(Progress(stage="\x1b[2J" + "s" * 200))
        await hub.send(Installed(ok=False, error="\x1b]0;evil\x07" + "e" * 4000))
        hub.finish()

    async with fleet.world.connected("a", hostile), fleet.hub() as service:
        [node] = nodes_of(await deploy(service, spec("uninstall")))
        assert node.state == "failed"
        assert "\x1b" not in node.error + node.stage
        assert len(node.stage) <= 32


async def test_a_damaged_artifact_fails_clearly(fleet: Fleet) -> None:
    data = make_tar({"x": Random(4).randbytes(2 * CHUNK_BYTES)})
    await fleet.push("1", data)
    [digest] = await fleet.artifacts.digests()
    path = fleet.root.parent / "artifacts" / digest
    path.write_bytes(b"\0" + data[1:])
    async with fleet.node("a") as room, fleet.hub() as service:
        [node] = nodes_of(await deploy(service, spec()))
        assert node.state == "failed"
        assert "damaged 3 times" in node.error
        path.unlink()
        [node] = nodes_of(await deploy(service, spec()))
        assert "cannot be read" in node.error
        assert room.installed() == []


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (spec(package="none"), NotFound),
        (spec(version="9"), NotFound),
        (spec(package="../x"), BadRequest),
        (spec("uninstall", version="1"), BadRequest),
        (spec(target="nobody-*"), NothingMatches),
        (spec(target="(("), BadRequest),
    ],
)
async def test_bad_specifications_store_nothing(
    fleet: Fleet, wanted: DeploymentSpec, error: type[Exception]
) -> None:
    await fleet.push("1")
    async with fleet.node("a"), fleet.hub() as service:
        with pytest.raises(error):
            await service.create(DEPLOYER, wanted)
        assert (await service.page(10, None))[2] == 0


async def test_deploying_needs_the_verb_and_the_refusal_is_audited(fleet: Fleet) -> None:
    await fleet.push("1")
    async with fleet.node("a"), fleet.hub() as service:
        with pytest.raises(Forbidden):
            await service.create(OPERATOR, spec())
    [entry] = (await fleet.world.audit.entries(1)).entries
    assert (entry.act, entry.outcome) == ("deployment.create", "denied")


async def test_a_package_that_is_being_deployed_is_not_removed(fleet: Fleet) -> None:
    await fleet.push("1")
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(opening: Open) -> None:
        held.set()
        await go_on.wait()

    async with fleet.node("a", hook=hold), fleet.hub() as service:
        deployment = await service.create(DEPLOYER, spec())
        await held.wait()
        with pytest.raises(Conflict, match="being deployed"):
            await fleet.packages.remove(DEPLOYER, "web", "1")
        go_on.set()
        await ended(service, deployment.id)
        with pytest.raises(Conflict, match="installed on a"):
            await fleet.packages.remove(DEPLOYER, "web", "1")


async def test_lists_are_newest_first_in_pages(fleet: Fleet) -> None:
    await fleet.push("1")
    async with fleet.node("a"), fleet.hub() as service:
        made = [(await deploy(service, spec())).id for _ in range(3)]
        first, cursor, total = await service.page(2, None)
        rest, end, _ = await service.page(2, cursor)
        assert [one.id for one in first + rest] == made[::-1]
        assert (total, end) == (3, None)
        assert first[0].counts == {"succeeded": 1}
        with pytest.raises(NotFound):
            await service.get("none")
        with pytest.raises(NotFound):
            await service.follow("none")


async def test_nothing_is_started_before_and_after_the_service_runs(fleet: Fleet) -> None:
    await fleet.push("1")
    await fleet.world.add_node("a")
    async with fleet.hub() as service:
        pass
    with pytest.raises(Unavailable):
        await service.create(DEPLOYER, spec())


async def test_the_api_deploys_shows_streams_and_lists(hub: Hub, client: ClientFor) -> None:
    api, viewer = await client(Role.DEPLOYER), await client(Role.VIEWER)
    wanted = {"package": "web", "target": "all", "action": "uninstall"}
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(hub.deployments.run())
        await hub.deployments.ready()
        await add_node(hub, "shop-1")
        assert (await viewer.post("/api/v1/deployments", json=wanted)).status_code == 403
        wrong = await api.post("/api/v1/deployments", json={**wanted, "action": "explode"})
        assert wrong.status_code == 400
        response = await api.post("/api/v1/deployments", json=wanted)
        assert response.status_code == 202
        made = response.json()
        assert made["state"] == "running"
        assert "nodes" not in made
        stream = await viewer.get(f"/api/v1/deployments/{made['id']}/stream")
        assert stream.headers["content-type"].startswith("application/x-ndjson")
        last = msgspec.json.decode(stream.text.splitlines()[-1])
        assert (last["type"], last["counts"]) == ("summary", {"skipped": 1})
        shown = (await viewer.get(f"/api/v1/deployments/{made['id']}")).json()
        assert shown["nodes"][0]["node"] == "shop-1"
        assert (await viewer.get("/api/v1/deployments")).json()["total"] == 1
        ended_already = await api.post(f"/api/v1/deployments/{made['id']}/cancel")
        assert ended_already.status_code == 409
        running.cancel()


async def test_an_installation_without_an_end_of_stages_fails(fleet: Fleet) -> None:
    await fleet.push("1")

    async def endless(opening: Open, stream: Stream) -> None:
        if isinstance(opening, Transfer):
            await handle_transfer(opening, stream, fleet.room("a"))
            return
        channel: Channel[Progress, Install] = Channel(stream, Install)
        while True:
            await channel.send(Progress(stage="again"))

    async with fleet.world.connected("a", endless), fleet.hub() as service:
        failed = await deploy(service, spec())
    assert failed.state == "failed"
    assert "no end of stages" in nodes_of(failed)[0].error


async def test_an_end_is_stored_when_the_store_takes_writes_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.push("1")
    monkeypatch.setattr(recorder, "AGAIN_S", 0.01)
    refused = 0
    write = queries.update_step

    async def full(*arguments: Any) -> None:
        nonlocal refused
        if refused < 5:
            refused += 1
            raise Unavailable("the disk is full")
        await write(*arguments)

    monkeypatch.setattr(queries, "update_step", full)
    async with fleet.node("a"), fleet.hub() as service:
        done = await deploy(service, spec())
    assert refused == 5
    assert states(done) == {"a": "succeeded"}
    assert fleet.version_on("a") == "1"
