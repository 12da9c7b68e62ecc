from __future__ import annotations

import pytest

from mooring.cli.failures import CommandError, exit_code_of, report
from mooring.sdk import errors as e
from tests.mooring.conftest import Run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (e.BadRequest("x"), 2),
        (e.InvalidTarget("x", 3), 2),
        (e.NoIdentity("x"), 3),
        (e.NotSignedIn("x"), 3),
        (e.WrongCredentials("x"), 3),
        (e.Forbidden("x", "exec"), 3),
        (e.NotFound("x"), 4),
        (e.NothingMatches("x"), 4),
        (e.HubUnreachable("https://h", "x"), 5),
        (e.HubNotTrusted("https://h", "x"), 5),
        (e.Unavailable("x"), 5),
        (e.Conflict("x"), 1),
        (e.NodeOffline("x"), 1),
        (e.RefusedByNode("x"), 1),
        (e.InternalError("x"), 1),
        (CommandError("x", "do y", 124), 124),
    ],
)
def test_every_error_has_its_exit_code(error: e.MooringError, code: int) -> None:
    assert exit_code_of(error) == code


def test_a_report_is_one_line_of_what_and_one_of_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(e.InvalidTarget("expected a name\nhere", 12)) == 2
    what, advice = capsys.readouterr().err.splitlines()
    assert what == "error: expected a name here (column 12)"
    assert advice.startswith(" hint: ")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nosuch",), 2),
        (("exec", "web"), 2),
        (("exec", "web", "--timeout", "never", "--", "true"), 2),
        (("exec", "web", "ls", "-l"), 2),
        (("exec", "web", "--env", "novalue", "--", "true"), 2),
        (("nodes", "--no-such-option"), 2),
        (("forward", "web", "80"), 2),
        (("deploy", "web@", "all"), 2),
        (("nodes",), 3),
        (("agent", "run", "--state-dir", "/nonexistent/agent"), 1),
        (("packages", "push", "/nonexistent.tar.gz"), 2),
    ],
)
def test_bad_command_lines_end_with_two_lines(run: Run, words: tuple[str, ...], code: int) -> None:
    done = run(*words)
    assert done.code == code
    assert done.out == ""
    assert len(done.err.splitlines()) == 2


def test_an_address_where_nobody_listens_is_5(run: Run) -> None:
    done = run("nodes", env={"MOORING_URL": "https://127.0.0.1:1", "MOORING_TOKEN": "x"})
    assert done.code == 5
    assert "127.0.0.1:1" in done.err


def test_an_option_of_the_remote_command_says_where_the_dashes_go(run: Run) -> None:
    assert "-- COMMAND" in run("exec", "web", "ls", "-l").err
