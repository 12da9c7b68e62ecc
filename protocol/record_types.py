"""What a stream carries once it is open: one tagged Struct per type of record (SPEC §6.2).

The unions at the end say which types a kind of stream allows in which direction; `records` puts
them into bytes. Everything received from the other side is hostile: lengths are bounded here,
meaning is checked by the handler.
"""

from __future__ import annotations

import zlib
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from protocol.errors import RemoteProtocolError
from protocol.messages import Cells, InstalledPackage, Message, Name, Port, Size, Text

Part = Annotated[bytes, Meta(max_length=64 * 1024)]
"""A piece of a byte sequence; at most 64 KiB so that one record never outgrows the record limit."""


class Stdin(Message, tag="stdin", frozen=True):
    """A piece of a command's standard input; an empty one is end of file, and so is FIN."""

    data: Part


class Cancel(Message, tag="cancel", frozen=True):
    """End the command's process group; `Exited` with reason `cancelled` follows."""


class Acknowledge(Message, tag="ack", frozen=True):
    """The hub has stored the result: the node may forget the run."""


class Started(Message, tag="started", frozen=True):
    """The command runs."""

    pid: Size
    started_at: float
    """Seconds since the epoch on the node's clock."""


class Output(Message, tag="out", frozen=True):
    """A piece of output: `stream` 1 is stdout, 2 is stderr; `offset` counts its bytes."""

    stream: Annotated[int, Meta(ge=1, le=2)]
    offset: Size
    data: Part


class Exited(Message, tag="exited", frozen=True):
    """The command or terminal ended.

    Exactly one of `exit_code` and `signal` is set, unless it never started.
    """

    exit_code: Annotated[int, Meta(ge=0, le=255)] | None = None
    signal: Annotated[int, Meta(ge=1, le=64)] | None = None
    reason: Name = ""
    """Empty, or one of: timeout, cancelled, interrupted, not_started, output_limit, killed."""
    detail: Text = ""
    stdout_bytes: Size = 0
    stderr_bytes: Size = 0


class Input(Message, tag="in", frozen=True):
    """Keystrokes for a terminal."""

    data: Part


class Resize(Message, tag="resize", frozen=True):
    """A terminal's new size."""

    rows: Cells
    columns: Cells


class Screen(Message, tag="screen", frozen=True):
    """A terminal's output, as the PTY gave it."""

    data: Part


class ChunkDigests(Message, tag="digests", frozen=True):
    """The SHA-256 of consecutive chunks, 32 bytes each."""

    digests: Part


class Missing(Message, tag="missing", frozen=True):
    """Which chunks the node needs, as [first, last] pairs; empty when it holds the artifact."""

    ranges: Annotated[list[tuple[int, int]], Meta(max_length=4096)]


class ChunkPart(Message, tag="part", frozen=True):
    """A piece of chunk `index` at `offset` bytes from the chunk's start."""

    index: Annotated[int, Meta(ge=0, lt=2**20)]
    offset: Size
    data: Part


class ChunkStored(Message, tag="stored", frozen=True):
    """Chunk `index` is verified and on disk."""

    index: Annotated[int, Meta(ge=0, lt=2**20)]


class ChunkRefused(Message, tag="refused", frozen=True):
    """Chunk `index` did not match its digest: send it again."""

    index: Annotated[int, Meta(ge=0, lt=2**20)]


class Stored(Message, tag="complete", frozen=True):
    """The whole artifact is verified and in the cache."""


class Progress(Message, tag="progress", frozen=True):
    """A stage of an installation was entered: verify, unpack, switch, commit."""

    stage: Name
    detail: Text = ""


class Installed(Message, tag="installed", frozen=True):
    """How an installation ended, and what is installed now."""

    ok: bool
    changed: bool = False
    error: Text = ""
    packages: Annotated[list[InstalledPackage], Meta(max_length=1000)] = msgspec.field(
        default_factory=list
    )


class Series(Message, tag="series", frozen=True):
    """One time series of a node's metrics; a value v on the wire means v * scale in `unit`."""

    name: Name
    """Dotted: cpu.total, cpu.core.0, memory.used, disk./.used, net.eth0.rx."""
    unit: Name
    """percent, bytes, bytes/s, count, load."""
    scale: float = 1.0


class Schema(Message, tag="schema", frozen=True):
    """The series whose values the following samples carry, in this order."""

    deflated: Part
    """A msgpack array of at most 2,000 `Series`, by zlib; at most 256 KiB without it. Names repeat,
    and a connection that never carried a large frame needs a third less memory at the hub."""

    @classmethod
    def of(cls, series: list[Series]) -> Schema:
        """Make the record that says so."""
        return cls(deflated=zlib.compress(msgspec.msgpack.encode(series), 9))

    def series(self) -> list[Series]:
        """Return the series.

        Raises:
            RemoteProtocolError: it is no such array, or too long.
        """
        inflater = zlib.decompressobj()
        try:
            data = inflater.decompress(self.deflated, _SERIES_BYTES)
            if not inflater.eof:
                raise RemoteProtocolError("a schema is cut short or too long")
            return _SERIES.decode(data)
        except (zlib.error, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"malformed schema: {error}") from error


_SERIES: msgspec.msgpack.Decoder[list[Series]] = msgspec.msgpack.Decoder(
    Annotated[list[Series], Meta(max_length=2000)]
)
_SERIES_BYTES = 256 * 1024


class Sample(Message, tag="sample", frozen=True):
    """Values of all series of the last schema, in its order; None, or missing at the end: a gap."""

    at_ms: Size
    """Milliseconds since the epoch on the node's clock."""
    values: Annotated[list[int | None], Meta(max_length=2000)]


class Rate(Message, tag="rate", frozen=True):
    """How often the hub wants samples: 1 while somebody watches, else 10."""

    interval_s: Annotated[int, Meta(ge=1, le=3600)]


class Listening(Message, tag="listening", frozen=True):
    """The port is open."""

    port: Port
    """The one that was asked for, or that the system picked."""


class Accepted(Message, tag="accepted", frozen=True):
    """The hub took a report."""


class Certificate(Message, tag="certificate", frozen=True):
    """The node's new certificate and the CA's chain."""

    certificate_pem: Annotated[bytes, Meta(max_length=32 * 1024)]
    trust_pem: Annotated[bytes, Meta(max_length=32 * 1024)]


ExecFromHub: TypeAlias = Stdin | Cancel | Acknowledge
ExecFromNode: TypeAlias = Started | Output | Exited
PtyFromHub: TypeAlias = Input | Resize
PtyFromNode: TypeAlias = Screen | Exited
TransferFromHub: TypeAlias = ChunkDigests | ChunkPart
TransferFromNode: TypeAlias = Missing | ChunkStored | ChunkRefused | Stored
InstallFromNode: TypeAlias = Progress | Installed
MetricsFromAgent: TypeAlias = Schema | Sample
Record: TypeAlias = (
    ExecFromHub
    | ExecFromNode
    | PtyFromHub
    | Screen
    | TransferFromHub
    | TransferFromNode
    | InstallFromNode
    | MetricsFromAgent
    | Rate
    | Listening
    | Accepted
    | Certificate
)
