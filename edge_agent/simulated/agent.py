"""One simulated agent: an identity of its own, the real tunnel, and nothing behind it.

It dials, reports, measures and comes back by the rules of `edge_agent.run`; three tasks and one
TLS connection are all that it costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

from edge_agent.backoff import Backoff
from edge_agent.config import AgentConfig, load_config
from edge_agent.dial import DialFailed, dial
from edge_agent.processes import boot_id
from edge_agent.simulated import likeness
from edge_agent.simulated.orders import Tally
from edge_agent.state import StateDir
from protocol.aio import Channel, GoAwayCode, ProtocolError, Stream, Tunnel, TunnelClosed
from protocol.frames import Hello
from protocol.guard import LIMITS_OF_HUB
from protocol.messages import Exec, Message, Metrics, Open, Report
from protocol.record_types import (
    Accepted,
    Acknowledge,
    ExecFromHub,
    ExecFromNode,
    Exited,
    MetricsFromAgent,
    Output,
    Rate,
    Started,
)
from protocol.session import Side

VERSION = version("mooring")
READY_TIMEOUT_S = 15.0
OUTPUT_BYTES = 4096


class SimulatedAgent:
    """One of many in this process."""

    __slots__ = (
        "_backoff", "_config", "_dialling", "_hello", "_metrics_s", "_name", "_state", "_tally",
        "_tunnel", "_vitals",
    )  # fmt: skip

    def __init__(
        self, directory: Path, metrics_s: float, dialling: asyncio.Semaphore, tally: Tally
    ) -> None:
        """`dialling` bounds how many of the process dial at once.

        Raises:
            StateError: the directory holds no identity.
        """
        self._name = directory.name
        self._state = StateDir(directory)
        self._config: AgentConfig = load_config(self._state)
        self._metrics_s = metrics_s
        self._dialling = dialling
        self._tally = tally
        self._backoff = Backoff(random.random)
        self._hello = Hello(
            software=f"mooring/{VERSION}", boot_id=boot_id(), epoch=int(time.time() * 1000)
        )
        self._vitals = likeness.Vitals()
        self._tunnel: Tunnel | None = None

    async def stay_connected(self) -> None:
        """Dial, serve, wait, again, until cancelled."""
        for hub in cycle(self._config.hubs):
            await asyncio.sleep(await self._one_tunnel(hub))

    async def close(self) -> None:
        """Say goodbye to the hub."""
        if self._tunnel is not None:
            await self._tunnel.close(GoAwayCode.NORMAL, "the simulation ends")

    async def _one_tunnel(self, hub: str) -> float:
        """One attempt and, when it works, one tunnel's life; returns how long to wait then."""
        started = time.monotonic()
        tunnel = self._tunnel = Tunnel(
            Side.DIALLED,
            self._hello,
            self._answer,
            accepts=Exec,
            limits=LIMITS_OF_HUB,
            name=self._name,
            resume=b"",
        )
        try:
            await self._live(tunnel, hub)
        except DialFailed as error:
            self._tally.fail(str(error))
            return self._backoff.refused() if error.refused else self._backoff.lost(0)
        finally:
            self._tunnel = None
        return self._backoff.ended(time.monotonic() - started, tunnel.goaway)

    async def _live(self, tunnel: Tunnel, hub: str) -> None:
        failure: DialFailed | None = None
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(tunnel.run())
            try:
                await self._connect(tunnel, hub)
            except DialFailed as error:
                await tunnel.close()
                failure = error
            else:
                await self._serve(tunnel, running)
        if failure is not None:
            raise failure

    async def _connect(self, tunnel: Tunnel, hub: str) -> None:
        async with self._dialling:
            self._tally.dialling += 1
            try:
                await dial(tunnel, hub, self._config, self._state)
                async with asyncio.timeout(READY_TIMEOUT_S):
                    await tunnel.ready()
            except (TimeoutError, TunnelClosed) as error:
                raise DialFailed(f"{hub} ended the connection before its HELLO") from error
            finally:
                self._tally.dialling -= 1

    async def _serve(self, tunnel: Tunnel, running: asyncio.Task[TunnelClosed]) -> None:
        """Do the duties of a tunnel while it lives."""
        self._tally.handshakes += 1
        self._tally.connected += 1
        try:
            async with asyncio.TaskGroup() as duties:
                duty = duties.create_task(self._duties(tunnel))
                # The hub keeps the session as for every agent; there is nothing to go on with here.
                tunnel.abort(await tunnel.disconnected())
                await running
                duty.cancel()
        finally:
            self._tally.connected -= 1

    async def _duties(self, tunnel: Tunnel) -> None:
        """Report, then measure; a duty that the hub refuses ends the tunnel."""
        try:
            await self._report(tunnel)
            if self._metrics_s:
                await self._measure(tunnel)
        except TunnelClosed:
            return
        except ProtocolError as error:
            self._tally.fail(f"the hub refused: {error}")
            await tunnel.close()

    async def _report(self, tunnel: Tunnel) -> None:
        report = Report(facts=likeness.facts_of(self._name, VERSION))
        async with await tunnel.open(report) as stream:
            channel: Channel[Message, Accepted] = Channel(stream, Accepted)
            await channel.receive()

    async def _measure(self, tunnel: Tunnel) -> None:
        loop = asyncio.get_running_loop()
        async with await tunnel.open(Metrics()) as stream:
            channel: Channel[MetricsFromAgent, Rate] = Channel(stream, Rate)
            await channel.send(likeness.schema())
            interval_s, due = self._metrics_s, loop.time()
            while True:
                if loop.time() >= due:
                    await channel.send(self._vitals.sample())
                    due = loop.time() + interval_s
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        if (rate := await channel.receive()) is None:
                            return
                        interval_s = min(rate.interval_s, self._metrics_s)
                        due = min(due, loop.time() + interval_s)

    async def _answer(self, opened: Open, stream: Stream) -> None:
        """Pretend to have run a command: its output is its own words."""
        assert isinstance(opened, Exec)
        channel: Channel[ExecFromNode, ExecFromHub] = Channel(stream, ExecFromHub)
        output = (" ".join(opened.argv) + "\n").encode()[:OUTPUT_BYTES]
        await channel.send(Started(pid=1, started_at=time.time()))
        if rest := output[opened.stdout_offset :]:
            await channel.send(Output(stream=1, offset=len(output) - len(rest), data=rest))
        await channel.send(Exited(exit_code=0, stdout_bytes=len(output)))
        self._tally.commands += 1
        while not isinstance(await channel.receive(), Acknowledge | None):
            pass
