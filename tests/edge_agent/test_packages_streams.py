"""`transfer` and `install` as the hub sees them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest

from edge_agent.packages import PackageRoom, handle_install, handle_transfer
from edge_agent.packages import transfer as transfers
from edge_agent.policy import Policy, PolicyFile
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import Install, Message, Open, Transfer
from protocol.record_types import (
    ChunkDigests,
    ChunkPart,
    ChunkRefused,
    ChunkStored,
    Installed,
    InstallFromNode,
    Missing,
    Progress,
    Stored,
    TransferFromHub,
    TransferFromNode,
)
from tests.archives import make_tar
from tests.edge_agent.conftest import write_policy

CHUNK = 8192


@pytest.fixture
def room(tmp_path: Path, policy: PolicyFile) -> PackageRoom:
    return PackageRoom(tmp_path / "state", policy)


@asynccontextmanager
async def node(room: PackageRoom) -> AsyncIterator[Tunnel]:
    async def handle(opening: Open, stream: Stream) -> None:
        if isinstance(opening, Transfer):
            await handle_transfer(opening, stream, room)
        else:
            assert isinstance(opening, Install)
            await handle_install(opening, stream, room)

    async with memory_pair(dialled_handler=handle) as (_, hub):
        yield hub


class Sender:
    """The hub's side of one transfer, step by step."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        self.digest = hashlib.sha256(data).hexdigest()

    async def begin(self, tunnel: Tunnel) -> list[tuple[int, int]]:
        opening = Transfer(digest=self.digest, size_bytes=len(self.data), chunk_bytes=CHUNK)
        self.channel: Channel[TransferFromHub, TransferFromNode] = Channel(
            await tunnel.open(opening), TransferFromNode
        )
        digests = b"".join(hashlib.sha256(chunk).digest() for chunk in self.chunks)
        for start in range(0, len(digests), 65536):
            await self.channel.send(ChunkDigests(digests=digests[start : start + 65536]))
        answer = await self.channel.receive()
        assert isinstance(answer, Missing)
        return answer.ranges

    async def chunk(self, index: int, data: bytes | None = None) -> TransferFromNode | None:
        data = self.chunks[index] if data is None else data
        half = len(data) // 2
        await self.channel.send(ChunkPart(index=index, offset=0, data=data[:half]))
        await self.channel.send(ChunkPart(index=index, offset=half, data=data[half:]))
        return await self.channel.receive()

    async def all(self, tunnel: Tunnel) -> None:
        for first, last in await self.begin(tunnel):
            for index in range(first, last + 1):
                assert await self.chunk(index) == ChunkStored(index=index)
        assert await self.channel.receive() == Stored()
        assert await self.channel.receive() is None


async def test_an_artifact_arrives_and_is_not_sent_twice(room: PackageRoom) -> None:
    sender = Sender(Random(1).randbytes(3 * CHUNK + 5))
    async with node(room) as hub:
        await sender.all(hub)
        found = room.cache.find(sender.digest)
        assert found is not None
        assert found.read_bytes() == sender.data
        assert await sender.begin(hub) == []
        assert await sender.channel.receive() == Stored()


async def test_an_empty_artifact_arrives(room: PackageRoom) -> None:
    sender = Sender(b"")
    async with node(room) as hub:
        assert await sender.begin(hub) == []
        assert await sender.channel.receive() == Stored()


async def test_a_transfer_goes_on_over_a_new_tunnel(room: PackageRoom) -> None:
    sender = Sender(Random(2).randbytes(5 * CHUNK))
    async with node(room) as hub:
        await sender.begin(hub)
        assert await sender.chunk(0) == ChunkStored(index=0)
        assert await sender.chunk(3) == ChunkStored(index=3)
    again = PackageRoom(room.cache.root.parent, room.policy)
    async with node(again) as hub:
        assert await sender.begin(hub) == [(1, 2), (4, 4)]
        for index in (1, 2, 4):
            await sender.chunk(index)
        assert await sender.channel.receive() == Stored()


