"""Lost connections as the hub sees them: who goes on, what shows meanwhile, what is given back."""

from __future__ import annotations

import asyncio
import gc
import secrets
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from certs.contexts import agent_context
from certs.keys import key_from_pem, make_request
from hub import client_tunnels
from hub.agent_tunnels import TUNNEL_PATH
from hub.authz import Role
from hub.client_tunnels import CLIENT_PATH
from hub.core import Hub
from hub.errors import NodeOffline
from protocol import guard
from protocol.aio import Stream, Tunnel, TunnelClosed, memory_pair
from protocol.aio import tunnel as tunnel_module
from protocol.aio.memory import join
from protocol.aio.websocket import ConnectRefused, connect_websocket
from protocol.frames import Hello
from protocol.guard import LIMITS_OF_HUB
from protocol.messages import AgentOpen, ClientForward, Forward, HubOpen
from protocol.replay import REPLAY_BUDGET
from protocol.session import Side
from protocol.windows import Budget
from tests.hub.conftest import ClientFor
from tests.hub.hostile import ADMIN, Port, echo, open_port
from tests.hub.world import until

FORWARD = Forward(host="localhost", port=7)


@pytest.fixture
async def port(hub: Hub, tmp_path: Path) -> AsyncIterator[Port]:
    async with asyncio.timeout(20), open_port(hub, tmp_path) as port:
        yield port


@dataclass
class Dialler:
    """A peer that dials, loses its connection and dials again, when the test says so."""

    url: str
    tls: ssl.SSLContext
    tasks: asyncio.TaskGroup
    headers: dict[str, str]
    hello: Hello
    tunnels: list[Tunnel] = field(default_factory=list)
    node_id: str = ""

    @property
    def tunnel(self) -> Tunnel:
        """The newest one."""
        return self.tunnels[-1]

    def fresh(self) -> Tunnel:
        return Tunnel(
            Side.DIALLED, self.hello, echo, accepts=HubOpen, limits=LIMITS_OF_HUB, resume=b""
        )

    async def dial(self, previous: Tunnel | None = None) -> Tunnel:
        """Dial, asking for `previous`; the tunnel that the hub goes on with runs from then on."""
        fresh = self.fresh()
        attached = await connect_websocket(
            fresh, self.url, self.tls, previous=previous, headers=self.headers
        )
        if attached is fresh:
            self.tasks.create_task(fresh.run())
            self.tunnels.append(fresh)
        assert await attached.greeted()
        return attached

    def cut(self) -> None:
        """Lose the connection; nobody says goodbye."""
        transport = self.tunnel._transport
        assert transport is not None
        transport.abort()


@asynccontextmanager
async def dialler(
    url: str,
    tls: ssl.SSLContext,
    *,
    headers: dict[str, str] | None = None,
    hello: Hello | None = None,
) -> AsyncIterator[Dialler]:
    async with asyncio.TaskGroup() as tasks:
        peer = Dialler(url, tls, tasks, headers or {}, hello or Hello(software="good"))
        await peer.dial()
        try:
            yield peer
        finally:
            for tunnel in peer.tunnels:
                await tunnel.close()


@asynccontextmanager
async def node(port: Port) -> AsyncIterator[Dialler]:
    """A node that echoes what is forwarded to it."""
    node_id, tls = await port.join()
    async with dialler(port.address + TUNNEL_PATH, tls) as peer:
        peer.node_id = node_id
        await until(lambda: port.hub.registry.is_online(node_id))
        yield peer


async def headers_of(hub: Hub, role: Role = Role.OPERATOR) -> dict[str, str]:
    user = await hub.accounts.users.find(role.value)
    new = await hub.accounts.tokens.create(user.id, user.name, "test", role)
    return {"Authorization": f"Bearer {new.secret}"}


async def echoes(stream: Stream) -> bool:
    """Whether 100 kB come back."""
    data, answer = secrets.token_bytes(100_000), b""
    await stream.write(data)
    while len(answer) < len(data):
        answer += await stream.read()
    return answer == data


