"""Links between two real nodes in one process: bytes, states in words, rights, conflicts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

import hub.link
import hub.links
from edge_agent.policy import Policy, PolicyFile, default_policy
from hub.accounts.changes import Changes
from hub.accounts.passwords import Passwords
from hub.accounts.users import Users
from hub.authz import Role, Subject
from hub.core import Hub
from hub.errors import BadRequest, Conflict, Forbidden, NotFound
from hub.forwards import Forwards
from hub.links import Links, LinkView
from hub.store.engine import Store
from hub.store.enrolment import delete_node
from tests.hub.conftest import PASSWORD, ClientFor
from tests.hub.test_forwards import ADMIN
from tests.hub.test_reverse import BROKEN, connected, echoes, is_shut, policy_file
from tests.hub.world import VIEWER, World, make_world, until


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.link, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(hub.link, "LONGEST_RETRY_S", 0.05)


@pytest.fixture
async def world(store: Store) -> AsyncIterator[World]:
    async with make_world(store) as world:
        for name in ("web-1", "web-2"):
            await world.add_node(name)
        yield world


@pytest.fixture
def policy(tmp_path: Path) -> PolicyFile:
    return policy_file(tmp_path / "policy.json", default_policy())


@pytest.fixture
async def target() -> AsyncIterator[int]:
    """An echo server on loopback."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
            except ConnectionError:
                pass

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


class Made:
    """The service over a world, and a user `olga` who declares links."""

    def __init__(self, world: World, passwords: Passwords) -> None:
        changes = Changes()
        self.users = Users(world.store, changes, passwords)
        self.forwards = Forwards(world.audit, world.nodes.name_of)
        self.links = Links(
            world.store,
            self.users,
            world.registry,
            world.nodes,
            world.listeners,
            self.forwards,
            world.events,
            world.audit,
        )
        changes.subscribe(self.links.rights_changed)
        world.nodes.on_presence.append(self.links.node_changed)
        self.olga = VIEWER

    async def sign_up(self, role: Role = Role.OPERATOR) -> None:
        await self.users.create("olga", PASSWORD, role)
        user = await self.users.find("olga")
        self.olga = Subject("olga", role, user.id, "token", "t1", "192.0.2.1")

    async def link(self, port: int, to_port: int, name: str = "db") -> LinkView:
        return await self.links.create(self.olga, name, "web-1", port, "web-2", to_port)

    async def is_in(self, state: str, reason: str = "", name: str = "db") -> LinkView:
        """Wait until the link is in this state and its reason contains a text."""

        def there() -> bool:
            view = self.links.get(name)
            return view.state == state and reason in view.reason

        try:
            await until(there)
        except TimeoutError:
            raise AssertionError(self.links.get(name)) from None
        return self.links.get(name)


