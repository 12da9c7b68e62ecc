"""What opens a stream: one tagged Struct per kind, msgpack on the wire (SPEC §6.1).

An OPEN frame carries one `Open` Struct: it names the kind of stream and its arguments. After it, a
message stream carries records (`protocol.record_types`) that the kind allows, in the direction that
the kind allows; a raw stream (forward) carries bytes. Unknown fields are ignored, unknown kinds are
refused with UNKNOWN_KIND.

Everything received from the other side is hostile: lengths are bounded here, meaning is checked by
the handler.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(max_length=256)]
Text = Annotated[str, Meta(max_length=4096)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in lower-case hex."""
Port = Annotated[int, Meta(ge=1, le=65535)]
Size = Annotated[int, Meta(ge=0, le=2**53)]
Cells = Annotated[int, Meta(ge=1, le=1000)]
"""Columns or rows of a terminal."""
Argv = Annotated[list[Annotated[str, Meta(max_length=128 * 1024)]], Meta(max_length=4096)]
Environment = dict[Name, Annotated[str, Meta(max_length=32 * 1024)]]


CONFIRMED = b"\0"
"""What a `forward` that wants it begins with (SPEC §6.4)."""


class Message(msgspec.Struct, tag_field="k", frozen=True, omit_defaults=True, kw_only=True):
    """Base of everything that is encoded; `k` on the wire is the tag."""


# --- opened by the hub ---


class Exec(Message, tag="exec", frozen=True):
    """Run a command, or attach again to one that the node already knows by `run`.

    The node starts a run at most once: a second `exec` with the same `run` replays its output from
    the two offsets and goes on live. Then: `Stdin`* and `Cancel`, `Acknowledge` from the hub;
    `Started`, `Output`*, `Exited` from the node.
    """

    run: Name
    argv: Argv
    """Empty: attach only; one whose run the node does not know never starts (SPEC §6.3)."""
    user: Name | None = None
    cwd: Text | None = None
    env: Environment = {}
    timeout_s: Annotated[float, Meta(gt=0, le=48 * 3600)] = 60.0
    subject: Name = ""
    """Who asked: the name of a user, for the node's policy and log."""
    has_stdin: bool = False
    """The hub sends `Stdin` records, an empty one last; otherwise stdin is /dev/null."""
    stdout_offset: Size = 0
    stderr_offset: Size = 0


class Pty(Message, tag="pty", frozen=True):
    """A terminal. Then: `Input`, `Resize` from the hub; `Screen`*, `Exited` from the node."""

    session: Name
    argv: Argv = []
    """Empty: the user's login shell."""
    user: Name | None = None
    cwd: Text | None = None
    env: Environment = {}
    rows: Cells = 24
    columns: Cells = 80
    subject: Name = ""


class Transfer(Message, tag="transfer", frozen=True):
    """Bring an artifact to the node's cache, in chunks of `chunk_bytes` verified by SHA-256.

    The hub sends `ChunkDigests`* (32 bytes a chunk, all of them); the node answers one `Missing`;
    the hub sends `ChunkPart`* for the missing chunks in order; the node answers `ChunkStored` for
    each verified chunk (or `ChunkRefused`, and the hub sends it again, three times at most) and
    `Stored` at the end.
    """

    digest: Digest
    size_bytes: Annotated[int, Meta(ge=0, le=4 * 1024**3)]
    chunk_bytes: Annotated[int, Meta(ge=4096, le=4 * 1024**2)] = 1024 * 1024
    subject: Name = ""


class Install(Message, tag="install", frozen=True):
    """Change what is installed. The node answers `Progress`* and one `Installed`.

    `deployment` makes it idempotent: the node answers a repeated one with the stored outcome.
    """

    deployment: Name
    action: Annotated[str, Meta(pattern="^(install|update|uninstall)$")]
    package: Name
    version: Name
    digest: Digest | None = None
    """The artifact, present in the node's cache; None for uninstall."""
    format: Annotated[str, Meta(pattern="^(zip|tar.gz)$")] = "tar.gz"
    subject: Name = ""


class Forward(Message, tag="forward", frozen=True):
    """A TCP connection from the node to host:port; after OPEN the stream is raw bytes both ways."""

    host: Name
    port: Port
    subject: Name = ""
    confirm: bool = False
    """The node sends `CONFIRMED` as soon as it is connected, before any byte of the target."""


