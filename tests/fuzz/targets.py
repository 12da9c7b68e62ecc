"""What is fuzzed: functions from bytes to nothing that raise when a promise is broken."""

from __future__ import annotations

import contextlib
import io
import ipaddress
from collections.abc import Callable
from typing import Any

import msgspec

from edge_agent.forward_rules import is_guarded, normal, parse_rule
from edge_agent.policy import Policy
from edge_agent.proxies import BadProxy, parse_proxy
from edge_agent.proxies.choice import exempting
from hub.client_hello import Incomplete, NotTls, alpn_protocols
from hub.errors import InvalidTarget
from hub.listener import plain_answer
from hub.targets.parse import parse as parse_target
from protocol import frames, messages, record_types
from protocol.archive_rules import ArchiveLimits, ArchiveRefused
from protocol.archives import format_of, walk
from protocol.errors import RemoteProtocolError
from protocol.frames import Type
from protocol.opens import OpenDecoder, OpenRefused
from protocol.records import RecordReader
from tests.fuzz.conversation import Conversation

SMALL = ArchiveLimits(
    entries=50, unpacked_bytes=200_000, ratio_free_bytes=10_000, path_bytes=100, depth=8
)
RECORDS: tuple[object, ...] = (
    record_types.ExecFromHub, record_types.ExecFromNode, record_types.PtyFromHub,
    record_types.PtyFromNode, record_types.TransferFromHub, record_types.TransferFromNode,
    record_types.InstallFromNode, record_types.MetricsFromAgent, record_types.Rate,
    record_types.Accepted, record_types.Certificate,
)  # fmt: skip
_PARSERS: dict[int, Callable[[frames.Frame], object]] = {
    Type.HELLO: frames.parse_hello,
    Type.WINDOW: frames.parse_window,
    Type.RESET: frames.parse_reset,
    Type.PING: frames.parse_ping,
    Type.PONG: frames.parse_ping,
    Type.GOAWAY: frames.parse_goaway,
}


def session(data: bytes) -> None:
    """Two sessions in any order of calls, and strangers."""
    Conversation(data).run()


def frame(data: bytes) -> None:
    """A frame is one, or a violation; an OPEN is a message, or refused."""
    with contextlib.suppress(RemoteProtocolError, OpenRefused):
        parsed = frames.parse(data)
        if parsed.type == Type.OPEN:
            OpenDecoder(messages.Open).decode(bytes(parsed.payload))
        elif parser := _PARSERS.get(parsed.type):
            parser(parsed)


def record(data: bytes) -> None:
    """Records are the same, and the violation too, however the bytes are split."""
    kind, content = RECORDS[(data[0] if data else 0) % len(RECORDS)], data[1:]
    whole = _records(kind, [content])
    assert whole == _records(kind, [content[at : at + 7] for at in range(0, len(content), 7)])


def _records(kind: object, pieces: list[bytes]) -> tuple[list[object], str]:
    reader: RecordReader[Any] = RecordReader(kind)
    found: list[object] = []
    try:
        for piece in pieces:
            found += reader.feed(piece)
    except RemoteProtocolError as error:
        return found, error.reason
    return found, ""


def hello(data: bytes) -> None:
    """A ClientHello names protocols, or is none, or is too short; and its beginning is no other."""
    with contextlib.suppress(NotTls, Incomplete):
        names = alpn_protocols(data)
        assert all(len(name) < 256 for name in names)
        assert alpn_protocols(data + b"more") == names


def target(data: bytes) -> None:
    """A target is an expression that reads back from what it prints, or is refused."""
    text = data.decode("utf-8", "replace")
    try:
        expression = parse_target.__wrapped__(text)
    except InvalidTarget as error:
        assert error.column >= 1
        return
    printed = str(expression)
    with contextlib.suppress(InvalidTarget):  # parentheses may make it longer than the limit
        assert parse_target.__wrapped__(printed) == expression, printed


def archive(data: bytes) -> None:
    """An archive is walked within its limits, or refused."""
    with contextlib.suppress(ArchiveRefused):
        total = entries = 0
        for member in walk(io.BytesIO(data), format_of(data[:4]), len(data), SMALL):
            entries += 1
            assert all(part not in ("", ".", "..") for part in member.entry.parts)
            for piece in member.content:
                total += len(piece)
                assert total <= SMALL.unpacked_bytes
        assert entries <= SMALL.entries


def policy(data: bytes) -> None:
    """A policy is one, or a ValueError; no wide rule opens a guarded address."""
    with contextlib.suppress(ValueError):
        msgspec.json.decode(data, type=Policy)
    with contextlib.suppress(ValueError):
        rule = parse_rule(data.decode("utf-8", "replace"))
        for text in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "10.0.0.1", "::1"):
            address = normal(ipaddress.ip_address(text))
            for own in (False, True):
                covered = rule.matches("h", address, rule.ports[0], is_own=own)
                assert not (covered and is_guarded(address) and isinstance(rule.target, str))


def plain(data: bytes) -> None:
    """A plain HTTP request gets one answer, whose head nobody else wrote."""
    head, _, body = plain_answer(data).partition(b"\r\n\r\n")
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
    expected = [b"Location", b"Content-Type", b"Content-Length", b"Connection"]
    assert names in (expected, expected[1:]), head
    assert b"\n" not in head.replace(b"\r\n", b"")
    assert head.isascii()
    assert body.endswith(b"\n")


def proxy(data: bytes) -> None:
    """A proxy's URL is one, or refused without being shown; NO_PROXY is any text."""
    text = data.decode("utf-8", "replace")
    exempting(text, "hub.example", 443)
    exempting(text, "fd00::1", 443)
    secret = "pa55-w0rd"
    with contextlib.suppress(BadProxy):
        assert secret not in str(parse_proxy(f"http://user:{secret}@{text}"))
    try:
        chosen = parse_proxy(text)
    except BadProxy as error:
        assert len(str(error)) < 300
        return
    assert 0 < chosen.port < 65536
    assert chosen.host


def fragile(data: bytes) -> None:
    """Breaks at once, to see that a broken promise is noticed."""
    assert not data.startswith(b"!"), "promised never to begin like this"


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (session, frame, record, hello, target, archive, policy, plain, proxy)
}
