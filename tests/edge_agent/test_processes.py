import errno
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.processes import (
    end_session,
    find_process,
    process_from_stat,
    session_members,
    wait_end,
)


def start_session(script: str) -> subprocess.Popen[bytes]:
    """A shell that leads a session; returns when the script has printed a line."""
    child = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def finish(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout is not None
    child.stdout.close()
    return child.wait()


def test_a_name_with_parentheses_does_not_confuse_the_parser() -> None:
    line = "42 (a) R (b) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"
    assert process_from_stat(line).pid == 42
    assert process_from_stat(line).start_ticks == 12345
    with pytest.raises(ValueError, match="stat"):
        process_from_stat("42 (sh) S")


def test_a_process_is_itself_and_no_other_with_its_pid() -> None:
    own = find_process(os.getpid())
    assert own is not None
    assert own.is_alive()
    assert own.age_s() > 0
    assert not replace(own, start_ticks=own.start_ticks + 1).is_alive()
    assert not replace(own, boot_id="another").is_alive()


async def test_the_end_of_a_process_is_waited_for() -> None:
    child = start_session("echo ready; exec sleep 1000")
    process = find_process(child.pid)
    assert process is not None
    child.kill()
    await wait_end(process)
    assert not process.is_alive()
    finish(child)


async def test_without_pidfds_the_end_is_waited_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def pidfd_open(pid: int) -> int:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr("os.pidfd_open", pidfd_open)
    child = start_session("echo ready; exec sleep 1000")
    process = find_process(child.pid)
    assert process is not None
    child.kill()
    await wait_end(process)
    finish(child)


async def test_a_session_ends_with_its_children_and_other_groups() -> None:
    child = start_session("set -m; sleep 1000 & (trap '' TERM; sleep 1000) & echo ready; wait")
    leader = find_process(child.pid)
    assert leader is not None
    assert len(session_members(leader)) >= 3
    assert await end_session(leader, first=signal.SIGTERM, grace_s=0.1)
    assert session_members(leader) == set()
    finish(child)


async def test_the_leader_can_be_spared() -> None:
    child = start_session("trap 'exit 7' CHLD; sleep 1000 & echo ready; wait; wait; exit 9")
    leader = find_process(child.pid)
    assert leader is not None
    assert await end_session(leader, first=signal.SIGTERM, grace_s=1.0, spare_leader=True)
    assert finish(child) in (7, 9)


async def test_nothing_is_signalled_when_the_pid_has_a_new_owner() -> None:
    child = start_session("echo ready; exec sleep 1000")
    leader = find_process(child.pid)
    assert leader is not None
    stranger = replace(leader, start_ticks=leader.start_ticks - 1)
    assert await end_session(stranger, first=signal.SIGKILL, grace_s=0)
    assert leader.is_alive()
    assert Path(f"/proc/{child.pid}").exists()
    child.kill()
    finish(child)
