import asyncio
import os
import pwd
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.commands import run as commands_run
from edge_agent.commands.run import handle_exec
from edge_agent.commands.runs import Limits, Runs
from edge_agent.policy import Policy, PolicyFile
from protocol.aio import ResetCode, StreamReset
from protocol.messages import Exec
from protocol.record_types import Acknowledge, Cancel, Exited, Output, Started, Stdin
from tests.edge_agent.conftest import (
    ExecChannel,
    HubEnd,
    bytes_of,
    exited,
    hub_end,
    open_exec,
    records_until_end,
    write_policy,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def sh(script: str, run: str = "r1", **options: object) -> Exec:
    return Exec(run=run, argv=["sh", "-c", script], **options)  # type: ignore[arg-type]


async def next_output(channel: ExecChannel) -> Output:
    while not isinstance(record := await channel.receive(), Output):
        assert isinstance(record, Started)
    return record


def processes_with(mark: str) -> list[int]:
    """Pids of the living processes whose command line has the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


async def test_output_comes_apart_with_offsets_and_exact_counts(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh("printf out; printf err! >&2; printf put; exit 3"))
        records = await records_until_end(channel)
    assert isinstance(records[0], Started)
    assert bytes_of(records, 1) == b"output"
    assert bytes_of(records, 2) == b"err!"
    assert exited(records) == Exited(exit_code=3, stdout_bytes=6, stderr_bytes=4)


async def test_output_is_live(exec_hub: HubEnd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh(f"echo first; cat {tmp_path}/go; echo >&2 last"))
        assert (await next_output(channel)).data == b"first\n"
        await asyncio.to_thread((tmp_path / "go").write_text, "second\n")
        records = await records_until_end(channel)
    rest = b"".join(r.data for r in records if isinstance(r, Output))
    assert sorted(rest.split()) == [b"last", b"second"]


@pytest.mark.parametrize("signal", [9, 15, 11])
async def test_a_killed_command_has_a_signal_and_no_exit_code(
    exec_hub: HubEnd, signal: int
) -> None:
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, sh(f"kill -{signal} $$")))
    assert exited(records) == Exited(signal=signal)


async def test_an_exit_code_above_128_is_not_taken_for_a_signal(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, sh("exit 137")))
    assert exited(records) == Exited(exit_code=137)


async def test_a_builtin_of_the_shell_is_no_command(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["exit", "5"]))
        outcome = exited(await records_until_end(channel))
    assert (outcome.reason, outcome.exit_code) == ("not_started", 127)


async def test_arguments_directory_and_environment_arrive_exactly(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    argv = ["python3", "-c", "import os,sys;print(sys.argv[1:],os.getcwd(),os.environ['A'])"]
    words = ["", "a b", "$HOME", "'\"", "-x", "é\n"]
    async with exec_hub() as hub:
        opening = Exec(run="r1", argv=[*argv, *words], cwd=str(tmp_path), env={"A": "1 2"})
        records = await records_until_end(await open_exec(hub, opening))
    assert bytes_of(records, 1).decode() == f"{words} {tmp_path} 1 2\n"


async def test_the_command_inherits_nothing_but_its_three_files(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        records = await records_until_end(
            await open_exec(hub, Exec(run="r1", argv=["ls", "/proc/self/fd"]))
        )
    # 3 is ls reading the directory.
    assert bytes_of(records, 1).split() == [b"0", b"1", b"2", b"3"]


async def test_stdin_is_taken_whole(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["cat"], has_stdin=True))
        await channel.send(Stdin(data=b"one "))
        await channel.send(Stdin(data=b"two"))
        channel.finish()
        records = await records_until_end(channel)
    assert bytes_of(records, 1) == b"one two"


async def test_stdin_that_never_ends_is_given_up(
    exec_hub: HubEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_run, "_STDIN_S", 0.05)
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["cat"], has_stdin=True))
        await channel.send(Stdin(data=b"one "))
        with pytest.raises(StreamReset) as caught:
            await channel.receive()
        assert caught.value.code is ResetCode.TIMEOUT


async def test_an_empty_stdin_record_ends_it_and_leaves_the_stream_open(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="r1", argv=["wc", "-c"], has_stdin=True))
        await channel.send(Stdin(data=b"12345"))
        await channel.send(Stdin(data=b""))
        records = await records_until_end(channel)
        await channel.send(Acknowledge())
        assert await channel.receive() is None
    assert bytes_of(records, 1) == b"5\n"
    assert not (tmp_path / "runs" / "r1").exists()


async def test_without_stdin_it_is_empty(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, Exec(run="r1", argv=["cat"])))
    assert exited(records) == Exited(exit_code=0)


async def test_a_timeout_ends_the_whole_group(exec_hub: HubEnd) -> None:
    mark = "1000.0625"
    async with exec_hub() as hub:
        script = f"trap '' TERM; sleep {mark} & sleep {mark} & echo up; wait; wait"
        records = await records_until_end(await open_exec(hub, sh(script, timeout_s=1.0)))
    assert exited(records).reason == "timeout"
    assert bytes_of(records, 1) == b"up\n"
    assert processes_with(mark) == []


async def test_a_timeout_asks_first(exec_hub: HubEnd) -> None:
    script = "trap 'echo bye; exit 4' TERM; sleep 1000 & wait"
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, sh(script, timeout_s=1.0)))
    assert exited(records) == Exited(exit_code=4, reason="timeout", stdout_bytes=4)


async def test_a_timeout_counts_while_nobody_listens(exec_hub: HubEnd, tmp_path: Path) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh("echo up; sleep 1000", timeout_s=0.3))
        await next_output(channel)
        channel.reset(ResetCode.CANCELLED)
        records = await records_until_end(await open_exec(hub, sh("", timeout_s=0.3)))
    assert exited(records).reason == "timeout"
    assert bytes_of(records, 1) == b"up\n"


async def test_cancel_ends_the_whole_group(exec_hub: HubEnd) -> None:
    mark = "1000.125"
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh(f"sleep {mark} & sleep {mark} & echo up; wait"))
        await next_output(channel)
        await channel.send(Cancel())
        records = await records_until_end(channel)
    assert exited(records).reason == "cancelled"
    assert exited(records).signal == 15
    assert processes_with(mark) == []


async def test_too_much_output_ends_the_command_with_exact_counts(exec_hub: HubEnd) -> None:
    limit = 200_000
    async with exec_hub(Limits(output_bytes=limit)) as hub:
        records = await records_until_end(await open_exec(hub, sh("exec yes")))
    outcome = exited(records)
    assert outcome.reason == "output_limit"
    assert outcome.stdout_bytes > limit
    assert len(bytes_of(records, 1)) == outcome.stdout_bytes


async def test_a_second_exec_replays_from_the_offsets_and_starts_nothing(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    script = f"echo start >> {tmp_path}/starts; printf 0123456789; printf abc >&2"
    async with exec_hub() as hub:
        first = await open_exec(hub, sh(script))
        await records_until_end(first)
        first.reset(ResetCode.CANCELLED)
        again = await open_exec(hub, sh(script, stdout_offset=4, stderr_offset=3))
        records = await records_until_end(again)
    pieces = [(r.stream, r.offset, r.data) for r in records if isinstance(r, Output)]
    assert pieces == [(1, 4, b"456789")]
    assert exited(records) == Exited(exit_code=0, stdout_bytes=10, stderr_bytes=3)
    assert (tmp_path / "starts").read_text() == "start\n"


async def test_two_streams_see_one_run(exec_hub: HubEnd, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    async with exec_hub() as hub:
        one = await open_exec(hub, sh(f"echo up; cat {tmp_path}/go"))
        two = await open_exec(hub, sh(f"echo up; cat {tmp_path}/go"))
        await next_output(one)
        await next_output(two)
        await asyncio.to_thread((tmp_path / "go").write_text, "x")
        assert exited(await records_until_end(one)) == exited(await records_until_end(two))


async def test_an_acknowledged_run_is_deleted_and_never_started_again(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh(f"echo >> {tmp_path}/starts"))
        await records_until_end(channel)
        await channel.send(Acknowledge())
        assert await channel.receive() is None
        channel.finish()
        assert not (tmp_path / "runs" / "r1").exists()
        outcome = exited(await records_until_end(await open_exec(hub, sh("true"))))
    assert outcome.reason == "interrupted"
    assert (tmp_path / "starts").read_text() == "\n"


async def test_only_so_many_run_at_once_and_the_rest_waits(
    exec_hub: HubEnd, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "go")
    async with exec_hub(Limits(at_once=1, waiting=1)) as hub:
        first = await open_exec(hub, sh(f"echo up; cat {tmp_path}/go", run="a"))
        await next_output(first)
        second = await open_exec(hub, sh("echo second", run="b"))
        third = await open_exec(hub, sh("echo third", run="c"))
        with pytest.raises(StreamReset) as refused:
            await third.receive()
        assert refused.value.code is ResetCode.OVERLOADED
        await asyncio.to_thread((tmp_path / "go").write_text, "x")
        assert bytes_of(await records_until_end(second), 1) == b"second\n"


async def test_a_waiting_command_can_be_cancelled(exec_hub: HubEnd) -> None:
    async with exec_hub(Limits(at_once=1)) as hub:
        first = await open_exec(hub, sh("echo up; sleep 1000", run="a"))
        await next_output(first)
        second = await open_exec(hub, sh("echo never", run="b"))
        await second.send(Cancel())
        records = await records_until_end(second)
        await first.send(Cancel())
        await records_until_end(first)
    assert records == [Exited(reason="cancelled", detail="cancelled before it was started")]


async def test_output_of_unacknowledged_runs_is_bounded_and_their_results_stay(
    tmp_path: Path, policy: PolicyFile
) -> None:
    async with (
        Runs(tmp_path / "runs", Limits(kept_runs=2, kept_bytes=1500)) as runs,
        hub_end(partial(handle_exec, runs=runs, policy=policy)) as hub,
    ):
        for name in "abc":
            await records_until_end(await open_exec(hub, sh("head -c 1000 /dev/zero", run=name)))
        async with asyncio.timeout(10):
            while (tmp_path / "runs/b/stdout").exists():
                await asyncio.sleep(0.01)  # the bound is kept after the result is told
        assert runs.unacknowledged() == ["b", "c"]
        records = await records_until_end(await open_exec(hub, sh("", run="b")))
        assert records[1:] == [Exited(exit_code=0, stdout_bytes=1000)]
        records = await records_until_end(await open_exec(hub, sh("", run="c")))
        assert len(bytes_of(records, 1)) == 1000


async def test_what_can_not_be_started_says_why(exec_hub: HubEnd, tmp_path: Path) -> None:
    async with exec_hub() as hub:
        wrong = {
            "a": (Exec(run="a", argv=["no-such-command"]), 127, "no-such-command"),
            "b": (Exec(run="b", argv=["true"], cwd="/no/such"), 126, "/no/such"),
            "c": (Exec(run="c", argv=["true"], user="no-such-user"), 126, "no-such-user"),
            "d": (Exec(run="d", argv=["/etc/passwd"]), 126, "not executable"),
        }
        for opening, code, text in wrong.values():
            outcome = exited(await records_until_end(await open_exec(hub, opening)))
            assert (outcome.reason, outcome.exit_code) == ("not_started", code)
            assert text in outcome.detail


async def test_the_policy_is_asked(exec_hub: HubEnd, tmp_path: Path) -> None:
    write_policy(tmp_path / "policy.json", Policy(verbs=["shell"], users=["*"], forward=[]))
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh("true"))
        with pytest.raises(StreamReset, match='"exec"') as refused:
            await channel.receive()
    assert refused.value.code is ResetCode.REFUSED


async def test_a_name_that_leads_out_of_the_journal_is_refused(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        channel = await open_exec(hub, Exec(run="../evil", argv=["true"]))
        with pytest.raises(StreamReset, match="name"):
            await channel.receive()


async def test_a_truncated_file_keeps_the_offsets_growing(exec_hub: HubEnd, tmp_path: Path) -> None:
    for name in ("go", "end"):  # one each: a late writer's close must not end the next read
        os.mkfifo(tmp_path / name)
    script = f"echo first; read x <{tmp_path}/go; echo 2 > /dev/stdout; read x <{tmp_path}/end"
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh(script))
        first = await next_output(channel)
        await asyncio.to_thread((tmp_path / "go").write_text, "\n")
        second = await next_output(channel)
        await asyncio.to_thread((tmp_path / "end").write_text, "\n")
        outcome = exited(await records_until_end(channel))
    assert (first.data, second.offset, second.data) == (b"first\n", 6, b"2\n")
    assert outcome == Exited(exit_code=0, stdout_bytes=8)


@needs_root
async def test_root_becomes_the_user_with_its_groups_and_home(exec_hub: HubEnd) -> None:
    user = pwd.getpwnam("daemon")
    async with exec_hub() as hub:
        opening = sh("id -un; id -u; id -g; echo $HOME; echo x > status", user="daemon", cwd="/")
        records = await records_until_end(await open_exec(hub, opening))
    expected = f"daemon\n{user.pw_uid}\n{user.pw_gid}\n{user.pw_dir}\n"
    assert bytes_of(records, 1).decode() == expected
    assert exited(records).exit_code != 0, "the journal can't be reached"


async def test_a_group_signal_does_not_lose_the_status(exec_hub: HubEnd) -> None:
    async with exec_hub() as hub:
        records = await records_until_end(await open_exec(hub, sh("kill -TERM 0; sleep 1000")))
    assert exited(records) == Exited(signal=15)


async def test_without_inotify_output_is_still_live(
    exec_hub: HubEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_inotify = SimpleNamespace(inotify_init1=lambda flags: -1)
    monkeypatch.setattr("ctypes.CDLL", lambda name, use_errno: no_inotify)
    for name in ("go", "end"):
        os.mkfifo(tmp_path / name)
    async with exec_hub() as hub:
        channel = await open_exec(hub, sh(f"read x <{tmp_path}/go; echo one; cat {tmp_path}/end"))
        assert isinstance(await channel.receive(), Started)
        await asyncio.to_thread((tmp_path / "go").write_text, "\n")
        assert (await next_output(channel)).data == b"one\n"
        await asyncio.to_thread((tmp_path / "end").write_text, "two\n")
        records = await records_until_end(channel)
    assert exited(records) == Exited(exit_code=0, stdout_bytes=8)
