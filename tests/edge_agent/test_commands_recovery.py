"""An agent is killed with kill -9 and another one takes its journal over."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.commands.journal import Request, RunFiles
from edge_agent.commands.starts import Starts
from edge_agent.processes import boot_id
from edge_agent.users import find_account
from protocol.messages import Exec
from protocol.record_types import Cancel, Exited, Output, Started
from tests.edge_agent.conftest import HubEnd, bytes_of, exited, open_exec, records_until_end

AGENT = """
import asyncio, sys
from pathlib import Path
from edge_agent.commands.runs import Runs
from edge_agent.users import find_account
from protocol.messages import Exec

async def main():
    async with Runs(Path(sys.argv[1])) as runs:
        opening = Exec(run="r1", argv=["sh", "-c", sys.argv[2]], timeout_s=float(sys.argv[3]))
        run = runs.submit(opening, await find_account(None), None)
        while run.process is None:
            await run.changes.next().wait()
        print(run.process.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def go(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "go")
    return tmp_path / "go"


@pytest.fixture
def killed_agent(tmp_path: Path, go: Path) -> Iterator[int]:
    """Starts a command that waits for `go` under an agent, kills the agent, gives the pid."""
    script = f"echo before; read x <{go}; echo after; exit 7"
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path / "runs"), script, "60"],
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    pid = int(agent.stdout.readline())
    agent.kill()
    agent.wait()
    agent.stdout.close()
    yield pid
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


async def test_a_command_outlives_its_agent_and_is_found_again(
    exec_hub: HubEnd, killed_agent: int, go: Path
) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["never"]))
        started = await channel.receive()
        assert isinstance(started, Started)
        assert started.pid == killed_agent
        before = await channel.receive()
        assert isinstance(before, Output)
        await asyncio.to_thread(go.write_text, "\n")
        records = [before, *await records_until_end(channel)]
    assert bytes_of(records, 1) == b"before\nafter\n"
    assert exited(records) == Exited(exit_code=7, stdout_bytes=13)


async def test_a_command_that_ended_meanwhile_has_its_result(
    exec_hub: HubEnd, killed_agent: int, go: Path
) -> None:
    pidfd = os.pidfd_open(killed_agent)
    await asyncio.to_thread(go.write_text, "\n")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, ended.set)
    await ended.wait()
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, Exec(run="r1", argv=["never"])))
    assert bytes_of(records, 1) == b"before\nafter\n"
    assert exited(records).exit_code == 7


async def test_cancel_reaches_a_command_that_was_taken_over(
    exec_hub: HubEnd, killed_agent: int
) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["never"]))
        await channel.receive()
        await channel.send(Cancel())
        assert exited(await records_until_end(channel)).reason == "cancelled"
    assert not Path(f"/proc/{killed_agent}/exe").exists()


async def test_the_remaining_time_goes_on(exec_hub: HubEnd, tmp_path: Path, go: Path) -> None:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path / "runs"), f"read x <{go}", "0.5"],
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    agent.stdout.readline()
    agent.kill()
    agent.wait()
    agent.stdout.close()
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, Exec(run="r1", argv=["never"])))
    assert exited(records).reason == "timeout"


async def leave_behind(tmp_path: Path, *, boot: str, started: bool) -> RunFiles:
    """A journal as an agent leaves it that died around the start."""
    (tmp_path / "runs").mkdir()
    files = RunFiles(tmp_path / "runs" / "r1")
    files.create(Request(Exec(run="r1", argv=["true"]), boot, 1.0), None, await find_account(None))
    starts = Starts(tmp_path / "runs" / "starts")
    if started:
        starts.add("r1")
    starts.close()
    return files


async def test_a_start_that_can_not_be_proved_is_interrupted_and_not_repeated(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    await leave_behind(tmp_path, boot=boot_id(), started=True)
    async with exec_hub() as hub:
        opening = Exec(run="r1", argv=["touch", str(tmp_path / "ran")])
        records = await records_until_end(await open_exec(hub, opening))
    assert exited(records).reason == "interrupted"
    assert not (tmp_path / "ran").exists()


async def test_a_run_of_an_earlier_boot_is_interrupted_and_nobody_is_signalled(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    files = await leave_behind(tmp_path, boot="an-earlier-boot", started=True)
    # Its pid belongs to somebody else now: this very process.
    (files.directory / "status").write_text(Path("/proc/self/stat").read_text())
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["true"]))
        await channel.send(Cancel())
        records = await records_until_end(channel)
    assert exited(records).reason == "interrupted"


async def test_a_run_that_certainly_never_started_is_started(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    await leave_behind(tmp_path, boot=boot_id(), started=False)
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, Exec(run="r1", argv=["true"])))
    assert exited(records) == Exited(exit_code=0)


async def test_a_journal_lost_with_the_power_does_not_start_the_run_again(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    (await leave_behind(tmp_path, boot=boot_id(), started=True)).remove()
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, Exec(run="r1", argv=["true"])))
    assert exited(records).reason == "interrupted"
