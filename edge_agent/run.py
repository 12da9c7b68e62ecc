"""The agent: dial a hub, serve what it opens, come back when the tunnel ends, until told to stop.

Commands, transfers and their journals belong to the `Node`, which outlives every tunnel; a tunnel
owns only its streams and three duties: report facts, send metrics, renew the certificate.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
from edge_agent.metrics.sampler import Sampler
from edge_agent.metrics.stream import stream_metrics
from edge_agent.packages.room import PackageRoom
from edge_agent.policy import PolicyFile
from edge_agent.processes import boot_id
from edge_agent.renewal import keep_renewed
from edge_agent.state import StateDir
from protocol.aio import Channel, GoAwayCode, ProtocolError, Tunnel, TunnelClosed
from protocol.frames import Hello
from protocol.guard import LIMITS_OF_HUB
from protocol.messages import (
    Accepted,
    Facts,
    HubOpen,
    Message,
    Metrics,
    MetricsFromAgent,
    Rate,
    Report,
)
from protocol.session import Side

logger = logging.getLogger(__name__)

VERSION = version("mooring")

REPORT_EVERY_S = 300.0
"""How often facts are gathered again; they are sent when they changed."""
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
    async with _node(state) as node:
        await Agent(state, config, node, stop).stay_connected()


@asynccontextmanager
async def _node(state: StateDir) -> AsyncIterator[Node]:
    policy = PolicyFile(state.policy)
    async with Runs(state.runs) as runs:
        yield Node(policy, runs, PackageRoom(state.root, policy))


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
        self._hello = Hello(
            software=f"mooring/{VERSION}",
            boot_id=boot_id(),
            epoch=int(time.time() * 1000),
        )

    async def stay_connected(self) -> None:
        """Dial, serve, wait, again; returns when `stop` is set."""
        for hub in cycle(self._config.hubs):
            delay = await self._one_tunnel(hub)
            if self._stop.is_set():
                return
            logger.info("next attempt in %.1f s", delay)
            try:
                async with asyncio.timeout(delay):
                    await self._stop.wait()
            except TimeoutError:
                continue
            return

    async def _one_tunnel(self, hub: str) -> float:
        """One attempt and, when it works, one tunnel's life; returns how long to wait then."""
        started = time.monotonic()
        tunnel = Tunnel(
            Side.DIALLED,
            self._hello,
            handler_of(self._node),
            accepts=HubOpen,
            limits=LIMITS_OF_HUB,
            name="hub",
        )
        try:
            closed = await self._live(tunnel, hub)
        except DialFailed as error:
            logger.warning("%s", error)
            return self._backoff.refused() if error.refused else self._backoff.lost(0)
        lived = time.monotonic() - started
        logger.warning("the tunnel to %s ended after %.0f s: %s", hub, lived, closed)
        return self._backoff.ended(lived, tunnel.goaway)

    async def _live(self, tunnel: Tunnel, hub: str) -> TunnelClosed:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(tunnel.run())
            try:
                await dial(tunnel, hub, self._config, self._state)
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await tunnel.ready()
            except DialFailed as error:
                await tunnel.close()
                failure = error
            except (TimeoutError, TunnelClosed) as error:
                await tunnel.close()
                fault = own_fault(self._config, self._state)
                ended = f"{hub} ended the connection before its HELLO: {error}"
                failure = DialFailed(fault or ended, refused=fault is not None)
            else:
                logger.info("connected to %s", hub)
                return await self._serve(tunnel, running)
        raise failure

    async def _serve(self, tunnel: Tunnel, running: asyncio.Task[TunnelClosed]) -> TunnelClosed:
        """Do the duties of a tunnel while it lives."""
        async with asyncio.TaskGroup() as duties:
            tasks = [
                duties.create_task(self._close_on_stop(tunnel)),
                duties.create_task(self._duty(lambda: self._report(tunnel))),
                duties.create_task(self._duty(lambda: self._send_metrics(tunnel))),
                duties.create_task(self._duty(lambda: keep_renewed(tunnel, self._state))),
            ]
            closed = await running
            for task in tasks:
                task.cancel()
        return closed

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
            await channel.receive()

    async def _send_metrics(self, tunnel: Tunnel) -> None:
        async with await tunnel.open(Metrics()) as stream:
            channel: Channel[MetricsFromAgent, Rate] = Channel(stream, Rate)
            await stream_metrics(channel, self._sampler)
