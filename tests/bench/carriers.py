"""Why tunnels use picows: the same relay with `websockets` behind the same `Transport`.

Three processes, two TLS legs: a source dials the hub and pushes bulk on a stream, the hub splices
it to a stream of a sink that dialled too. Only the carrier differs: picows on aiofastnet's TLS (as
in the product), or the sans-io core of `websockets` on uvloop's TLS.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import Callable, Coroutine
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import cast

import aiofastnet
import uvloop
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response as HttpResponse
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from hub.splice import Traffic, splice
from protocol.aio import Stream, Tunnel
from protocol.aio.websocket import accept_websocket, connect_websocket
from protocol.errors import ProtocolError
from protocol.frames import Bytes, Hello
from protocol.messages import ClientForward, ClientOpen, Forward, HubOpen, Open
from protocol.session import Side
from tests.bench.measure import GIB, MIB, Rounds, cpu_s, latency
from tests.bench.programs import HOST, free_port
from tests.bench.relay import make_certificate
from tests.bench.report import Result, Table, number, ranges
from tests.bench.stage import Stages
from tests.bench.targets import BLOCK, FORK
from tests.bench.traffic import WARM_UP_S
from tests.bench.tunnels import OURS

PICOWS, WEBSOCKETS = "picows", "websockets"
ROUNDS = "carriers"
BULK, ECHO = 1, 2  # ports, which tell the sink what to do
ECHOES = 300
START_S = 0.5
ECHO_LIMIT_S = 20.0


class WebsocketsTransport(asyncio.Protocol):
    """A `Transport` over the sans-io core of `websockets`."""

    def __init__(
        self, core: ClientProtocol | ServerProtocol, tunnel_of: Callable[[str], Tunnel]
    ) -> None:
        self._core = core
        self._tunnel_of = tunnel_of
        self._tunnel: Tunnel | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lower = cast(asyncio.Transport, transport)
        self._lower.set_write_buffer_limits(high=64 * 1024 - 1, low=16 * 1024)
        if isinstance(self._core, ClientProtocol):
            self._core.send_request(self._core.connect())
            self._flush()

    def data_received(self, data: bytes) -> None:
        self._core.receive_data(data)
        for event in self._core.events_received():
            match event:
                case HttpRequest() if isinstance(self._core, ServerProtocol):
                    self._core.send_response(self._core.accept(event))
                    self._flush()
                    self._attach(event.path)
                case HttpResponse():
                    self._attach("")
                case Frame(opcode=Opcode.BINARY) if self._tunnel is not None:
                    self._tunnel.received(event.data)

    def _attach(self, path: str) -> None:
        self._tunnel = self._tunnel_of(path)
        self._tunnel.attach(self)

    def send(self, message: bytes | bytearray) -> None:
        self._core.send_binary(message)
        self._flush()

    def _flush(self) -> None:
        for data in self._core.data_to_send():
            self._lower.write(data)

    def buffered(self) -> int:
        return self._lower.get_write_buffer_size()

    def resume_writing(self) -> None:
        if self._tunnel is not None:
            self._tunnel.writable()

    def close(self) -> None:
        self._lower.close()

    def abort(self) -> None:
        self._lower.abort()

    def connection_lost(self, _: Exception | None) -> None:
        if self._tunnel is not None:
            self._tunnel.lost(self)


async def dial(carrier: str, tunnel: Tunnel, port: int, path: str, certificate: Path) -> None:
    """Attach `tunnel` to a connection to the hub."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    url = f"wss://{HOST}:{port}/{path}"
    if carrier == PICOWS:
        await connect_websocket(tunnel, url, context)
    else:
        await asyncio.get_running_loop().create_connection(
            lambda: WebsocketsTransport(ClientProtocol(parse_uri(url)), lambda _: tunnel),
            HOST,
            port,
            ssl=context,
        )


async def hub(carrier: str, port: int, certificate: Path, key: Path) -> None:
    """Accept the sink at /sink and the source at /source; splice what the source opens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    loop, hello = asyncio.get_running_loop(), Hello(software="hub")
    sink = Tunnel(Side.ACCEPTED, hello)

    async def serve(message: Open, stream: Stream) -> None:
        assert isinstance(message, ClientForward)
        far = await sink.open(Forward(host=message.host, port=message.port))
        await splice(stream, far, Traffic())

    source = Tunnel(Side.ACCEPTED, hello, serve, accepts=ClientOpen)
    by_path = {"/sink": sink, "/source": source}
    if carrier == PICOWS:
        await aiofastnet.create_server(
            loop,
            lambda: accept_websocket(lambda request: by_path[request.path]),
            HOST,
            port,
            ssl=context,
        )
    else:
        await loop.create_server(
            lambda: WebsocketsTransport(ServerProtocol(), by_path.__getitem__),
            HOST,
            port,
            ssl=context,
        )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sink.run())
        tasks.create_task(source.run())


class Counter:
    """Counts a piped stream's bytes and gives their credit back at once (a `Sink`)."""

    def __init__(self, stream: Stream, count: Synchronized[int]) -> None:
        self._stream = stream
        self._count = count

    def received(self, data: Bytes) -> None:
        self._count.value += len(data)
        self._stream.consumed(len(data))

    def finished(self) -> None: ...

    def drained(self, pending: int) -> None: ...

    def failed(self, error: ProtocolError) -> None: ...


