"""A process full of simulated agents: `python -m edge_agent.simulated.fleet`, orders on stdin.

Joins are few at a time, dials many, as after a hub's restart. It ends when its standard input does,
so that nothing is left behind whatever ends the command line.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvloop

from edge_agent.join import JoinFailed, join
from edge_agent.simulated import likeness
from edge_agent.simulated.agent import VERSION, SimulatedAgent
from edge_agent.simulated.orders import Orders, Tally
from edge_agent.state import StateDir, StateError
from protocol.aio.descriptors import raise_descriptor_limit

JOINS_AT_ONCE = 8
DIALS_AT_ONCE = 1000
TALLY_EVERY_S = 1.0


class Fleet:
    """The agents of one process."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._tally = Tally(agents=len(orders.names))
        self._dialling = asyncio.Semaphore(DIALS_AT_ONCE)
        self._agents: list[SimulatedAgent] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Join and dial with everybody, until `stop` is set."""
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._tell()),
                tasks.create_task(self._start(tasks, stop)),
            ]
            await stop.wait()
            async with asyncio.TaskGroup() as goodbyes:
                for agent in self._agents:
                    goodbyes.create_task(agent.close())
            for task in running:
                task.cancel()

    async def _start(self, owner: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        """Start those that know the hub, then join with the others; one ends when we stop."""
        strangers = {name for names in self._orders.joins.values() for name in names}
        async with asyncio.TaskGroup() as tasks:
            for name in self._orders.names:
                if name not in strangers:
                    self._launch(name, tasks)
            with ThreadPoolExecutor(JOINS_AT_ONCE) as pool:
                loop = asyncio.get_running_loop()
                slots = asyncio.Semaphore(JOINS_AT_ONCE)

                async def admit(name: str, token: str) -> None:
                    async with slots:
                        if stop.is_set():
                            return
                        failure = await loop.run_in_executor(pool, self._join, name, token)
                    if failure:
                        self._tally.fail(failure)
                    else:
                        self._tally.joined += 1
                        self._launch(name, tasks)

                async with asyncio.TaskGroup() as joining:
                    for token, names in self._orders.joins.items():
                        for name in names:
                            joining.create_task(admit(name, token))

    def _launch(self, name: str, tasks: asyncio.TaskGroup) -> None:
        try:
            agent = SimulatedAgent(
                Path(self._orders.state_dir) / name,
                self._orders.metrics_s,
                self._dialling,
                self._tally,
            )
        except StateError as error:
            self._tally.fail(str(error))
            return
        self._agents.append(agent)
        tasks.create_task(agent.stay_connected())

    def _join(self, name: str, token: str) -> str:
        """Join in a thread; returns why it failed, or nothing."""
        try:
            join(
                token,
                StateDir(Path(self._orders.state_dir) / name),
                hub_url=self._orders.hub,
                name=name,
                agent_version=VERSION,
                facts=likeness.facts_of(name, VERSION),
                force=True,
            )
        except (JoinFailed, StateError, OSError) as error:
            return f"{name} could not join: {error}"
        return ""

    async def _tell(self) -> None:
        while True:
            os.write(1, msgspec.json.encode(self._tally) + b"\n")
            await asyncio.sleep(TALLY_EVERY_S)


async def _main() -> None:
    reader = asyncio.StreamReader(limit=16 * 1024**2)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orders = msgspec.json.decode(await reader.readline(), type=Orders)
    stop = asyncio.Event()

    async def wait_for_end() -> None:
        await reader.read()
        stop.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(wait_for_end())
        await Fleet(orders).run(stop)


def main() -> None:
    """Carry out the orders that come on standard input."""
    logging.basicConfig(level=logging.CRITICAL)
    raise_descriptor_limit()
    gc.set_threshold(50_000, 50, 1000)
    uvloop.run(_main())


if __name__ == "__main__":
    main()