async def test_a_damaged_chunk_is_asked_for_again_and_not_for_ever(room: PackageRoom) -> None:
    sender = Sender(Random(3).randbytes(2 * CHUNK))
    async with node(room) as hub:
        await sender.begin(hub)
        for _ in range(2):
            assert await sender.chunk(1, b"x" * CHUNK) == ChunkRefused(index=1)
        with pytest.raises(StreamReset, match="damaged 3 times"):
            await sender.chunk(1, b"x" * CHUNK)
        assert room.cache.find(sender.digest) is None


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([ChunkPart(index=9, offset=0, data=b"x")], "out of order"),
        ([ChunkPart(index=0, offset=7, data=b"x")], "out of order"),
        ([ChunkPart(index=1, offset=0, data=b"x" * (CHUNK + 1))], "too long"),
        (
            [ChunkPart(index=0, offset=0, data=b"x"), ChunkPart(index=1, offset=0, data=b"x")],
            "not complete",
        ),
        ([ChunkPart(index=0, offset=0, data=b"")], "not complete"),
        ([ChunkDigests(digests=b"x")], "not complete"),
    ],
)
async def test_parts_out_of_place_are_refused(
    room: PackageRoom, parts: list[TransferFromHub], reason: str
) -> None:
    sender = Sender(Random(4).randbytes(2 * CHUNK))
    async with node(room) as hub:
        await sender.begin(hub)
        with pytest.raises(StreamReset, match=reason):
            for part in parts:
                await sender.channel.send(part)
            await sender.channel.receive()


async def test_an_early_end_is_refused(room: PackageRoom) -> None:
    async with node(room) as hub:
        sender = Sender(Random(5).randbytes(CHUNK))
        await sender.begin(hub)
        sender.channel.finish()
        with pytest.raises(StreamReset, match="before it was complete"):
            await sender.channel.receive()


async def test_too_many_chunks_are_refused(room: PackageRoom) -> None:
    opening = Transfer(digest="0" * 64, size_bytes=4 * 1024**3, chunk_bytes=4096)
    async with node(room) as hub:
        channel: Channel[Message, Missing] = Channel(await hub.open(opening), Missing)
        with pytest.raises(StreamReset, match="too many"):
            await channel.receive()