async def sink(carrier: str, port: int, certificate: Path, count: Synchronized[int]) -> None:
    """Count bulk, echo the rest."""

    async def serve(message: Open, stream: Stream) -> None:
        assert isinstance(message, Forward)
        if message.port == BULK:
            stream.pipe(Counter(stream, count))
            await asyncio.Event().wait()
        while data := await stream.read():
            await stream.write(data)

    tunnel = Tunnel(Side.DIALLED, Hello(software="sink"), serve, accepts=HubOpen)
    await dial(carrier, tunnel, port, "sink", certificate)
    await tunnel.run()


async def source(
    carrier: str, port: int, certificate: Path, go: Synchronized[int], echo_us: Synchronized[int]
) -> None:
    """Measure idle echoes, then push bulk until the process is ended."""
    tunnel = Tunnel(Side.DIALLED, Hello(software="source"))
    await dial(carrier, tunnel, port, "source", certificate)
    await tunnel.ready()
    echo = await tunnel.open(ClientForward(node="n", host=HOST, port=ECHO))
    samples = []
    for _ in range(ECHOES):
        started = time.perf_counter()
        await echo.write(bytes(64))
        await echo.read()
        samples.append(time.perf_counter() - started)
    echo_us.value = int(latency(samples).p50 * 1000)
    go.value = 1
    bulk = await tunnel.open(ClientForward(node="n", host=HOST, port=BULK))
    block = bytes(BLOCK)
    while True:
        await bulk.write(block)


def run(stages: Stages) -> Result:
    """Measure both in turn, round by round."""
    values, options = Rounds(), stages.options
    with stages.up(meshcentral=False) as stage:
        certificate, key = make_certificate(stage.scratch)

        def measure(name: str, carrier: str) -> None:
            values.add(name, **_measure(carrier, certificate, key, options.seconds))

        contestants = {f"{OURS} on {carrier}": carrier for carrier in (PICOWS, WEBSOCKETS)}
        for number_of_round in values.each(options.rounds):
            stage.measure(f"carriers round {number_of_round}", contestants, measure)
    return Result.of([_table(values)], **{ROUNDS: values})


def _measure(carrier: str, certificate: Path, key: Path, seconds: float) -> dict[str, float]:
    port = free_port()
    count, go, echo_us = FORK.Value("Q", 0), FORK.Value("i", 0), FORK.Value("Q", 0)
    programs: dict[str, BaseProcess] = {}

    def start(work: Callable[..., Coroutine[None, None, None]], *arguments: object) -> None:
        def run() -> None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the bench's raises
            uvloop.run(work(carrier, port, certificate, *arguments))

        process = FORK.Process(target=run, daemon=True)
        process.start()
        programs[work.__name__] = process
        time.sleep(START_S)

    try:
        start(hub, key)
        start(sink, count)
        start(source, go, echo_us)
        deadline = time.monotonic() + ECHO_LIMIT_S
        while not go.value:
            if time.monotonic() > deadline:
                raise TimeoutError("no echo")
            time.sleep(0.05)
        time.sleep(WARM_UP_S)
        pids = {end: cast(int, process.pid) for end, process in programs.items()}
        before = {end: cpu_s([pid]) for end, pid in pids.items()}
        size, started = count.value, time.perf_counter()
        time.sleep(seconds)
        took_s = time.perf_counter() - started
        if not (size := count.value - size):
            raise ConnectionError("no bytes came through")
        used = {f"{end}_cpu": cpu_s([pid]) - before[end] for end, pid in pids.items()}
    finally:
        for process in reversed(programs.values()):
            process.terminate()
            process.join()
    metrics = {metric: spent_s / (size / GIB) for metric, spent_s in used.items()}
    return metrics | {"mib_s": size / took_s / MIB, "idle_p50": echo_us.value / 1000}


def _table(values: Rounds) -> Table:
    first = values.peers[0] if values.peers else ""
    rows = [
        [
            peer,
            *(number(values.median(peer, f"{end.__name__}_cpu")) for end in (hub, sink, source)),
            ranges([values.spread(peer, "hub_cpu", first)]),
            number(values.median(peer, "mib_s"), 0),
            ranges([values.spread(peer, "mib_s", first)]),
            number(values.median(peer, "idle_p50")),
        ]
        for peer in values.peers
    ]
    columns = [
        "",
        "hub CPU-s/GiB",
        "sink",
        "source",
        "hub's, times the first",
        "MiB/s",
        "times the first",
        "idle echo p50 ms",
    ]
    return Table("Carriers of a tunnel, two TLS legs", columns, rows)
