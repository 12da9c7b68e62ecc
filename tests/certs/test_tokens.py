from __future__ import annotations

import base64

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import TokenMalformed
from certs.tokens import (
    JoinToken,
    decode_token,
    encode_token,
    hash_secret,
    make_secret,
    secret_from_text,
    secret_to_text,
)

TOKEN = JoinToken(
    hubs=("https://hub.example:8443", "https://[2001:db8::1]"), pin=b"p" * 32, secret=b"s" * 32
)


def test_a_token_survives_the_way_through_a_terminal() -> None:
    text = encode_token(TOKEN)
    assert text.startswith("moor1.")
    assert text.isascii()
    assert not set(text) & set(" \n'\"$`\\/+=")
    assert decode_token(f"  {text}\n") == TOKEN


def test_the_secret_is_never_shown() -> None:
    shown = repr(TOKEN)
    assert "ssss" not in shown
    assert secret_to_text(TOKEN.secret) not in shown


def packed(**fields: object) -> str:
    body = {"hubs": ["https://h"], "pin": b"p" * 32, "secret": b"s" * 32} | fields
    return "moor1." + base64.urlsafe_b64encode(msgspec.msgpack.encode(body)).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "moor1.",
        "moor2.abcd",
        "moor1.!!!!",
        "moor1." + "A" * 5000,
        encode_token(TOKEN)[:-3],
        packed(hubs=[]),
        packed(hubs=["https://h"] * 9),
        packed(hubs=["http://h"]),
        packed(hubs=["https://h/path"]),
        packed(hubs=["https://h\n"]),
        packed(hubs=["https://user@h"]),
        packed(pin=b"p" * 31),
        packed(secret=b""),
        packed(secret="s" * 32),
    ],
)
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(TokenMalformed) as caught:
        decode_token(text)
    body = text.removeprefix("moor1.")
    assert not body or body not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    with pytest.raises(TokenMalformed):
        decode_token("moor1." + text)


def test_secrets_are_long_and_different() -> None:
    one, other = make_secret(), make_secret()
    assert len(one) == 32
    assert one != other
    assert secret_from_text(secret_to_text(one)) == one
    assert len(hash_secret(one)) == 64


@pytest.mark.parametrize("text", ["", "abc", "é" * 43, "A" * 44, "A" * 42, "*" * 43])
def test_a_text_that_is_no_secret_is_refused(text: str) -> None:
    with pytest.raises(TokenMalformed):
        secret_from_text(text)
