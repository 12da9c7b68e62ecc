"""Where fuzzing begins: small inputs from the golden frames, real messages, and programs.

`python -m tests.fuzz.corpus` writes `corpus/TARGET/NAME`, the same bytes each time. What a long run
found worth keeping is added by hand, under a name that says what it is.
"""

from __future__ import annotations

import contextlib
import random
import ssl
from pathlib import Path

import msgspec

from edge_agent.policy import default_policy
from protocol import frames, messages, record_types, records
from protocol.errors import ResetCode
from tests.archives import make_tar, make_zip, tar_special
from tests.fuzz.targets import RECORDS
from tests.protocol.test_golden import GOLDEN

CORPUS = Path(__file__).with_name("corpus")


def recorded(target: str) -> list[Path]:
    """The files of one target's corpus."""
    return sorted((CORPUS / target).iterdir())


def seeds() -> dict[str, dict[str, bytes]]:
    """The inputs by target and name."""
    return {
        "session": {**{f"program-{n}": _program(n) for n in range(12)}, "stranger": _stranger()},
        "frame": {
            **{f"golden-{n}": data for n, data in enumerate(GOLDEN.values())},
            **{f"open-{type(message).__name__.lower()}": _open(message) for message in _OPENS},
        },
        "record": _records(),
        "hello": {
            f"alpn-{n}": _client_hello(name)
            for n, name in enumerate(("mooring/1", "http/1.1", "h2"))
        },
        "target": {f"target-{n}": text.encode() for n, text in enumerate(_TARGETS)},
        "archive": {
            "zip": make_zip({"a/b.txt": b"hello" * 20, "c": b""}),
            "tar": make_tar({"a/b.txt": b"hello" * 20, "c": b""}),
            "link": make_tar([(tar_special("l", b"2", "../x"), b"")]),
        },
        "policy": {
            "default": msgspec.json.encode(default_policy()),
            **{f"rule-{n}": rule.encode() for n, rule in enumerate(_RULES)},
        },
        "plain": {f"request-{n}": request for n, request in enumerate(_REQUESTS)},
        "proxy": {f"proxy-{n}": url.encode() for n, url in enumerate(_PROXIES)},
    }


_OPENS: tuple[messages.Open, ...] = (
    messages.Forward(host="db.internal", port=5432),
    messages.Report(facts=messages.Facts(hostname="h")),
    messages.Renew(csr_pem=b"-----BEGIN"),
)
_TARGETS = (
    "all", "web-*", "group:web and not status==online", "id:7b1d9c1e-0000-4000-8000-000000000000",
    "(label.env==prod or label.env=='a b') and fact.cpus >= 4", 'pkg.nginx < "1.24"', "~^db[0-9]+$",
)  # fmt: skip
_RULES = ("node:22", "10.0.0.0/8:8000-8999", "[fd00::1]:443", "db.internal:5432", "*", "fe80::/10")
_REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: hub.example:8443\r\n\r\n",
    b"POST / HTTP/1.0\r\nhost:  [::1]:1 \r\nHost: x\r\n\r\n",
    b"GET http://x/ HTTP/1.1\r\n\r\n",
)
_PROXIES = (
    "http://u:p%40@p.example:3128",
    "socks5h://[fd00::1]:1080",
    "p:1",
    "*.example,10.0.0.0/8 [::1]:8",
)


def _open(message: messages.Open) -> bytes:
    return frames.open_stream(2, frames.Class.CALL, msgspec.msgpack.encode(message))


def _records() -> dict[str, bytes]:
    samples: tuple[tuple[object, messages.Message], ...] = (
        (record_types.PtyFromHub, record_types.Input(data=b"ls\n")),
        (record_types.PtyFromHub, record_types.Resize(rows=24, columns=80)),
        (record_types.PtyFromNode, record_types.Screen(data=b"$ ")),
        (record_types.Rate, record_types.Rate(interval_s=1)),
    )
    found = {}
    for kind, message in samples:
        data = bytes([RECORDS.index(kind)]) + 2 * records.encode(message)
        found[type(message).__name__.lower()] = data
    return found


def _program(number: int) -> bytes:
    """A session as it goes: HELLOs cross, streams open, carry, are read, end."""
    chance = random.Random(number)
    greet = bytes([0, 3, 1, 3])
    weights = [*(4,) * 12, *(1,) * 6]
    body = bytes(chance.choices(range(18), weights, k=40 + 20 * number))
    return greet + bytes([5, 4]) + body


def _stranger() -> bytes:
    """After the HELLOs, frames that nobody sent."""
    program = bytes([0, 3, 1, 3, 5, 1, 3])
    for message in (frames.window(2, 2**31 - 1), frames.reset(2, ResetCode.REFUSED, "no")):
        program += bytes([20, 0x80, len(message)]) + message
    return program


def _client_hello(alpn: str) -> bytes:
    """A real one, from OpenSSL; its random bytes are replaced, so that it is always the same."""
    context = ssl.create_default_context()
    context.set_alpn_protocols([alpn])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="hub.example").do_handshake()
    sent = bytearray(outgoing.read())
    sent[11:43] = bytes(32)
    return bytes(sent)


def main() -> None:
    """Write what is missing."""
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            path = folder / name
            if not path.exists():
                path.write_bytes(data)


if __name__ == "__main__":
    main()
