"""The agent: dial a hub, serve what it opens, come back when the tunnel ends, until told to stop.

Commands, transfers and their journals belong to the `Node`, which outlives every tunnel; a tunnel
owns only its streams and three duties: report facts, send metrics, renew the certificate.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import uvloop

from edge_agent.backoff import Backoff
from edge_agent.commands.runs import Runs
from edge_agent.config import AgentConfig, load_config
from edge_agent.dial import DialFailed, dial, own_fault
from edge_agent.facts import gather_facts
from edge_agent.handlers import Node, handler_of
from edge_agent.listen import Listeners
from edge_agent.metrics.sampler import Sampler
from edge_agent.metrics.stream import stream_metrics
from edge_agent.packages.room import PackageRoom
from edge_agent.policy import PolicyFile
from edge_agent.processes import boot_id
from edge_agent.renewal import keep_renewed
from edge_agent.state import StateDir
from protocol.aio import (
    Channel,
    GoAwayCode,
    ProtocolError,
    ResetCode,
    StreamReset,
    Tunnel,
    TunnelClosed,
)
from protocol.frames import Hello
from protocol.guard import LIMITS_OF_HUB
from protocol.messages import Facts, HubOpen, Message, Metrics, Report
from protocol.record_types import Accepted, MetricsFromAgent, Rate
from protocol.session import Side

logger = logging.getLogger(__name__)

VERSION = version("mooring")

REPORT_EVERY_S = 300.0
"""How often facts are gathered again; they are sent when they changed."""
ACCEPTED_WITHIN_S = 60.0
READY_TIMEOUT_S = 15.0


def run(state_dir: Path) -> int:
    """Run the agent until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StateError: the directory does not hold a joined agent, or another one runs on it.
    """
    state = StateDir(state_dir)
    config = load_config(state)
    with state.lock():
        uvloop.run(_main(state, config))
    return 0


async def _main(state: StateDir, config: AgentConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.collect()
    gc.freeze()  # collecting what the start left would stop every stream for 60 ms
    async with _node(state) as node:
        await Agent(state, config, node, stop).stay_connected()


@asynccontextmanager
async def _node(state: StateDir) -> AsyncIterator[Node]:
    policy = PolicyFile(state.policy)
    async with Runs(state.runs) as runs:
        yield Node(policy, runs, PackageRoom(state.root, policy), Listeners(policy))


class Agent:
    """One joined node."""

    def __init__(
        self, state: StateDir, config: AgentConfig, node: Node, stop: asyncio.Event
    ) -> None:
        """`stop` ends the agent; the tunnel says goodbye first."""
        self._state = state
        self._config = config
        self._node = node
        self._stop = stop
        self._sampler = Sampler()
        self._backoff = Backoff(random.random)
        self._hubs = cycle(config.hubs)
        self._connected_at = 0.0
        self._hello = Hello(
            software=f"mooring/{VERSION}",
            boot_id=boot_id(),
            epoch=int(time.time() * 1000),
        )

    async def stay_connected(self) -> None:
        """Dial, serve, wait, again; returns when `stop` is set."""
        tunnel: Tunnel | None = None
        while tunnel is not None or not self._stop.is_set():
            tunnel = await (self._connect() if tunnel is None else self._serve(tunnel))

    async def _connect(self, previous: Tunnel | None = None) -> Tunnel | None:
        """Dial until a hub answers; returns None when the agent stops first.

        The tunnel is `previous` when it lost its connection and the hub goes on with it.
        """
        while not self._stop.is_set():
            hub = next(self._hubs)
            match await self._attempt(hub, previous):
                case DialFailed() as error:
                    logger.warning("%s", error)
                    resuming = previous is not None and not previous.closed
                    await self._wait(
                        self._backoff.refused()
                        if error.refused
                        else self._backoff.lost(0, resuming=resuming)
                    )
                case Tunnel() as tunnel:
                    logger.info("connected to %s", hub)
                    self._connected_at = time.monotonic()
                    return tunnel
        return None

    async def _attempt(self, hub: str, previous: Tunnel | None) -> Tunnel | DialFailed | None:
        """Dial once; None: the agent stopped meanwhile."""

        async def dialled() -> Tunnel | DialFailed:
            try:
                return await self._dial(hub, previous)
            except DialFailed as error:  # kept out of the group's wrapping
                return error

        async with asyncio.TaskGroup() as tasks:
            dialling = tasks.create_task(dialled())
            stopping = tasks.create_task(self._stop.wait())
            await asyncio.wait((dialling, stopping), return_when=asyncio.FIRST_COMPLETED)
            dialling.cancel()
            stopping.cancel()
        return None if dialling.cancelled() else dialling.result()

    async def _dial(self, hub: str, previous: Tunnel | None) -> Tunnel:
        """One attempt: a tunnel whose peer has said HELLO."""
        fresh = Tunnel(
            Side.DIALLED,
            self._hello,
            handler_of(self._node, lambda message: fresh.open(message)),
            accepts=HubOpen,
            limits=LIMITS_OF_HUB,
            name="hub",
            resume=b"",
        )
        tunnel = await dial(fresh, hub, self._config, self._state, previous)
        if await tunnel.greeted():
            return tunnel
        reason = await tunnel.disconnected()
        fault = own_fault(self._config, self._state)
        ended = f"{hub} ended the connection before its HELLO: {reason}"
        raise DialFailed(fault or ended, refused=fault is not None)

    async def _serve(self, tunnel: Tunnel) -> Tunnel | None:
        """Do the duties of a tunnel while it lives, over as many connections as it takes.

        Returns the tunnel that the hub began instead of going on with this one, or None.
        """
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(tunnel.run())
            duties = [
                tasks.create_task(self._close_on_stop(tunnel)),
                tasks.create_task(self._duty(lambda: self._report(tunnel))),
                tasks.create_task(self._duty(lambda: self._send_metrics(tunnel))),
                tasks.create_task(self._duty(lambda: keep_renewed(tunnel, self._state))),
            ]
            successor = await self._keep_connected(tunnel)
            closed = await running
            for duty in duties:
                duty.cancel()
        logger.warning("the tunnel ended: %s", closed)
        if successor is None:
            await self._wait(self._backoff.ended(self._lived_s, tunnel.goaway))
        return successor

    async def _keep_connected(self, tunnel: Tunnel) -> Tunnel | None:
        """Dial again each time the tunnel lost its connection, until it is closed or succeeded."""
        while True:
            reason = await tunnel.disconnected()
            if tunnel.closed:
                return None
            logger.warning("the connection ended: %s; the streams wait for another", reason)
            await self._wait(self._backoff.lost(self._lived_s, resuming=True))
            successor = await self._connect(tunnel)
            if successor is not tunnel:
                await tunnel.close()
                return successor

    @property
    def _lived_s(self) -> float:
        return time.monotonic() - self._connected_at

    async def _wait(self, delay_s: float) -> None:
        """Wait, or less when the agent stops."""
        logger.info("next attempt in %.1f s", delay_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stop.wait()

    async def _close_on_stop(self, tunnel: Tunnel) -> None:
        await self._stop.wait()
        await tunnel.close(GoAwayCode.NORMAL, "the agent is stopping")

    async def _duty(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin a duty that failed again, later each time; the tunnel lives on meanwhile."""
        backoff = Backoff(random.random)
        while True:
            begun = time.monotonic()
            try:
                await work()
            except TunnelClosed:
                return
            except ProtocolError as error:
                logger.warning("the hub refused: %s", error)
            except Exception:
                logger.exception("a duty of the tunnel failed")
            else:
                return
            await asyncio.sleep(backoff.lost(time.monotonic() - begun))

    async def _report(self, tunnel: Tunnel) -> None:
        """Tell the hub what this node is, at once and when it changes."""
        last: Facts | None = None
        while True:
            verbs = self._node.policy.verbs()
            facts = await asyncio.to_thread(gather_facts, agent_version=VERSION, verbs=verbs)
            if facts != last:
                await self._send_report(tunnel, facts)
                last = facts
            await asyncio.sleep(REPORT_EVERY_S)

    async def _send_report(self, tunnel: Tunnel, facts: Facts) -> None:
        packages = await asyncio.to_thread(self._node.packages.installed)
        report = Report(
            facts=facts, packages=packages, runs=self._node.runs.unacknowledged()[:1000]
        )
        async with await tunnel.open(report) as stream:
            channel: Channel[Message, Accepted] = Channel(stream, Accepted)
            try:
                async with asyncio.timeout(ACCEPTED_WITHIN_S):
                    await channel.receive()
            except TimeoutError:
                raise StreamReset(ResetCode.TIMEOUT, "the report was not taken in time") from None

    async def _send_metrics(self, tunnel: Tunnel) -> None:
        async with await tunnel.open(Metrics()) as stream:
            channel: Channel[MetricsFromAgent, Rate] = Channel(stream, Rate)
            await stream_metrics(channel, self._sampler)
