"""Ports that the hub has the node open: bytes, refusals, bounds, and when they close."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

import edge_agent.listen
from edge_agent.listen import Listeners, handle_listen
from edge_agent.policy import Policy, PolicyFile
from protocol.aio import Channel, ResetCode, Stream, StreamReset, Tunnel, memory_pair
from protocol.messages import Arrival, Listen, Message, Open
from protocol.record_types import Listening
from tests.edge_agent.conftest import write_policy

Arrive = Callable[[Arrival, Stream], Awaitable[None]]
BROKEN = (ConnectionResetError, asyncio.IncompleteReadError)
ListenChannel = Channel[Message, Listening]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Production runs on uvloop, whose transports and readers differ in details."""
    return ("asyncio", {"use_uvloop": request.param})


async def echo(_arrival: Arrival, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)


@asynccontextmanager
async def node(policy: PolicyFile, arrive: Arrive = echo) -> AsyncIterator[Tunnel]:
    """The hub's end of a tunnel to a node that listens."""
    listeners = Listeners(policy)

    async def serve(opening: Open, stream: Stream) -> None:
        assert isinstance(opening, Listen)
        await handle_listen(opening, stream, listeners, lambda message: agent.open(message))

    async def take(message: Open, stream: Stream) -> None:
        assert isinstance(message, Arrival)
        await arrive(message, stream)

    async with memory_pair(serve, take) as (agent, hub):
        yield hub


async def listen(hub: Tunnel, name: str = "a", bind: str = "127.0.0.1", port: int = 0) -> Stream:
    return await hub.open(Listen(listener=name, bind=bind, port=port))


async def port_of(stream: Stream) -> int:
    channel: ListenChannel = Channel(stream, Listening)
    async with asyncio.timeout(5):
        answer = await channel.receive()
    assert answer is not None
    return answer.port


async def refusal(stream: Stream) -> StreamReset:
    with pytest.raises(StreamReset) as caught:
        async with asyncio.timeout(5):
            while await stream.read():
                pass
    return caught.value


