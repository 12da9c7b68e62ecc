"""`mooring simulate`: thousands of agents against one's own hub, to see what it bears.

The processes that hold the agents are told what to do on their standard input and end with it; what
they tell each second is summed up here (`edge_agent.simulated`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from mooring.cli.failures import FAILED, USAGE, CommandError
from mooring.cli.output import clean, confirm, note, print_json
from mooring.cli.settings import settings_of
from mooring.cli.units import seconds
from mooring.cli.up import default_state_dir
from mooring.sdk import calls
from mooring.sdk.async_client import AsyncClient
from mooring.sdk.errors import MooringError, NotFound
from mooring.sdk.models import JoinToken

if TYPE_CHECKING:
    from edge_agent.simulated.orders import Orders, Tally

app = typer.Typer(add_completion=False)
AGENTS_PER_PROCESS = 2500
USES_PER_TOKEN = 1000  # the most that a hub gives one token
REMOVALS_AT_ONCE = 16
SPARE_FILES = 200  # what a process opens besides its agents' connections
STOP_TIMEOUT_S = 10.0
LINE_LIMIT = 64 * 1024


@app.command(
    "simulate",
    epilog="Example:  mooring simulate --agents 1000        then, elsewhere:  mooring exec"
    " 'sim-*' -- true",
)
def simulate(
    context: typer.Context,
    agents: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 100,
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="To hold them; else one for each 2,500.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Their identities; else simulated below mooring up's place.")
    ] = None,
    metrics: Annotated[
        float,
        typer.Option(parser=seconds, metavar="TIME", show_default="10s", help="Between samples."),
    ] = 10.0,
    no_metrics: Annotated[bool, typer.Option("--no-metrics", help="Send no samples.")] = False,
    name_prefix: Annotated[str, typer.Option(help="What their names begin with.")] = "sim-",
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove the nodes and identities that it made.")
    ] = False,
) -> int:
    """Simulate agents, to test the load that your own hub bears. Never use another's hub.

    Each joins with a key of its own and holds a real tunnel; commands are answered with success at
    once and never run. The nodes stay in the hub, offline, until --clean removes them; a second run
    needs no join. Needs an administrator's identity. Ctrl-C ends it.
    """
    directory = (state_dir or default_state_dir() / "simulated").absolute()
    if clean:
        confirm(context, f"remove all nodes of the identities in {directory}?")
        return asyncio.run(_clean([path.parent for path in directory.glob("*/agent.json")]))
    count = processes or min(os.cpu_count() or 1, -(-agents // AGENTS_PER_PROCESS))
    wanted = _Wanted(
        directory,
        [f"{name_prefix}{number:05d}" for number in range(1, agents + 1)],
        min(count, agents),
        0.0 if no_metrics else metrics,
        settings_of(context).json,
    )
    _check_files(agents // wanted.processes + 1)
    return asyncio.run(_until_stopped(wanted))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What to simulate."""

    directory: Path
    names: list[str]
    processes: int
    metrics_s: float
    json: bool


def _check_files(connections: int) -> None:
    from protocol.aio.descriptors import raise_descriptor_limit

    limit = raise_descriptor_limit()
    if connections + SPARE_FILES > limit:
        detail = f"a process would need {connections} connections, and may open {limit} files"
        raise CommandError(detail, "use more --processes, or raise it: ulimit -Hn 65536", USAGE)


async def _until_stopped(wanted: _Wanted) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        await _run(wanted, stop)
    except* MooringError as group:
        raise group.exceptions[0] from None
    return 0


async def _run(wanted: _Wanted, stop: asyncio.Event) -> None:
    from edge_agent.simulated.orders import Orders

    async with AsyncClient.connect() as operator:  # not for longer: an idle one delays a hub's stop
        url = operator.identity.url
        note(f"simulating against {url}: do this to your own hub only")
        strangers = set(await _strangers(wanted, operator))
        tokens = await _make_tokens(operator, len(strangers))
    shares = [wanted.names[first :: wanted.processes] for first in range(wanted.processes)]
    joins = _joins(shares, strangers, [token.token for token in tokens for _ in range(token.uses)])
    try:
        async with contextlib.AsyncExitStack() as running:
            fleets = []
            for names, join in zip(shares, joins, strict=True):
                orders = Orders(
                    hub=url,
                    state_dir=str(wanted.directory),
                    names=names,
                    joins=join,
                    metrics_s=wanted.metrics_s,
                )
                fleets.append(await running.enter_async_context(_fleet(orders)))
            await _watch(fleets, stop, wanted.json)
    finally:
        await _delete_tokens(tokens)


async def _strangers(wanted: _Wanted, operator: AsyncClient) -> list[str]:
    """The names that have no identity that this hub accepts."""
    from certs.private_files import make_private_directory

    make_private_directory(wanted.directory)
    mesh = (await operator.call(calls.about())).mesh_id
    now = time.time()
    known = {
        node.id
        async for node in operator.each(calls.nodes())
        if node.status not in ("revoked", "quarantined")
        and (node.certificate_expires_at or 0) > now + 3600
    }
    return [name for name in wanted.names if not _is_known(wanted.directory / name, mesh, known)]