class TestNodes:
    async def test_a_node_is_offline_at_once_and_its_streams_go_on(self, port: Port) -> None:
        registry, nodes = port.hub.registry, port.hub.nodes
        async with node(port) as peer:
            stream = await registry.open(peer.node_id, FORWARD)
            for _ in range(5):
                assert await echoes(stream)
                peer.cut()
                await until(lambda: nodes.get(peer.node_id).status == "offline")
                with pytest.raises(NodeOffline):
                    await registry.open(peer.node_id, FORWARD)
                assert await peer.dial(peer.tunnel) is peer.tunnel
                await until(lambda: nodes.get(peer.node_id).status == "online")
            assert await echoes(stream)

    async def test_a_task_for_a_node_that_is_away_is_skipped(
        self, port: Port, client: ClientFor
    ) -> None:
        api = await client(Role.OPERATOR)
        async with node(port) as peer:
            running = peer.tasks.create_task(port.hub.tasks.run())
            await port.hub.tasks.ready()
            peer.cut()
            await until(lambda: not port.hub.registry.is_online(peer.node_id))
            body = {"target": "all", "argv": ["true"]}
            made = (await api.post("/api/v1/tasks", json=body)).json()
            assert (await api.get(f"/api/v1/tasks/{made['id']}/stream")).status_code == 200
            (run,) = (await api.get(f"/api/v1/tasks/{made['id']}")).json()["runs"]
            running.cancel()
        assert run["state"] == "skipped"
        assert "offline" in run["reason"]

    async def test_after_a_minute_it_is_forgotten(
        self, port: Port, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tunnel_module, "RESUME_WITHIN_S", 0.01)
        async with node(port) as peer:
            stream = await port.hub.registry.open(peer.node_id, FORWARD)
            budget = port.hub.tunnels.budget
            peer.cut()
            with pytest.raises(TunnelClosed):
                await stream.read()
            await until(lambda: peer.node_id not in port.hub.registry._tunnels)
            assert budget.used == 0
            assert await peer.dial(peer.tunnel) is peer.tunnel
            await until(lambda: port.hub.registry.is_online(peer.node_id))

    async def test_a_name_that_is_unknown_or_another_nodes_begins_a_new_session(
        self, port: Port
    ) -> None:
        async with node(port) as good, node(port) as other:
            stream = await port.hub.registry.open(good.node_id, FORWARD)
            thief = other.tunnel
            assert await other.dial(good.tunnel) is not good.tunnel
            assert other.tunnel is not thief
            assert await echoes(stream), "the session of the name's owner was touched"
            good.cut()
            assert await other.dial(good.tunnel) is not good.tunnel
            assert await good.dial(good.tunnel) is good.tunnel
            assert await echoes(stream)

    async def test_a_revoked_node_can_not_go_on(self, port: Port) -> None:
        async with node(port) as peer:
            stream = await port.hub.registry.open(peer.node_id, FORWARD)
            peer.cut()
            await until(lambda: not port.hub.registry.is_online(peer.node_id))
            await port.hub.enrolment.revoke(ADMIN, peer.node_id, "lost")
            with pytest.raises(TunnelClosed):
                await stream.read()
            with pytest.raises(ConnectRefused, match="revoked"):
                await peer.dial(peer.tunnel)

    async def test_a_renewed_certificate_goes_on_with_the_session(self, port: Port) -> None:
        async with node(port) as peer:
            stream = await port.hub.registry.open(peer.node_id, FORWARD)
            certificate = port.scratch / "node-0.pem"
            key = port.scratch / "node-0.key"
            old = peer.tls
            identity = port.hub.authority.verify_node(
                ssl.PEM_cert_to_DER_cert(certificate.read_text()[: _end(certificate)]),
                port.hub.enrolment.clock(),
            )
            chain = await port.hub.enrolment.renew(
                identity, make_request(key_from_pem(key.read_bytes()))
            )
            certificate.write_bytes(chain)
            for tls in (agent_context(certificate, key, port.hub.authority.trust_pem), old):
                peer.cut()
                peer.tls = tls
                assert await peer.dial(peer.tunnel) is peer.tunnel
                await until(lambda: port.hub.registry.is_online(peer.node_id))
                assert await echoes(stream)

    async def test_a_newer_tunnel_ends_the_older_one_also_while_it_waits(self, port: Port) -> None:
        async with node(port) as peer:
            older = peer.tunnel
            stream = await port.hub.registry.open(peer.node_id, FORWARD)
            async with asyncio.timeout(1):
                await peer.dial()
                assert "newer" in str(await older.wait_closed())
            with pytest.raises(TunnelClosed):
                await stream.read()
            waiting = await port.hub.registry.open(peer.node_id, FORWARD)
            peer.cut()
            await until(lambda: not port.hub.registry.is_online(peer.node_id))
            await peer.dial()
            with pytest.raises(TunnelClosed, match="newer"):
                await waiting.read()

    async def test_two_machines_with_one_key_are_quarantined_however_they_come_back(
        self, port: Port
    ) -> None:
        sessions: dict[str, Tunnel | None] = {}
        async with node(port) as peer:
            for boot_id in ("here", "there", "here"):
                peer.hello = Hello(boot_id=boot_id, epoch=1)
                sessions[boot_id] = await peer.dial(sessions.get(boot_id))
                peer.cut()
                assert await peer.dial(peer.tunnel) is peer.tunnel, "that is no proof"
            peer.hello = Hello(boot_id="there", epoch=1)
            await peer.dial(sessions["there"])
            await until(lambda: port.hub.nodes.get(peer.node_id).status == "quarantined")
            with pytest.raises(ConnectRefused, match="quarantined"):
                await peer.dial(peer.tunnel)
        events = await port.hub.events.of_node(peer.node_id, 50)
        assert "node.quarantined" in [event.kind for event in events]


