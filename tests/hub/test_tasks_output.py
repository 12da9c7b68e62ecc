"""What is kept of a command's output."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.tasks.output import HEAD_BYTES, TAIL_BYTES, Kept, as_text


def test_a_short_output_is_kept_whole() -> None:
    kept = Kept()
    kept.append(0, b"one ")
    kept.append(4, b"two")
    assert (bytes(kept.head), bytes(kept.tail), kept.total) == (b"one two", b"", 7)


def test_a_long_output_keeps_head_and_tail_and_the_exact_count() -> None:
    kept = Kept()
    data = bytes(range(256)) * 2000
    for start in range(0, len(data), 60_000):
        kept.append(start, data[start : start + 60_000])
    assert bytes(kept.head) == data[:HEAD_BYTES]
    assert bytes(kept.tail) == data[-TAIL_BYTES:]
    assert kept.total == len(data)


def test_what_is_replayed_is_dropped() -> None:
    kept = Kept()
    kept.append(0, b"abcdef")
    kept.append(2, b"cdefgh")
    kept.append(0, b"abc")
    assert (bytes(kept.head), kept.total) == (b"abcdefgh", 8)


def test_a_gap_is_counted_as_left_out() -> None:
    kept = Kept()
    kept.append(0, b"abc")
    kept.append(10, b"xyz")
    assert (bytes(kept.head), bytes(kept.tail), kept.total) == (b"abc", b"xyz", 13)
    assert kept.since(3, 100).skipped == 7


def test_the_text_names_what_is_left_out() -> None:
    assert as_text(b"a", b"b", 5) == "a\n… 5 bytes left out …\nb"
    assert as_text("ä".encode()[:1], "ä".encode()[1:], 0) == "ä"


@given(st.lists(st.binary(max_size=40_000), max_size=20), st.integers(1, 70_000))
def test_a_reader_gets_all_that_is_kept_and_counts_the_rest(
    pieces: list[bytes], limit: int
) -> None:
    kept, whole = Kept(), b"".join(pieces)
    for data in pieces:
        kept.append(kept.total, data)
    offset, read = 0, b""
    while offset < kept.total:
        piece = kept.since(offset, limit)
        offset += piece.skipped + len(piece.data)
        read += b"?" * piece.skipped + piece.data
    assert len(read) == len(whole) == kept.total
    assert len(kept.head) <= HEAD_BYTES
    assert len(kept.tail) <= TAIL_BYTES
    assert all(mine in (b"?"[0], theirs) for mine, theirs in zip(read, whole, strict=True))
