from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.sdk import calls
from mooring.sdk import errors as e
from mooring.sdk.exchange import LINE_LIMIT, Lines, ServerEvents, request_of


@given(st.lists(st.binary(max_size=20)), st.data())
def test_lines_are_the_same_however_the_bytes_are_cut(
    lines: list[bytes], data: st.DataObject
) -> None:
    whole = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]
    text = b"".join(line + b"\n" for line in whole)
    cut = data.draw(st.integers(0, len(text)))
    reader = Lines()
    found = [*reader.feed(text[:cut]), *reader.feed(text[cut:])]
    assert found == [line for line in whole if line]


def test_a_line_without_end_is_refused() -> None:
    with pytest.raises(e.InternalError):
        list(Lines().feed(b"x" * (LINE_LIMIT + 1)))


def test_events_are_their_data() -> None:
    reader = ServerEvents()
    text = b': hello\n\nid: 7\nevent: node\ndata: {"id":7}\n\n'
    assert [*reader.feed(text[:20]), *reader.feed(text[20:])] == [b'{"id":7}']


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"status":400,"code":"invalid_target","detail":"x","column":3}', e.InvalidTarget),
        (403, b'{"status":403,"code":"forbidden","detail":"x","verb":"exec"}', e.Forbidden),
        (404, b'{"status":404,"code":"not_found","detail":"x"}', e.NotFound),
        (409, b'{"status":409,"code":"of_the_future","detail":"x"}', e.Conflict),
        (401, b"", e.NotSignedIn),
        (502, b"<html>Bad gateway</html>", e.Unavailable),
        (500, b"\xff", e.InternalError),
        (418, b"teapot", e.BadRequest),
    ],
)
def test_every_failure_has_its_class(status: int, body: bytes, kind: type[e.MooringError]) -> None:
    error = e.error_of(status, body)
    assert type(error) is kind
    assert "<" not in str(error)


def test_throttling_says_how_long() -> None:
    body = b'{"status":429,"code":"throttled","detail":"slow down"}'
    error = e.error_of(429, body, "12")
    assert isinstance(error, e.Throttled)
    assert error.retry_after_s == 12


def test_names_are_quoted_and_empty_options_left_out() -> None:
    assert calls.node("a/b?c").path == "/api/v1/nodes/a%2Fb%3Fc"
    assert calls.node("id:123").path == "/api/v1/nodes/123"
    assert request_of(calls.nodes().page())["params"] == {"limit": 500}
