"""The SOCKS5 handshake as transcripts of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.sdk.socks5 import Destination, Handshake, Refused, Reply, reply

GREETING = b"\x05\x01\x00"
WELCOME = b"\x05\x00"
LONGEST = max(2 + 255, 4 + 1 + 255 + 2)


def request(kind: int, address: bytes, port: int = 80, command: int = 1) -> bytes:
    return bytes((5, command, 0, kind)) + address + port.to_bytes(2, "big")


def name(text: bytes) -> bytes:
    return bytes((len(text),)) + text


@pytest.mark.parametrize(
    ("asked", "destination"),
    [
        (request(1, b"\x7f\x00\x00\x01", 8080), Destination("127.0.0.1", 8080)),
        (request(4, b"\x00" * 15 + b"\x01", 443), Destination("::1", 443)),
        (request(3, name(b"db.internal"), 5432), Destination("db.internal", 5432)),
        (request(3, name("bücher.example".encode()), 80), Destination("bücher.example", 80)),
        (request(3, name(b"a" * 255), 65535), Destination("a" * 255, 65535)),
    ],
)
class TestServed:
    def test_a_greeting_and_a_request_give_a_destination(
        self, asked: bytes, destination: Destination
    ) -> None:
        handshake = Handshake()
        assert handshake.receive(GREETING) == WELCOME
        assert handshake.receive(asked) == b""
        assert handshake.destination == destination
        assert handshake.rest == b""

    def test_any_split_of_the_bytes_gives_the_same(
        self, asked: bytes, destination: Destination
    ) -> None:
        handshake, said = Handshake(), b""
        for byte in GREETING + asked:
            assert handshake.destination is None
            said += handshake.receive(bytes((byte,)))
        assert (said, handshake.destination) == (WELCOME, destination)

    def test_what_comes_behind_the_request_is_for_the_destination(
        self, asked: bytes, destination: Destination
    ) -> None:
        handshake = Handshake()
        assert handshake.receive(GREETING + asked + b"GET /") == WELCOME
        assert (handshake.destination, handshake.rest) == (destination, b"GET /")


FAILED, UNKNOWN_COMMAND = reply(Reply.FAILED), reply(Reply.COMMAND_NOT_SUPPORTED)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b""),
        (b"CONNECT db:5432 HTTP/1.1\r\n", b""),
        (b"\x05\x00", b"\x05\xff"),
        (b"\x05\x02\x01\x02", b"\x05\xff"),
        (GREETING + request(1, bytes(4), command=2), WELCOME + UNKNOWN_COMMAND),
        (GREETING + request(1, bytes(4), command=3), WELCOME + UNKNOWN_COMMAND),
        (GREETING + request(1, bytes(4), command=0xF0), WELCOME + UNKNOWN_COMMAND),
        (GREETING + request(2, bytes(4)), WELCOME + reply(Reply.ADDRESS_NOT_SUPPORTED)),
        (GREETING + b"\x04\x01\x00\x01", WELCOME + FAILED),
        (GREETING + request(3, name(b"")), WELCOME + FAILED),
        (GREETING + request(3, name(b"a\x00b")), WELCOME + FAILED),
        (GREETING + request(3, name(b"a b")), WELCOME + FAILED),
        (GREETING + request(3, name(b"\xff\xfe")), WELCOME + FAILED),
        (GREETING + request(1, bytes(4), port=0), WELCOME + FAILED),
    ],
)
def test_what_is_not_served_is_refused_with_its_code(sent: bytes, answer: bytes) -> None:
    with pytest.raises(Refused) as refused:
        Handshake().receive(sent)
    assert refused.value.answer == answer
    assert refused.value.reason


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
def test_any_bytes_are_refused_understood_or_kept_within_bounds(
    pieces: list[bytes], greets: bool
) -> None:
    handshake = Handshake()
    try:
        for piece in [GREETING if greets else b"", *pieces]:
            handshake.receive(piece)
            if handshake.destination is not None:
                return
            assert len(handshake.rest) < LONGEST
    except Refused as refused:
        assert len(refused.answer) <= len(WELCOME) + len(FAILED)
