"""SPEC §8: the golden frames are what the code writes and reads."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

import protocol
from protocol import frames, messages, record_types, records
from protocol.errors import GoAwayCode, ResetCode
from protocol.opens import OpenDecoder

SPEC = Path(protocol.__file__).with_name("SPEC.md").read_text()
GOLDEN = {
    what.strip(): bytes.fromhex(code)
    for what, code in re.findall(
        r"^\| (.+?) \| (?:as payload: )?`([0-9a-f ]+)` \|$", SPEC.split("## 8.")[1], re.M
    )
}
FORWARD = messages.Forward(host="127.0.0.1", port=80)
OPAQUE = bytes(range(1, 9))
WRITTEN = {
    "HELLO, version 1, 256 streams": frames.hello(frames.Hello()),
    "HELLO, software `mooring/0.1.0`, 64 streams": frames.hello(
        frames.Hello(software="mooring/0.1.0", max_streams=64)
    ),
    "OPEN 2 forward to 127.0.0.1:80": frames.open_stream(
        2, frames.Class.FORWARD, msgspec.msgpack.encode(FORWARD)
    ),
    "DATA 2 `hi`": frames.data(2, frames.Class.FORWARD, b"hi"),
    "DATA 2 FIN, empty": frames.data(2, frames.Class.FORWARD, b"", fin=True),
    "WINDOW 2, 32,768 bytes": frames.window(2, 32768),
    "RESET 2 REFUSED `no`": frames.reset(2, ResetCode.REFUSED, "no"),
    "PING": frames.ping(OPAQUE),
    "PONG": frames.pong(OPAQUE),
    "ACK of 3 frames": frames.ack(3),
    "GOAWAY SHUTDOWN, back within 30 s": frames.goaway(
        frames.GoAway(code=GoAwayCode.SHUTDOWN, retry_after_s=30.0)
    ),
    "an unknown type that may be ignored": bytes.fromhex("7f80000000000000"),
    "record `in` with `ls`": records.encode(record_types.Input(data=b"ls")),
}


def test_every_golden_frame_is_covered() -> None:
    assert GOLDEN.keys() == WRITTEN.keys()


@pytest.mark.parametrize("what", WRITTEN)
def test_we_write_what_the_specification_shows(what: str) -> None:
    assert WRITTEN[what].hex() == GOLDEN[what].hex()


@pytest.mark.parametrize("what", [name for name in WRITTEN if not name.startswith("record")])
def test_golden_frames_parse(what: str) -> None:
    frame = frames.parse(GOLDEN[what])
    assert frames.HEADER_BYTES + len(frame.payload) == len(GOLDEN[what])


def test_the_golden_payloads_mean_what_they_say() -> None:
    parsed = {what: frames.parse(code) for what, code in GOLDEN.items() if "record" not in what}
    opened = OpenDecoder(messages.HubOpen).decode(parsed["OPEN 2 forward to 127.0.0.1:80"].payload)
    assert opened == FORWARD
    assert frames.parse_window(parsed["WINDOW 2, 32,768 bytes"]) == 32768
    assert frames.parse_reset(parsed["RESET 2 REFUSED `no`"]) == (ResetCode.REFUSED, "no")
    assert frames.parse_ack(parsed["ACK of 3 frames"]) == 3
    code, body = frames.parse_goaway(parsed["GOAWAY SHUTDOWN, back within 30 s"])
    assert (code, body.retry_after_s) == (GoAwayCode.SHUTDOWN, 30.0)
    hello = frames.parse_hello(parsed["HELLO, software `mooring/0.1.0`, 64 streams"])
    assert (hello.software, hello.max_streams) == ("mooring/0.1.0", 64)
    reader: records.RecordReader[record_types.Input] = records.RecordReader(record_types.Input)
    assert list(reader.feed(GOLDEN["record `in` with `ls`"])) == [record_types.Input(data=b"ls")]
