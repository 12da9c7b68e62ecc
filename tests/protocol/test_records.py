"""Records on a stream: what a malformed one does to those before it."""

from __future__ import annotations

import pytest

from protocol.errors import RemoteProtocolError
from protocol.record_types import Input
from protocol.records import RecordReader, encode


def test_a_malformed_record_behind_a_whole_one_is_a_violation() -> None:
    reader: RecordReader[Input] = RecordReader(Input)
    found = reader.feed(encode(Input(data=b"ls")) + b"\x00\x00\x00\x01\xc1")
    assert next(found) == Input(data=b"ls")
    with pytest.raises(RemoteProtocolError, match="malformed record"):
        next(found)
