from pathlib import Path

import pytest

from edge_agent.commands.argv import NotStarted, resolve_argv, start_directory
from edge_agent.commands.journal import Request, RunFiles, is_run_name, parse_status
from edge_agent.commands.starts import SLOTS, Starts
from edge_agent.users import find_account
from protocol.messages import Exec
from protocol.record_types import Exited

STAT = "42 (sh) S 1 42 42 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"


@pytest.fixture
async def files(tmp_path: Path) -> RunFiles:
    files = RunFiles(tmp_path / "r1")
    files.create(
        Request(Exec(run="r1", argv=["true"]), "boot", 1.0), b"in", await find_account(None)
    )
    return files


def write(files: RunFiles, name: str, text: str) -> None:
    (files.directory / name).write_text(text)


@pytest.mark.parametrize("name", ["a", "0190-x.y_Z", "a" * 128])
def test_a_runs_name_may_be_a_directory(name: str) -> None:
    assert is_run_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\0", ".hidden", "a" * 129, "a\n"])
def test_a_runs_name_may_not_lead_elsewhere(name: str) -> None:
    assert not is_run_name(name)


def test_half_a_line_of_status_counts_for_nothing() -> None:
    assert parse_status("").process is None
    assert parse_status(STAT).process is None
    assert parse_status("garbage\n").process is None
    running = parse_status(f"{STAT}\n= 1")
    assert running.process is not None
    assert running.exit_code is None
    assert parse_status(f"{STAT}\n= 12\n").exit_code == 12


async def test_an_exit_code_and_a_signal_are_told_apart(files: RunFiles) -> None:
    write(files, "status", f"{STAT}\n= 137\n")
    assert files.conclude() == Exited(exit_code=137)
    write(files, "status", f"{STAT}\nKilled\n= 137\n")
    assert files.conclude() == Exited(signal=9)


async def test_a_run_without_an_end_is_interrupted(files: RunFiles) -> None:
    write(files, "stdout", "abc")
    write(files, "status", f"{STAT}\n")
    outcome = files.conclude()
    assert (outcome.reason, outcome.exit_code, outcome.signal) == ("interrupted", None, None)
    assert outcome.stdout_bytes == 3


async def test_the_reason_of_an_ending_survives(files: RunFiles) -> None:
    files.write_ending("timeout")
    write(files, "status", f"{STAT}\n= 143\n")
    assert files.conclude() == Exited(signal=15, reason="timeout")


async def test_a_directory_that_can_not_be_entered_is_said(files: RunFiles) -> None:
    write(files, "status", f"{STAT}\nmooring-run: cd: can't cd to /root\n! 126\n")
    outcome = files.conclude()
    assert (outcome.exit_code, outcome.reason) == (126, "not_started")
    assert "can't cd to /root" in outcome.detail


async def test_dropped_output_keeps_the_result_and_the_counts(files: RunFiles) -> None:
    write(files, "stdout", "abc")
    write(files, "status", f"{STAT}\n= 0\n")
    outcome = files.conclude()
    files.drop_output(outcome)
    assert files.conclude() == outcome
    assert files.output_sizes() == (0, 0)


async def test_a_torn_request_is_none(files: RunFiles) -> None:
    assert files.read_request() is not None
    write(files, "request", '{"opening":{"k":"exec"')
    assert files.read_request() is None


def test_starts_are_remembered_across_restarts(tmp_path: Path) -> None:
    starts = Starts(tmp_path / "starts")
    assert "r1" not in starts
    starts.add("r1")
    starts.close()
    again = Starts(tmp_path / "starts")
    assert "r1" in again
    assert "r2" not in again
    again.add("r2")
    again.close()


def test_starts_forget_the_oldest_and_stay_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fdatasync", lambda fd: None)
    starts = Starts(tmp_path / "starts")
    size = (tmp_path / "starts").stat().st_size
    for number in range(SLOTS + 2):
        starts.add(f"r{number}")
    starts.close()
    again = Starts(tmp_path / "starts")
    assert "r1" not in again
    assert "r2" in again
    assert f"r{SLOTS + 1}" in again
    assert (tmp_path / "starts").stat().st_size == size
    again.close()


def test_a_bare_name_is_found_in_the_given_path(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    assert resolve_argv(["tool", "x"], tmp_path, {"PATH": str(tmp_path)}) == [str(tool), "x"]


@pytest.mark.parametrize(
    ("argv", "env", "code", "text"),
    [
        ([], {}, 127, "no command"),
        (["nothing-like-that"], {}, 127, "not found"),
        (["./missing"], {}, 127, "no file"),
        (["./"], {}, 126, "directory"),
        (["./plain"], {}, 126, "not executable"),
        (["true", "a\0b"], {}, 126, "NUL"),
        (["true"], {"A=B": "1"}, 126, "empty name or one with ="),
    ],
)
def test_what_can_not_be_started_is_said_as_a_shell_would(
    tmp_path: Path, argv: list[str], env: dict[str, str], code: int, text: str
) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(NotStarted, match=text) as refused:
        resolve_argv(argv, tmp_path, {"PATH": "/usr/bin:/bin"} | env)
    assert refused.value.exit_code == code


async def test_the_directory_must_be_there(tmp_path: Path) -> None:
    account = await find_account(None)
    assert start_directory(str(tmp_path), account) == tmp_path
    for wrong in ("relative", str(tmp_path / "missing"), "/a\0b"):
        with pytest.raises(NotStarted):
            start_directory(wrong, account)