class Listen(Message, tag="listen", frozen=True):
    """Listen on the node. The node answers `Listening`; each connection comes as an `Arrival`.

    The stream is the listener's life: FIN or RESET by the hub, or its end, closes the port; the
    connections that came through it live on.
    """

    listener: Name
    """Chosen by the hub, unique in the tunnel; `Arrival` names it."""
    bind: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """0: the system picks one."""
    subject: Name = ""


# --- opened by the agent ---


class Disk(Message, tag="disk", frozen=True):
    """A mounted file system."""

    mount: Text
    device: Text = ""
    kind: Name = ""
    size_bytes: Size = 0


class Facts(Message, tag="facts", frozen=True):
    """What a node is; sent at connect and on change."""

    hostname: Name
    os_id: Name = ""
    """`ID` of os-release: debian, ubuntu, centos, kylin, openEuler, alpine …"""
    os_family: Name = ""
    """debian, rhel, alpine, suse, arch or other: from `ID` and `ID_LIKE`."""
    os_name: Name = ""
    os_version: Name = ""
    arch: Name = ""
    kernel: Name = ""
    cpus: Annotated[int, Meta(ge=0, le=65536)] = 0
    cpu_model: Name = ""
    memory_bytes: Size = 0
    swap_bytes: Size = 0
    disks: Annotated[list[Disk], Meta(max_length=64)] = []
    addresses: Annotated[list[Name], Meta(max_length=64)] = []
    boot_id: Name = ""
    boot_time: Size = 0
    """Seconds since the epoch."""
    timezone: Name = ""
    agent_version: Name = ""
    agent_user: Name = ""
    """The user the agent runs as: root or a plain user."""
    verbs: Annotated[list[Name], Meta(max_length=32)] = []
    """What the node's own policy allows: exec, shell, forward, deploy."""


class InstalledPackage(Message, tag="pkg", frozen=True):
    """A package that Mooring installed on the node."""

    name: Name
    version: Name
    digest: Digest | None = None
    installed_at: Size = 0


class Report(Message, tag="report", frozen=True):
    """Facts and installed packages; the hub answers `Accepted` and FIN."""

    facts: Facts
    packages: Annotated[list[InstalledPackage], Meta(max_length=1000)] = []
    runs: Annotated[list[Name], Meta(max_length=1000)] = []
    """Runs whose results the hub has not acknowledged; it attaches to them with `exec`."""


class Metrics(Message, tag="metrics", frozen=True):
    """A node's metrics: `Schema` and `Sample`* from the agent, `Rate`* from the hub."""


class Renew(Message, tag="renew", frozen=True):
    """A signing request for the key the node already proved; answered by `Certificate`."""

    csr_pem: Annotated[bytes, Meta(max_length=8192)]


class Arrival(Message, tag="arrival", frozen=True):
    """A connection that came in on a listener of the node; after OPEN raw bytes both ways."""

    listener: Name
    peer: Name = ""
    """Address of who connected, as the node saw it."""


# --- opened by a client (the CLI or the SDK) at the hub ---


class ClientForward(Message, tag="client.forward", frozen=True):
    """A TCP connection through a node; the hub authorises it and splices it to a `forward`."""

    node: Name
    host: Name
    port: Port
    via: Annotated[str, Meta(pattern="^(forward|socks|ssh-proxy)$")] = "forward"
    """What the connection is part of; the hub lists connections of one kind to one place as one."""
    confirm: bool = False
    """As in `forward`."""


class ClientListen(Message, tag="client.listen", frozen=True):
    """A port on a node whose connections come out at the client; the hub opens a `listen` there.

    The hub answers `Listening` and opens a `client.arrival` at the client for each connection. The
    stream is the listener's life, as that of `listen`.
    """

    listener: Name
    """Chosen by the client, unique in its tunnel."""
    node: Name
    bind: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 0


class ClientShell(Message, tag="client.shell", frozen=True):
    """A terminal on a node, spliced by the hub to a `pty`: same records, same credit."""

    node: Name
    argv: Argv = []
    user: Name | None = None
    rows: Cells = 24
    columns: Cells = 80
    term: Name = "xterm-256color"


# --- opened by the hub at a client ---


class ClientArrival(Message, tag="client.arrival", frozen=True):
    """A connection that came in on a listener of the client; after OPEN raw bytes both ways."""

    listener: Name
    peer: Name = ""


HubOpen: TypeAlias = Exec | Pty | Transfer | Install | Forward | Listen
AgentOpen: TypeAlias = Report | Metrics | Renew | Arrival
ClientOpen: TypeAlias = ClientForward | ClientListen | ClientShell
HubOpenAtClient: TypeAlias = ClientArrival
Open: TypeAlias = HubOpen | AgentOpen | ClientOpen | HubOpenAtClient