async def test_a_policy_without_deploy_refuses_both(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy.json", Policy(verbs=["exec"], users=[], forward=[]))
    async with node(PackageRoom(tmp_path / "state", policy)) as hub:
        with pytest.raises(StreamReset, match="deploy"):
            await Sender(b"x").begin(hub)
        with pytest.raises(StreamReset, match="deploy") as caught:
            await run(hub, Install(deployment="d", action="uninstall", package="a", version="1"))
        assert caught.value.code is ResetCode.REFUSED


async def run(hub: Tunnel, opening: Install) -> tuple[list[str], Installed]:
    """Carry out an install stream: the stages and the answer."""
    channel: Channel[Message, InstallFromNode] = Channel(await hub.open(opening), InstallFromNode)
    stages = []
    while True:
        match await channel.receive():
            case Progress(stage=stage):
                stages.append(stage)
            case Installed() as answer:
                assert await channel.receive() is None
                return stages, answer
            case None:
                pytest.fail("no answer")


async def deploy(
    hub: Tunnel, deployment: str, version: str, action: str = "install"
) -> tuple[list[str], Installed]:
    """Transfer and install version `version` of `web`."""
    sender = Sender(make_tar({"version": version.encode()}))
    await sender.all(hub)
    opening = Install(
        deployment=deployment, action=action, package="web", version=version, digest=sender.digest
    )
    return await run(hub, opening)


async def test_install_update_uninstall(room: PackageRoom) -> None:
    link = room.cache.root.parent / "packages/web/current"
    async with node(room) as hub:
        stages, answer = await deploy(hub, "d1", "1")
        assert stages == ["unpack", "switch", "cleanup"]
        assert answer.ok
        assert answer.changed
        assert [(p.name, p.version) for p in answer.packages] == [("web", "1")]
        assert (link / "version").read_text() == "1"

        _, answer = await deploy(hub, "d2", "1")
        assert (answer.ok, answer.changed) == (True, False)

        _, answer = await deploy(hub, "d3", "2", action="update")
        assert (answer.ok, answer.changed) == (True, True)
        assert (link / "version").read_text() == "2"
        assert room.installed() == answer.packages

        opening = Install(deployment="d4", action="uninstall", package="web", version="")
        _, answer = await run(hub, opening)
        assert (answer.ok, answer.changed, answer.packages) == (True, True, [])
        _, answer = await run(hub, msgspec.structs.replace(opening, deployment="d5"))
        assert (answer.ok, answer.changed) == (True, False)


async def test_a_repeated_deployment_gets_the_stored_answer(room: PackageRoom) -> None:
    async with node(room) as hub:
        await deploy(hub, "d1", "1")
        await deploy(hub, "d2", "2")
        stages, answer = await deploy(hub, "d1", "1")
        assert (stages, answer.ok, answer.changed) == ([], True, True)
        assert [package.version for package in answer.packages] == ["2"]


async def test_a_deployment_cut_before_its_answer_still_says_it_changed(room: PackageRoom) -> None:
    async with node(room) as hub:
        await deploy(hub, "d1", "1")
        (room.cache.root.parent / "outcomes/d1.json").unlink()
        _, answer = await deploy(hub, "d1", "1")
        assert (answer.ok, answer.changed) == (True, True)


async def test_update_needs_an_installed_package(room: PackageRoom) -> None:
    async with node(room) as hub:
        _, answer = await deploy(hub, "d1", "1", action="update")
        assert not answer.ok
        assert "use install" in answer.error
        assert room.installed() == []


async def test_a_hostile_archive_changes_nothing(room: PackageRoom) -> None:
    async with node(room) as hub:
        await deploy(hub, "d1", "1")
        sender = Sender(make_tar({"a": b"1", "../../evil": b"2"}))
        await sender.all(hub)
        opening = Install(
            deployment="d2", action="update", package="web", version="2", digest=sender.digest
        )
        _, answer = await run(hub, opening)
        assert (answer.ok, answer.changed) == (False, False)
        assert "leaves the archive" in answer.error
        assert [package.version for package in answer.packages] == ["1"]


@pytest.mark.parametrize(
    ("opening", "reason"),
    [
        (Install(deployment="d", action="install", package="..", version="1"), "no name"),
        (Install(deployment="d", action="install", package="a", version="../1"), "no version"),
        (Install(deployment="d", action="install", package="a", version="1"), "digest"),
        (Install(deployment="../d", action="uninstall", package="a", version="1"), "no id"),
        (
            Install(deployment="d", action="install", package="a", version="1", digest="0" * 64),
            "transfer it first",
        ),
    ],
)
async def test_what_cannot_be_tried_is_refused(
    room: PackageRoom, opening: Install, reason: str
) -> None:
    async with node(room) as hub:
        with pytest.raises(StreamReset, match=reason):
            await run(hub, opening)
    assert list((room.cache.root.parent / "outcomes").iterdir()) == []


async def test_handlers_that_wait_end_with_the_tunnel(room: PackageRoom) -> None:
    sender = Sender(Random(6).randbytes(CHUNK))
    async with room.turn("install", "web"), room.turn("transfer", sender.digest):
        async with asyncio.timeout(10), node(room) as hub:
            opening = Install(deployment="d", action="uninstall", package="web", version="")
            await hub.open(opening)
            await hub.open(Transfer(digest=sender.digest, size_bytes=CHUNK, chunk_bytes=CHUNK))
    async with node(room) as hub:
        await sender.all(hub)
        _, answer = await run(hub, opening)
        assert answer.ok


async def test_a_hub_that_speaks_out_of_turn_is_reset(room: PackageRoom) -> None:
    async with room.turn("install", "web"), node(room) as hub:
        opening = Install(deployment="d", action="uninstall", package="web", version="")
        channel: Channel[Message, InstallFromNode] = Channel(
            await hub.open(opening), InstallFromNode
        )
        await channel.send(ChunkDigests(digests=b""))
        with pytest.raises(StreamReset) as caught:
            await channel.receive()
        assert caught.value.code is ResetCode.PROTOCOL


@pytest.mark.parametrize("digests", [b"", b"\0" * 32], ids=["no plan", "no chunks"])
async def test_a_hub_that_stalls_a_transfer_is_given_up(
    room: PackageRoom, digests: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "STALLED_S", 0.05)
    async with node(room) as hub:
        opening = Transfer(digest="0" * 64, size_bytes=CHUNK, chunk_bytes=CHUNK)
        channel: Channel[TransferFromHub, TransferFromNode] = Channel(
            await hub.open(opening), TransferFromNode
        )
        if digests:
            await channel.send(ChunkDigests(digests=digests))
            assert isinstance(await channel.receive(), Missing)
        with pytest.raises(StreamReset, match="sends nothing more"):
            await channel.receive()
        async with asyncio.timeout(5), room.turn("transfer", "0" * 64):
            pass