async def until_refused(port: int) -> None:
    """Wait until nobody listens on the port."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0)


async def test_a_connection_arrives_with_its_listeners_name_and_who_connected(
    policy: PolicyFile,
) -> None:
    arrivals: list[Arrival] = []

    async def arrive(arrival: Arrival, stream: Stream) -> None:
        arrivals.append(arrival)
        await echo(arrival, stream)

    async with node(policy, arrive) as hub, asyncio.timeout(10):
        port = await port_of(await listen(hub, "chosen"))
        assert port >= 1024
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        local = writer.get_extra_info("sockname")
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"hello"
        writer.close()
    assert arrivals == [Arrival(listener="chosen", peer=f"127.0.0.1:{local[1]}")]


async def test_bulk_passes_both_ways_unchanged(policy: PolicyFile) -> None:
    data = bytes(range(256)) * 16_384

    async with node(policy) as hub, asyncio.timeout(30):
        port = await port_of(await listen(hub))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            assert await reader.read(-1) == data
        writer.close()


async def test_what_the_hub_refuses_is_closed_for_who_connected(policy: PolicyFile) -> None:
    async def refuse(_arrival: Arrival, stream: Stream) -> None:
        stream.reset(ResetCode.REFUSED, "no")

    async with node(policy, refuse) as hub, asyncio.timeout(10):
        port = await port_of(await listen(hub))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(BROKEN):
            await reader.readexactly(1)
        writer.close()


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_the_stream_is_the_ports_life_and_not_its_connections(
    policy: PolicyFile, how: str
) -> None:
    async with node(policy) as hub, asyncio.timeout(10):
        stream = await listen(hub)
        port = await port_of(stream)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        if how == "finish":
            stream.finish()
            assert await stream.read() == b""
        else:
            stream.reset(ResetCode.CANCELLED)
        await until_refused(port)
        writer.write(b"two")
        assert await reader.readexactly(3) == b"two"
        writer.close()


async def test_ports_and_connections_end_with_the_tunnel(policy: PolicyFile) -> None:
    async with asyncio.timeout(10):
        async with node(policy) as hub:
            port = await port_of(await listen(hub))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"one")
            assert await reader.readexactly(3) == b"one"
        await until_refused(port)
        with pytest.raises(BROKEN):
            await reader.readexactly(1)
        writer.close()


async def test_a_taken_port_is_told_in_words(policy: PolicyFile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with node(policy) as hub:
            reset = await refusal(await listen(hub, port=port))
    assert reset.code is ResetCode.UNREACHABLE
    assert reset.reason == f"can't listen on 127.0.0.1:{port}: Address already in use"


async def test_an_address_of_another_machine_is_told_in_words(tmp_path: Path) -> None:
    policy = Policy(verbs=["forward"], users=[], forward=[], listen=["*"])
    async with node(write_policy(tmp_path / "policy.json", policy)) as hub:
        reset = await refusal(await listen(hub, bind="192.0.2.1", port=8080))
    assert reset.code is ResetCode.UNREACHABLE
    assert "Cannot assign requested address" in reset.reason


@pytest.mark.parametrize(
    ("bind", "port"),
    [("0.0.0.0", 8080), ("127.0.0.1", 80), ("::", 8080), ("127.0.0.2", 8080), ("web-1", 8080)],
)
async def test_by_default_only_high_ports_of_loopback_are_opened(
    policy: PolicyFile, bind: str, port: int
) -> None:
    async with node(policy) as hub:
        reset = await refusal(await listen(hub, bind=bind, port=port))
    assert reset.code is ResetCode.REFUSED


async def test_a_refusal_says_which_line_would_allow_it(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"verbs": ["forward"], "users": [], "forward": ["node"]}')
    path.chmod(0o600)
    async with node(PolicyFile(path)) as hub:
        reset = await refusal(await listen(hub, port=8080))
    assert (reset.code, reset.reason) == (
        ResetCode.REFUSED,
        '127.0.0.1:8080 is not among the "listen" addresses of this node\'s policy.json; add '
        '"127.0.0.1:8080" there to allow it',
    )


async def test_a_port_that_the_system_picks_must_be_allowed_too(tmp_path: Path) -> None:
    policy = Policy(verbs=["forward"], users=[], forward=[], listen=["127.0.0.1:1-2"])
    async with node(write_policy(tmp_path / "policy.json", policy)) as hub:
        assert (await refusal(await listen(hub))).code is ResetCode.REFUSED


async def test_a_policy_that_is_tightened_closes_the_port_at_the_next_connection(
    tmp_path: Path, policy: PolicyFile
) -> None:
    async with node(policy) as hub, asyncio.timeout(10):
        stream = await listen(hub)
        port = await port_of(stream)
        write_policy(tmp_path / "policy.json", Policy(verbs=["forward"], users=[], forward=[]))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert (await refusal(stream)).code is ResetCode.REFUSED
        assert await reader.read() == b""
        writer.close()
        await until_refused(port)


async def test_a_node_has_a_bounded_number_of_listeners(
    policy: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_agent.listen, "LISTENERS", 2)
    async with node(policy) as hub, asyncio.timeout(10):
        first, second = await listen(hub, "1"), await listen(hub, "2")
        port = await port_of(first)
        await port_of(second)
        reset = await refusal(await listen(hub, "3"))
        assert (reset.code, "2 listeners" in reset.reason) == (ResetCode.OVERLOADED, True)
        first.finish()
        await until_refused(port)
        await port_of(await listen(hub, "4"))


@pytest.mark.parametrize("which", ["CONNECTIONS", "ALL_CONNECTIONS"])
async def test_connections_beyond_the_limit_wait_until_one_has_ended(
    policy: PolicyFile, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(edge_agent.listen, which, 2)
    started: asyncio.Queue[Stream] = asyncio.Queue()

    async def arrive(arrival: Arrival, stream: Stream) -> None:
        started.put_nowait(stream)
        await echo(arrival, stream)

    async with node(policy, arrive) as hub, asyncio.timeout(10):
        port = await port_of(await listen(hub))
        async with AsyncExitStack() as stack:
            ends = []
            for _ in range(3):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                stack.callback(writer.close)
                ends.append((reader, writer))
            await started.get()
            await started.get()
            assert started.empty()
            ends[0][1].write_eof()
            assert await ends[0][0].read() == b""
            await started.get()
            ends[2][1].write(b"in")
            assert await ends[2][0].readexactly(2) == b"in"


async def test_opens_at_the_hub_stay_below_its_rate(
    policy: PolicyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def note(delay: float) -> None:
        waits.append(delay)

    monkeypatch.setattr(edge_agent.listen.asyncio, "sleep", note)  # type: ignore[attr-defined]
    listeners = Listeners(policy)
    for _ in range(edge_agent.listen.OPENS_BURST + 40):
        await listeners.pace()
    assert len(waits) == pytest.approx(40, abs=3)
    assert waits[-1] == pytest.approx(1.0, abs=0.1)
