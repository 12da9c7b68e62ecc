import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from edge_agent.policy import Policy, PolicyFile
from edge_agent.terminal import handle_pty
from protocol.aio import Channel, ResetCode, StreamReset, Tunnel
from protocol.messages import Pty
from protocol.record_types import Exited, Input, PtyFromHub, PtyFromNode, Resize, Screen
from tests.edge_agent.conftest import hub_end, write_policy

PtyChannel = Channel[PtyFromHub, PtyFromNode]


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Production runs on uvloop, whose transports and readers differ in details."""
    return ("asyncio", {"use_uvloop": request.param})


@pytest.fixture
async def hub(policy: PolicyFile) -> AsyncIterator[Tunnel]:
    async with hub_end(partial(handle_pty, policy=policy)) as hub:
        yield hub


async def open_pty(hub: Tunnel, *argv: str, **options: object) -> PtyChannel:
    opening = Pty(session="s1", argv=list(argv), **options)  # type: ignore[arg-type]
    return Channel(await hub.open(opening), PtyFromNode)


async def until(channel: PtyChannel, text: bytes) -> bytes:
    """Everything on the screen up to the text."""
    screen = b""
    while text not in screen:
        record = await channel.receive()
        assert isinstance(record, Screen), (record, screen)
        screen += record.data
    return screen


async def until_exit(channel: PtyChannel) -> tuple[bytes, Exited]:
    screen = b""
    while isinstance(record := await channel.receive(), Screen):
        screen += record.data
    assert isinstance(record, Exited)
    return screen, record


def living_in_session(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(path.parent.name)
    return found


async def wait_until_it_writes_no_more(pid: int) -> None:
    """Wait until the process is blocked in a write, for want of credit up to the hub."""
    written: list[str] = []
    async with asyncio.timeout(10):
        while len(written) < 3 or len(set(written[-3:])) > 1:
            await asyncio.sleep(0.02)
            written.append(Path(f"/proc/{pid}/io").read_text().split()[3])


async def session_of(channel: PtyChannel) -> int:
    """The session id, from a script that prints it in brackets first."""
    screen = await until(channel, b"]")
    return int(screen.partition(b"[")[2].partition(b"]")[0])


async def test_a_command_has_a_terminal_of_the_size_asked_for(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "stty size; tty; exit 3", rows=33, columns=111)
    screen, outcome = await until_exit(channel)
    assert b"33 111\r\n/dev/pts/" in screen
    assert outcome == Exited(exit_code=3)


async def test_the_last_words_before_the_end_arrive(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "seq 1 20000; echo the end")
    screen, _ = await until_exit(channel)
    assert screen.endswith(b"\r\n20000\r\nthe end\r\n")
    assert len(screen.splitlines()) == 20001


async def test_what_is_typed_is_echoed_and_read(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "read line; echo got $line")
    await channel.send(Input(data="wörd 宽\n".encode()))
    screen, outcome = await until_exit(channel)
    assert screen.decode() == "wörd 宽\r\ngot wörd 宽\r\n"
    assert outcome.exit_code == 0


async def test_a_resize_reaches_the_foreground_process(hub: Tunnel) -> None:
    script = "trap 'stty size; exit' WINCH; echo up; while :; do sleep 0.05; done"
    channel = await open_pty(hub, "sh", "-c", script)
    await until(channel, b"up")
    await channel.send(Resize(rows=50, columns=132))
    screen, _ = await until_exit(channel)
    assert b"50 132" in screen


async def test_without_a_command_it_is_a_login_shell(hub: Tunnel) -> None:
    channel = await open_pty(hub, env={"PS1": "$ "})
    await channel.send(Input(data=b'echo "<$TERM:$HOME>"; exit 5\n'))
    screen, outcome = await until_exit(channel)
    assert f"<xterm-256color:{pwd.getpwuid(os.geteuid()).pw_dir}>".encode() in screen
    assert outcome == Exited(exit_code=5)


async def test_ctrl_c_stops_a_flood(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "trap 'echo; echo stopped; exit 0' INT; yes; :")
    await until(channel, b"y\r\ny\r\n")
    await channel.send(Input(data=b"\x03"))
    screen, outcome = await until_exit(channel)
    assert screen.endswith(b"stopped\r\n")
    assert outcome == Exited(exit_code=0)


async def test_a_flood_that_nobody_reads_waits_in_the_terminal(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "echo [$$]; exec yes")
    session = await session_of(channel)
    await wait_until_it_writes_no_more(session)
    await channel.send(Input(data=b"\x03"))
    _, outcome = await until_exit(channel)
    assert outcome.signal == 2


async def test_a_killed_shell_has_a_signal(hub: Tunnel) -> None:
    _, outcome = await until_exit(await open_pty(hub, "sh", "-c", "kill -9 $$"))
    assert outcome == Exited(signal=9)


async def test_background_jobs_do_not_hold_up_the_end_and_end_too(hub: Tunnel) -> None:
    script = "set -m; trap '' HUP; echo [$$]; sleep 1000 & sleep 1000 & exit 2"
    channel = await open_pty(hub, "sh", "-c", script)
    session = await session_of(channel)
    _, outcome = await until_exit(channel)
    assert outcome == Exited(exit_code=2)
    assert living_in_session(session) == []


@pytest.mark.parametrize("how", ["reset", "finish"])
async def test_the_session_is_gone_when_the_stream_is(hub: Tunnel, how: str) -> None:
    script = "trap '' HUP; set -m; sleep 1000 & echo [$$]; sleep 1000"
    channel = await open_pty(hub, "sh", "-c", script)
    session = await session_of(channel)
    pidfd = os.pidfd_open(session)
    if how == "reset":
        channel.reset(ResetCode.CANCELLED)
    else:
        channel.finish()
        _, outcome = await until_exit(channel)
        assert outcome == Exited(signal=9, reason="killed")
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pidfd, gone.set)
    async with asyncio.timeout(10):
        await gone.wait()
        while living_in_session(session):
            await asyncio.sleep(0.01)  # the leader went first
    asyncio.get_running_loop().remove_reader(pidfd)
    os.close(pidfd)


async def test_the_session_is_gone_when_the_tunnel_is(policy: PolicyFile) -> None:
    async with hub_end(partial(handle_pty, policy=policy)) as hub:
        channel = await open_pty(hub, "sh", "-c", "sleep 1000 & echo [$$]; sleep 1000")
        session = await session_of(channel)
    assert living_in_session(session) == []


@pytest.mark.parametrize(
    ("opening", "code", "text"),
    [
        (Pty(session="s", argv=["no-such-command"]), 127, "no-such-command"),
        (Pty(session="s", argv=["sh"], cwd="/no/such"), 126, "/no/such"),
        (Pty(session="s", argv=["sh", "a\0b"]), 126, "NUL"),
        (Pty(session="s", argv=["sh"], env={"a=b": "c"}), 126, "name"),
        (Pty(session="s", user="no-such-user"), 126, "no-such-user"),
    ],
)
async def test_what_can_not_be_started_says_why(
    hub: Tunnel, opening: Pty, code: int, text: str
) -> None:
    channel: PtyChannel = Channel(await hub.open(opening), PtyFromNode)
    screen, outcome = await until_exit(channel)
    assert screen == b""
    assert (outcome.exit_code, outcome.reason) == (code, "not_started")
    assert text in outcome.detail


async def test_the_policy_is_asked(hub: Tunnel, tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.json", Policy(verbs=["exec"], users=["*"], forward=[]))
    channel = await open_pty(hub, "sh")
    with pytest.raises(StreamReset, match='"shell"') as refused:
        await channel.receive()
    assert refused.value.code is ResetCode.REFUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_root_becomes_the_user(hub: Tunnel) -> None:
    channel = await open_pty(hub, "sh", "-c", "id -un; id -gn; echo $HOME", user="daemon", cwd="/")
    screen, outcome = await until_exit(channel)
    assert screen.startswith(b"daemon\r\ndaemon\r\n")
    assert outcome.exit_code == 0