@asynccontextmanager
async def running(world: World, passwords: Passwords) -> AsyncIterator[Made]:
    made = Made(world, passwords)
    await made.links.load()
    task = world.group.create_task(made.links.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def made(world: World, passwords: Passwords) -> AsyncIterator[Made]:
    async with running(world, passwords) as made:
        await made.sign_up()
        yield made


async def kinds(world: World) -> list[str]:
    """The events of links so far, oldest first."""
    return [e.kind for e in await world.events.after(0, 500) if e.kind.startswith("link.")]


async def acts(world: World) -> list[tuple[str, str]]:
    entries = (await world.audit.entries(50)).entries
    return [(entry.act, entry.outcome) for entry in reversed(entries)]


async def test_a_link_carries_bytes_and_is_listed_as_a_forward(
    world: World, made: Made, policy: PolicyFile, target: int
) -> None:
    port = free_port()
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        await made.link(port, target)
        up = await made.is_in("up")
        async with connected(port) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            (view,) = made.forwards.list()
            writer.write_eof()
            assert await reader.read() == b""
        assert (view.kind, view.name, view.id) == ("link", "db", up.forward)
        assert (view.node, view.bind, view.listen_port) == ("web-1", "127.0.0.1", port)
        assert (view.to_node, view.host, view.port) == ("web-2", "127.0.0.1", target)
        assert (view.connections, view.sent_bytes, view.received_bytes) == (1, 4, 4)
        assert view.subject == "olga"
        await until_kinds(world, ["link.up"])


async def test_a_link_waits_for_its_nodes_and_comes_back_with_them(
    world: World, made: Made, policy: PolicyFile, target: int
) -> None:
    port = free_port()
    await made.link(port, target)
    await made.is_in("waiting", "web-1 is not connected")
    told: list[str] = []
    for _ in range(2):
        async with world.agent("web-1", policy):
            await made.is_in("waiting", "web-2 is not connected")
            async with connected(port) as (reader, _):
                with pytest.raises(BROKEN):
                    await reader.readexactly(1)
            async with world.agent("web-2", policy):
                await made.is_in("up")
                await echoes(port)
                await until_kinds(world, [*told, "link.up"])
            await made.is_in("waiting", "web-2 is not connected")
            told += ["link.up", "link.down"]
            await until_kinds(world, told)
        await made.is_in("waiting", "web-1 is not connected")
        await is_shut(port)


async def until_kinds(world: World, expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while await kinds(world) != expected:
            await asyncio.sleep(0)


async def test_a_taken_port_is_said_in_words_and_tried_again(
    world: World, made: Made, policy: PolicyFile, target: int
) -> None:
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            await made.link(port, target)
            await made.is_in("waiting", "web-1: can't listen on")
        await made.is_in("up")
        await echoes(port)


async def test_the_first_nodes_policy_refuses_the_port_until_it_is_changed(
    world: World, made: Made, policy: PolicyFile, target: int, tmp_path: Path
) -> None:
    port, strict = free_port(), Policy(verbs=["forward"], users=[], forward=["node"])
    first = policy_file(tmp_path / "first.json", strict)
    async with world.agent("web-1", first), world.agent("web-2", policy):
        await made.link(port, target)
        await made.is_in("refused", f'add "127.0.0.1:{port}" there')
        assert made.forwards.list() == []
        policy_file(tmp_path / "first.json", default_policy())
        await made.is_in("up")
        await echoes(port)
        assert [act for act, _ in await acts(world)].count("forward.open") == 1


async def test_the_second_nodes_policy_refuses_connections_until_it_is_changed(
    world: World, made: Made, policy: PolicyFile, target: int, tmp_path: Path
) -> None:
    port, strict = free_port(), Policy(verbs=["forward"], users=[], forward=["node:1"])
    second = policy_file(tmp_path / "second.json", strict)
    async with world.agent("web-1", policy), world.agent("web-2", second):
        await made.link(port, target)
        await made.is_in("up")
        async with connected(port) as (reader, _):
            with pytest.raises(BROKEN):
                await reader.readexactly(1)
        await made.is_in("refused", f"web-2: 127.0.0.1:{target} is not among the")
        assert ("forward.open", "denied") in await acts(world)
        policy_file(tmp_path / "second.json", default_policy())
        await echoes(port)
        await made.is_in("up")


async def test_a_target_that_does_not_answer_is_the_reason_of_a_link_that_is_up(
    world: World, made: Made, policy: PolicyFile
) -> None:
    port = free_port()
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        await made.link(port, free_port())
        await made.is_in("up")
        async with connected(port) as (reader, _):
            with pytest.raises(BROKEN):
                await reader.readexactly(1)
        await made.is_in("up", "Connection refused")


@pytest.mark.parametrize("how", ["demoted", "disabled", "removed", "replaced"])
async def test_who_loses_the_right_to_forward_loses_the_link_at_once(
    world: World, made: Made, policy: PolicyFile, target: int, how: str
) -> None:
    port = free_port()
    await made.users.create("anna", PASSWORD, Role.ADMIN)
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        await made.link(port, target)
        await made.is_in("up")
        async with connected(port) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            if how == "demoted":
                await made.users.change("olga", role=Role.VIEWER)
            elif how == "disabled":
                await made.users.change("olga", disabled=True)
            else:
                await made.users.remove("olga")
            with pytest.raises(BROKEN):
                await reader.readexactly(1)
        if how == "replaced":
            await made.sign_up(Role.ADMIN)
        await made.is_in("refused", "olga, who declared it")
        await is_shut(port)


async def test_a_disabled_link_closes_and_an_enabled_one_opens(
    world: World, made: Made, policy: PolicyFile, target: int
) -> None:
    port = free_port()
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        await made.link(port, target)
        await made.is_in("up")
        async with connected(port) as (reader, writer):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert not (await made.links.enable(made.olga, "db", False)).enabled
            with pytest.raises(BROKEN):
                await reader.readexactly(1)
        await made.is_in("disabled", "disabled by olga")
        await is_shut(port)
        await made.links.enable(made.olga, "db", True)
        await made.is_in("up")
        await echoes(port)
        await made.links.delete(made.olga, "db")
        await is_shut(port)
        assert made.links.list() == []
    expected = {"link.create", "link.disable", "link.enable", "link.delete"}
    assert expected <= {act for act, _ in await acts(world)}


async def test_a_links_forward_is_not_closed_by_itself(
    world: World, made: Made, policy: PolicyFile, target: int
) -> None:
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        await made.link(free_port(), target)
        view = await made.is_in("up")
        assert view.forward is not None
        with pytest.raises(Conflict, match="disable or delete the link"):
            await made.forwards.close(ADMIN, view.forward)


async def test_links_survive_a_restart_of_the_hub(
    world: World, passwords: Passwords, policy: PolicyFile, target: int
) -> None:
    port, other = free_port(), free_port()
    async with world.agent("web-1", policy), world.agent("web-2", policy):
        async with running(world, passwords) as before:
            await before.sign_up()
            await before.link(port, target)
            await before.link(other, target, "off")
            await before.links.enable(before.olga, "off", False)
            await before.is_in("up")
        await is_shut(port)
        async with running(world, passwords) as after:
            assert [view.name for view in after.links.list()] == ["db", "off"]
            await after.is_in("up")
            await after.is_in("disabled", name="off")
            await echoes(port)


async def test_links_of_a_removed_node_are_removed(world: World, made: Made) -> None:
    await made.link(4000, 5000)
    await world.store.write(lambda connection: delete_node(connection, "id-web-2"))
    made.links.node_removed("id-web-2")
    assert made.links.list() == []
    await made.links.load()
    assert made.links.list() == []


async def test_a_name_and_a_port_belong_to_one_link(made: Made) -> None:
    await made.link(4000, 5000)
    with pytest.raises(Conflict, match="a link 'db' already"):
        await made.link(4001, 5000)
    with pytest.raises(Conflict, match=r"'db' listens on 127\.0\.0\.1:4000"):
        await made.link(4000, 5001, "other")
    await made.link(4001, 5000, "other")


async def test_no_link_leads_back_to_itself(made: Made) -> None:
    create = made.links.create
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "::1"):
        with pytest.raises(Conflict, match="back to its own port"):
            await create(made.olga, "self", "web-1", 4000, "web-1", 4000, host=host)
    await create(made.olga, "one", "web-1", 4000, "web-2", 5000)
    await create(made.olga, "two", "web-2", 5000, "web-1", 6000)
    with pytest.raises(Conflict, match="back to its own port"):
        await create(made.olga, "three", "web-1", 6000, "web-1", 4000)
    await create(made.olga, "three", "web-1", 6000, "web-1", 4000, host="192.0.2.9")
    assert len(made.links.list()) == 3


async def test_the_number_of_links_is_bounded(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.links, "LINKS", 1)
    await made.link(4000, 5000)
    with pytest.raises(Conflict, match="1 links"):
        await made.link(4001, 5000, "other")


async def test_who_may_not_forward_may_not_touch_links(world: World, made: Made) -> None:
    with pytest.raises(Forbidden):
        await made.links.create(VIEWER, "db", "web-1", 4000, "web-2", 5000)
    await made.link(4000, 5000)
    with pytest.raises(Forbidden):
        await made.links.enable(VIEWER, "db", False)
    with pytest.raises(Forbidden):
        await made.links.delete(VIEWER, "db")
    denied = [act for act, outcome in await acts(world) if outcome == "denied"]
    assert denied == ["link.create", "link.disable", "link.delete"]


@pytest.mark.parametrize(
    ("name", "bind", "host"),
    [
        ("", "127.0.0.1", "db"),
        ("a/b", "127.0.0.1", "db"),
        ("db", "web-1", "db"),
        ("db", "127.0.0.1", "d b"),
        ("db", "127.0.0.1", "\x1b"),
    ],
)
async def test_names_and_addresses_that_are_none_are_refused(
    made: Made, name: str, bind: str, host: str
) -> None:
    with pytest.raises(BadRequest):
        await made.links.create(made.olga, name, "web-1", 1, "web-2", 2, bind=bind, host=host)
    with pytest.raises(NotFound):
        await made.links.create(made.olga, "db", "web-9", 1, "web-2", 2)


async def test_the_api_keeps_links(hub: Hub, client: ClientFor, world: World) -> None:
    await hub.nodes.load()
    api = await client(Role.OPERATOR)
    new = {"name": "db", "from_node": "web-1", "port": 4000, "to_node": "web-2", "to_port": 5000}
    made = await api.post("/api/v1/links", json=new)
    assert made.status_code == 201
    expected = new | {"bind": "127.0.0.1", "host": "127.0.0.1", "enabled": True}
    assert made.json().items() >= (expected | {"created_by": "operator"}).items()
    assert (await api.post("/api/v1/links", json=new)).status_code == 409
    bad = await api.post("/api/v1/links", json=new | {"name": "x", "port": 0})
    assert bad.status_code == 400
    listed = (await api.get("/api/v1/links", params={"limit": 1})).json()
    assert (listed["total"], [view["name"] for view in listed["items"]]) == (1, ["db"])
    changed = await api.patch("/api/v1/links/db", json={"enabled": False})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert (await api.delete("/api/v1/links/db")).status_code == 204
    assert (await api.get("/api/v1/links/db")).status_code == 404
