"""`mooring up`: a hub and an agent on this machine, to try everything out or to begin for real.

The rule it guards: both children end with this process, whatever ends it, and a child that ends by
itself ends the rest. The hub keeps its state in the directory, the agent in `agent` below it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shlex
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from mooring.cli.failures import FAILED, CommandError
from mooring.sdk import calls, identity
from mooring.sdk.async_client import AsyncClient
from mooring.sdk.errors import NotFound
from mooring.sdk.identity import Identity

app = typer.Typer(add_completion=False)
READY_TIMEOUT_S = 60.0  # the first start makes keys and tables
ONLINE_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 4.0  # each child; both together within 10 s
PR_SET_PDEATHSIG = 1  # prctl(2)


def default_state_dir() -> Path:
    """Where state goes when nobody says: XDG's place."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "mooring"


@app.command("up", epilog="Example:  mooring up --port 9443")
def up(
    state_dir: Annotated[
        Path | None, typer.Option(help="Where to keep everything; else ~/.local/state/mooring.")
    ] = None,
    bind: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: the system picks one.")] = 8443,
    no_agent: Annotated[bool, typer.Option("--no-agent", help="Only the hub.")] = False,
) -> int:
    """Start a hub, and an agent on this machine; Ctrl-C stops both.

    Prints the address, where the administrator's one-time password is, and ready on a line of its
    own. Source operator.env in the state directory to use the other commands.
    """
    directory = (state_dir or default_state_dir()).absolute()
    with _locked(directory):
        return asyncio.run(_until_stopped(directory, bind, port, with_agent=not no_agent))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Make the directory and hold it for this process."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (directory / "up.lock").open("a+")
    except OSError as error:
        advice = "choose another with --state-dir"
        raise CommandError(
            f"{directory} can't be used: {error.strerror}", advice, FAILED
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            detail = f"mooring up runs already on {directory} (process {file.read(20).strip()})"
            raise CommandError(
                detail, "use it, stop it, or choose another --state-dir", FAILED
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


async def _until_stopped(directory: Path, bind: str, port: int, *, with_agent: bool) -> int:
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None

    def stop() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, lambda: None)  # once is enough
        main.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await _run(directory, bind, port, with_agent=with_agent)
    return 0


async def _run(directory: Path, bind: str, port: int, *, with_agent: bool) -> None:
    place = ("--state-dir", str(directory), "--bind", bind, "--port", str(port))
    async with AsyncExitStack() as running:
        hub = await running.enter_async_context(_child("hub", "serve", *place, read=True))
        await _pass_on_until_ready(hub)
        async with AsyncClient(read_operator(directory)) as operator:
            children, node = {"hub": hub}, ""
            if with_agent:
                state = directory / "agent"
                node = await _join(state, operator)
                start = _child("agent", "run", "--state-dir", str(state))
                children["agent"] = await running.enter_async_context(start)
            try:
                async with asyncio.TaskGroup() as tasks:
                    for name, child in children.items():
                        tasks.create_task(_watch(name, child))
                    await _online(operator, node)
                    _announce(directory, node)
            except ExceptionGroup as group:
                raise group.exceptions[0] from group


@asynccontextmanager
async def _child(
    *words: str, read: bool = False, token: str | None = None
) -> AsyncIterator[Process]:
    """Run one of our own commands; when the block is left it ends, at the latest after 4 s."""
    libc = ctypes.CDLL(None)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mooring.cli.main",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if read else None,
        env=os.environ if token is None else {**os.environ, "MOORING_JOIN_TOKEN": token},
        start_new_session=True,  # Ctrl-C is ours; we pass it on
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()


async def _pass_on_until_ready(hub: Process) -> None:
    """Print what the hub says up to its `ready`, which comes last."""
    assert hub.stdout is not None
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            while line := await hub.stdout.readline():
                if line == b"ready\n":
                    return
                print(line.decode("utf-8", "replace"), end="", flush=True)
            code = await hub.wait()
    except TimeoutError:
        detail = f"the hub was not ready within {READY_TIMEOUT_S:.0f} s"
        raise CommandError(detail, "its log above says what it does", FAILED) from None
    raise CommandError(f"the hub ended with exit code {code}", "see above", FAILED)


async def _watch(name: str, child: Process) -> NoReturn:
    code = await child.wait()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise CommandError(f"the {name} ended by itself ({how})", "its log above says why", FAILED)


def read_operator(directory: Path) -> Identity:
    """Read the `operator.env` that a hub left in its state directory.

    Raises:
        CommandError: there is none.
        NoIdentity: it can't be used.
    """
    path = directory / "operator.env"
    try:
        words = shlex.split(path.read_text())
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{path} can't be read: {error}", "start the hub again", FAILED
        ) from error
    return identity.load(dict(word.split("=", 1) for word in words if "=" in word))


async def _join(state: Path, operator: AsyncClient) -> str:
    """Make the agent a node of this hub unless it is one; returns the node's name."""
    from edge_agent.config import load_config, save_config
    from edge_agent.state import StateDir, StateError

    url = operator.identity.url
    about = await operator.call(calls.about())
    try:
        config = load_config(StateDir(state))
        if config.mesh_id == about.mesh_id:
            node = await operator.call(calls.node(config.node_id))
            if url not in config.hubs:  # the hub was given another address or port
                hubs = [url, *config.hubs][:16]
                save_config(StateDir(state), msgspec.structs.replace(config, hubs=hubs))
            return node.name
    except (StateError, NotFound):
        pass  # not joined, damaged, or removed from the hub: join anew
    made = await operator.call(calls.create_join_token())
    place = ("--hub", url, "--state-dir", str(state), "--force")
    async with _child("agent", "join", "--json", *place, read=True, token=made.token) as joining:
        if code := await joining.wait():
            detail = f"the agent could not join (exit code {code})"
            raise CommandError(detail, "what it said is above", FAILED)
    return (await operator.call(calls.node(load_config(StateDir(state)).node_id))).name


async def _online(operator: AsyncClient, node: str) -> None:
    """Wait until the hub has the node's tunnel; no node, no wait."""
    if not node:
        return
    try:
        async with asyncio.timeout(ONLINE_TIMEOUT_S):
            while (await operator.call(calls.node(node))).status != "online":  # noqa: ASYNC110
                await asyncio.sleep(0.1)  # it is another process that we wait for
    except TimeoutError:
        detail = f"the agent was not connected within {ONLINE_TIMEOUT_S:.0f} s"
        raise CommandError(detail, "its log above says why", FAILED) from None


def _announce(directory: Path, node: str) -> None:
    lines = [f"node     {node}, this machine"] if node else []
    password = directory / "admin-password"
    if password.exists():
        lines.append(f"admin    signs in with the one-time password in {password}")
    lines += [f"CLI      . {shlex.quote(str(directory / 'operator.env'))}", "ready"]
    print("\n".join(lines), flush=True)