def _end(certificate: Path) -> int:
    """Where the first certificate of a chain ends."""
    mark = "-----END CERTIFICATE-----"
    return certificate.read_text().index(mark) + len(mark)


class TestClients:
    @asynccontextmanager
    async def client(self, port: Port) -> AsyncIterator[Dialler]:
        headers = await headers_of(port.hub)
        url = port.address + CLIENT_PATH
        async with dialler(url, port.client_tls(), headers=headers) as peer:
            yield peer

    async def test_a_forward_goes_on_for_whoever_has_name_and_token(self, port: Port) -> None:
        async with node(port) as one, self.client(port) as peer, self.client(port) as other:
            name = port.hub.nodes.get(one.node_id).name
            stream = await peer.tunnel.open(ClientForward(node=name, host="127.0.0.1", port=7))
            assert await echoes(stream)
            assert await other.dial(peer.tunnel) is not peer.tunnel
            assert await echoes(stream), "another token touched the session"
            for _ in range(5):
                peer.cut()
                assert await peer.dial(peer.tunnel) is peer.tunnel
                assert await echoes(stream)

    async def test_a_token_that_ends_ends_the_session_that_waits(self, port: Port) -> None:
        async with node(port) as one, self.client(port) as peer:
            name = port.hub.nodes.get(one.node_id).name
            stream = await peer.tunnel.open(ClientForward(node=name, host="127.0.0.1", port=7))
            assert await echoes(stream)
            lost = peer.tunnel
            peer.cut()
            await port.hub.accounts.users.change(Role.OPERATOR.value, disabled=True)
            assert await peer.dial(lost) is not lost
            goaway = await peer.tunnel.wait_closed()
            assert "token" in str(goaway)

    async def test_tunnels_that_wait_make_room_for_new_ones(
        self, port: Port, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(client_tunnels, "TUNNELS_PER_USER", 2)
        async with self.client(port) as peer:
            lost = peer.tunnel
            peer.cut()
            for _ in range(2):
                await peer.dial()
            assert await peer.dial(lost) is not lost


async def test_resuming_ten_thousand_times_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "MAX_PINGS", 10**6)  # each resumption begins with one
    async with memory_pair(echo, resume=True) as (agent, hub):
        stream = await hub.open(FORWARD)

        async def resume(times: int) -> None:
            for _ in range(times):
                await stream.write(b"x")
                join(agent, hub)
                await hub.greeted(), await agent.greeted()
                assert await stream.read() == b"x"
            gc.collect()

        await resume(100)
        tracemalloc.start()
        try:
            await resume(10)
            before = tracemalloc.get_traced_memory()[0]
            await resume(9_890)
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert grown < 100_000, f"{grown} bytes"


async def test_what_many_tunnels_that_wait_keep_stays_within_the_budget() -> None:
    budget = Budget(2 * REPLAY_BUDGET)
    async with asyncio.TaskGroup() as tasks:
        hubs, agents = [], []
        for _ in range(20):
            agent = Tunnel(
                Side.DIALLED, Hello(), drain, accepts=HubOpen, limits=LIMITS_OF_HUB, resume=b""
            )
            hub = Tunnel(
                Side.ACCEPTED,
                Hello(),
                accepts=AgentOpen,
                budget=budget,
                resume=secrets.token_bytes(32),
            )
            tasks.create_task(agent.run()), tasks.create_task(hub.run())
            connection = join(agent, hub)
            await hub.ready()
            for _ in range(20):
                stream = await hub.open(FORWARD)
                await stream.write(bytes(60_000))
            connection.abort()
            hubs.append(hub)
            agents.append(agent)
        assert all(not hub.is_connected and not hub.closed for hub in hubs)
        assert REPLAY_BUDGET < budget.used < budget.limit + 20 * 20 * 256
        for tunnel in (*hubs, *agents):
            await tunnel.close()
        assert budget.used == 0


async def drain(_: object, stream: Stream) -> None:
    while await stream.read():
        pass
