"""ClientHellos as OpenSSL writes them, and bytes that no client would send."""

from __future__ import annotations

import ssl

import hypothesis.strategies as st
import pytest
from hypothesis import given

from hub.client_hello import Incomplete, NotTls, alpn_protocols


def hello(names: list[str], server: str = "hub.example") -> bytes:
    context = ssl.create_default_context()
    if names:
        context.set_alpn_protocols(names)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=server).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("names", [["mooring/1"], ["h2", "http/1.1"], []])
def test_the_offered_names_are_read_in_order(names: list[str]) -> None:
    assert alpn_protocols(hello(names)) == tuple(name.encode() for name in names)


def test_a_hello_in_several_records_is_joined() -> None:
    record = hello(["mooring/1"])
    body = record[5:]
    split = b"".join(
        record[:3] + len(part).to_bytes(2, "big") + part
        for part in (body[:1], body[1:70], body[70:])
    )
    assert alpn_protocols(split) == (b"mooring/1",)


def test_every_prefix_asks_for_more() -> None:
    record = hello(["mooring/1"])
    for size in range(1, len(record)):
        with pytest.raises(Incomplete):
            alpn_protocols(record[:size])


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b"", b"\x17\x03\x03"])
def test_other_protocols_are_told_apart(first: bytes) -> None:
    with pytest.raises(NotTls):
        alpn_protocols(first)


@given(st.binary(max_size=300), st.integers(0, 250), st.binary(max_size=8))
def test_any_bytes_end_in_an_answer(garbage: bytes, at: int, patch: bytes) -> None:
    record = bytearray(hello(["mooring/1"]))
    record[at : at + len(patch)] = patch
    for peeked in (bytes(record), b"\x16\x03\x01" + garbage):
        try:
            alpn_protocols(peeked)
        except (NotTls, Incomplete):
            continue
