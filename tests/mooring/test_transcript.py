from __future__ import annotations

from mooring.cli.transcript import PARTIAL_LIMIT, Transcript
from mooring.sdk.models import OutputEvent, ResultEvent


def out(data: str, node: str = "web-1", stream: str = "stdout") -> OutputEvent:
    return OutputEvent(node=node, stream=stream, data=data)


def test_lines_begin_with_the_nodes_name_and_keep_their_stream() -> None:
    transcript = Transcript()
    assert transcript.output(out("a\nb\n")) == [("stdout", "web-1 | a\nweb-1 | b\n")]
    assert transcript.output(out("oh\n", stream="stderr")) == [("stderr", "web-1 | oh\n")]


def test_a_line_that_comes_in_pieces_is_one_line() -> None:
    transcript = Transcript()
    assert transcript.output(out("he")) == []
    assert transcript.output(out("x\n", node="db")) == [("stdout", "db | x\n")]
    assert transcript.output(out("llo\nre")) == [("stdout", "web-1 | hello\n")]
    assert transcript.result(ResultEvent(node="web-1", state="succeeded", exit_code=0)) == [
        ("stdout", "web-1 | re\n")
    ]


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    transcript = Transcript()
    ((_, text),) = transcript.output(out("x" * (PARTIAL_LIMIT + 1)))
    assert text.endswith("x\n")
    assert transcript.end() == []


def test_a_terminal_gets_colours_but_no_control_characters() -> None:
    transcript = Transcript(width=6, terminal=True)
    ((_, text),) = transcript.output(out("\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J\n"))
    assert "\x1b[31mred\x1b[0m" in text
    assert "\x1b]" not in text
    assert "\x07" not in text
    assert "\x9b" not in text
    assert "web-1 \x1b[0m | " in text


def test_the_summary_groups_equal_outcomes() -> None:
    transcript = Transcript()
    for node, code in (("c", 2), ("a", 2), ("b", 0), ("d", None)):
        state = "succeeded" if code == 0 else "failed" if code else "timed_out"
        transcript.result(ResultEvent(node=node, state=state, exit_code=code))
    assert transcript.summary() == "1 ok, 3 failed\n  exit code 2: a, c\n  timed out: d"
    assert transcript.exit_code() == 1


def test_only_timeouts_are_124() -> None:
    transcript = Transcript()
    assert transcript.exit_code() == 0
    transcript.result(ResultEvent(node="a", state="succeeded", exit_code=0))
    assert transcript.exit_code() == 0
    transcript.result(ResultEvent(node="b", state="timed_out"))
    assert transcript.exit_code() == 124