def _is_known(directory: Path, mesh: str, known: set[str]) -> bool:
    from edge_agent.config import NotJoined, load_config
    from edge_agent.state import StateDir, StateError

    try:
        config = load_config(StateDir(directory))
    except NotJoined:
        return False
    except StateError as error:
        raise CommandError(str(error), f"remove {directory}", FAILED) from error
    if config.mesh_id != mesh:
        detail = f"{directory} belongs to another hub"
        raise CommandError(detail, "use another --state-dir, one per hub")
    return config.node_id in known


async def _make_tokens(operator: AsyncClient, joins: int) -> list[JoinToken]:
    """Make join tokens for so many nodes."""
    return [
        await operator.call(calls.create_join_token(min(USES_PER_TOKEN, joins - first)))
        for first in range(0, joins, USES_PER_TOKEN)
    ]


async def _delete_tokens(tokens: Sequence[JoinToken]) -> None:
    """Leave no use of a token behind; those that can't be deleted expire in an hour."""
    with contextlib.suppress(MooringError):
        async with AsyncClient.connect() as operator:
            for token in tokens:
                await operator.call(calls.delete_join_token(token.id))


def _joins(
    shares: Iterable[Sequence[str]], strangers: set[str], tokens: list[str]
) -> list[dict[str, list[str]]]:
    """Give each share's strangers their tokens."""
    left = iter(tokens)
    joins: list[dict[str, list[str]]] = []
    for names in shares:
        join: dict[str, list[str]] = {}
        for name in names:
            if name in strangers:
                join.setdefault(next(left), []).append(name)
        joins.append(join)
    return joins


@asynccontextmanager
async def _fleet(orders: Orders) -> AsyncIterator[Process]:
    """Run one process of agents; when the block is left it ends, at the latest after 10 s."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge_agent.simulated.fleet",
        stdin=PIPE,
        stdout=PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,  # Ctrl-C is ours
    )
    assert child.stdin is not None
    try:
        child.stdin.write(msgspec.json.encode(orders) + b"\n")
        await child.stdin.drain()
        yield child
    finally:
        child.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _watch(fleets: Sequence[Process], stop: asyncio.Event, as_json: bool) -> None:
    """Show how the fleets are doing until `stop`; one that ends by itself ends the rest."""
    from edge_agent.simulated.orders import Tally

    newest: dict[int, Tally] = {}

    async def read(number: int, child: Process) -> None:
        assert child.stdout is not None
        while line := await child.stdout.readline():
            newest[number] = msgspec.json.decode(line, type=Tally)
        if not stop.is_set():
            code = await child.wait()
            detail = f"a process of simulated agents ended with exit code {code}"
            raise CommandError(detail, "what it said is above", FAILED)

    async with asyncio.TaskGroup() as tasks:
        reading = [tasks.create_task(read(*pair)) for pair in enumerate(fleets)]
        reading.append(tasks.create_task(_show(newest, as_json)))
        await stop.wait()
        for task in reading:
            task.cancel()


async def _show(newest: dict[int, Tally], as_json: bool) -> None:
    from edge_agent.simulated.orders import Tally

    last, lines = Tally(), _Lines()
    while True:
        await asyncio.sleep(1.0)
        total = Tally()
        for tally in list(newest.values()):
            total.add(tally)
        rate = total.handshakes - last.handshakes
        if as_json:
            print_json({**msgspec.to_builtins(total), "handshakes_per_s": rate})
        else:
            lines.show(_line(total, rate))
        last = total


def _line(total: Tally, rate: int) -> str:
    text = f"{total.connected:,} of {total.agents:,} connected, {total.dialling:,} dialling, "
    text += f"{rate:,} handshakes/s, {total.commands:,} commands, {total.failures:,} failures"
    return f"{text} (last: {total.last_failure})" if total.last_failure else text


class _Lines:
    """One line that changes on a terminal, a line per change elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last = ""

    def show(self, line: str) -> None:
        """Show the line in place of the last one."""
        line = clean(line)
        if line == self._last:
            return
        self._last = line
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{line[:width]}", end="", flush=True)
        else:
            print(line, flush=True)


async def _clean(identities: Sequence[Path]) -> int:
    from edge_agent.config import load_config
    from edge_agent.state import StateDir, StateError

    left = asyncio.Semaphore(REMOVALS_AT_ONCE)
    async with AsyncClient.connect() as operator:

        async def remove(identity: Path) -> None:
            async with left:
                with contextlib.suppress(NotFound):
                    await operator.call(calls.remove_node(load_config(StateDir(identity)).node_id))
                await asyncio.to_thread(shutil.rmtree, identity)

        try:
            async with asyncio.TaskGroup() as tasks:
                for identity in identities:
                    tasks.create_task(remove(identity))
        except* MooringError as group:
            raise group.exceptions[0] from None
        except* StateError as group:
            raise CommandError(str(group.exceptions[0]), "remove it by hand", FAILED) from None
    note(f"{len(identities)} simulated nodes are removed")
    return 0
