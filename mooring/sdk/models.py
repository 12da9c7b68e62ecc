"""What the hub answers, as Structs: the shapes of `docs/design/api.md`.

Times are seconds since the epoch. Fields that a newer hub adds are ignored, fields that an older
one leaves out have defaults, so neighbouring versions understand each other. Forwards, links and
published services are in `ways`.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class Page(Model, Generic[T], frozen=True):
    """A piece of a list; `next_cursor` is where the next one begins."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None


class Disk(Model, frozen=True):
    """A mounted file system."""

    mount: str
    device: str = ""
    kind: str = ""
    size_bytes: int = 0


class Facts(Model, frozen=True):
    """What a node says of itself; every text is the node's own."""

    hostname: str = ""
    os_id: str = ""
    os_family: str = ""
    os_name: str = ""
    os_version: str = ""
    arch: str = ""
    kernel: str = ""
    cpus: int = 0
    cpu_model: str = ""
    memory_bytes: int = 0
    swap_bytes: int = 0
    disks: list[Disk] = []
    addresses: list[str] = []
    boot_id: str = ""
    boot_time: int = 0
    timezone: str = ""
    agent_version: str = ""
    agent_user: str = ""
    verbs: list[str] = []
    """What its own policy allows: exec, shell, forward, deploy."""


class PackageOnNode(Model, frozen=True):
    """A package that is installed on a node."""

    name: str
    version: str


class Spark(Model, frozen=True):
    """The last ten minutes in 60 values, None where there is none."""

    cpu: list[float | None] = []
    memory: list[float | None] = []


class Node(Model, frozen=True):
    """A node."""

    id: str
    name: str
    status: str
    """online, offline, never, quarantined or revoked."""
    status_since: float | None = None
    status_reason: str = ""
    """Why it is quarantined or revoked."""
    groups: list[str] = []
    labels: dict[str, str] = {}
    packages: list[PackageOnNode] = []
    facts: Facts = Facts()
    address: str | None = None
    created_at: float | None = None
    connected_at: float | None = None
    last_seen_at: float | None = None
    rtt_ms: float | None = None
    certificate_expires_at: float | None = None
    spark: Spark = Spark()


class Group(Model, frozen=True):
    """A static group."""

    name: str
    description: str = ""
    nodes: list[str] = []
    created_at: float | None = None


class JoinToken(Model, frozen=True, omit_defaults=True):
    """A join token; `token` and `command` are known only when it was just made."""

    id: str
    uses: int
    uses_left: int
    groups: list[str] = []
    labels: dict[str, str] = {}
    created_by: str = ""
    created_at: float | None = None
    expires_at: float | None = None
    token: str = ""
    command: str = ""


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A command and the nodes to run it on."""

    target: str
    argv: list[str]
    user: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin_base64: str | None = None
    """At most 1 MiB before encoding."""
    timeout_s: float = 60.0
    parallel: int = 50
    max_errors: int | None = None


class Run(Model, frozen=True):
    """A task on one node."""

    id: str
    node: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    truncated: bool = False
    started_at: float | None = None
    finished_at: float | None = None


class Task(Model, frozen=True):
    """A command that was given; `runs` is there when one task was asked for."""

    id: str
    state: str
    target: str = ""
    argv: list[str] = []
    subject: str = ""
    user: str | None = None
    cwd: str | None = None
    timeout_s: float = 60.0
    parallel: int = 50
    max_errors: int | None = None
    created_at: float | None = None
    finished_at: float | None = None
    counts: dict[str, int] = {}
    runs: list[Run] | None = None


class OutputEvent(Model, frozen=True, tag_field="type", tag="output"):
    """A piece of a node's output."""

    node: str
    stream: str
    """stdout or stderr."""
    data: str


class ResultEvent(Model, frozen=True, tag_field="type", tag="result"):
    """A run ended."""

    node: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    reason: str = ""


class SummaryEvent(Model, frozen=True, tag_field="type", tag="summary"):
    """The task ended; nothing follows."""

    task: str
    ok: int
    failed: int
    state: str = ""


TaskEvent: TypeAlias = OutputEvent | ResultEvent | SummaryEvent


class Package(Model, frozen=True):
    """One version of a package in the hub's repository."""

    name: str
    version: str
    format: str = ""
    description: str = ""
    manifest: dict[str, Any] | None = None
    digest: str = ""
    size_bytes: int = 0
    created_by: str = ""
    created_at: float | None = None
    nodes: list[str] | int = []
    """Where it is installed: names, or how many."""


class DeploymentSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to bring where."""

    package: str
    target: str
    action: Annotated[str, Meta(pattern="^(install|update|uninstall)$")] = "install"
    version: str | None = None
    parallel: int | None = None


class DeploymentNode(Model, frozen=True):
    """A deployment on one node."""

    node: str
    state: str
    stage: str = ""
    done_bytes: int = 0
    total_bytes: int = 0
    changed: bool = False
    error: str = ""
    started_at: float | None = None
    finished_at: float | None = None


class Deployment(Model, frozen=True):
    """A package brought to nodes; `nodes` is there when one deployment was asked for."""

    id: str
    state: str
    package: str = ""
    version: str = ""
    action: str = ""
    target: str = ""
    subject: str = ""
    parallel: int = 0
    created_at: float | None = None
    finished_at: float | None = None
    counts: dict[str, int] = {}
    nodes: list[DeploymentNode] | None = None


class NodeProgress(DeploymentNode, frozen=True, tag_field="type", tag="node"):
    """A deployment moved on one node."""


class DeploymentSummary(Model, frozen=True, tag_field="type", tag="summary"):
    """The deployment ended; nothing follows."""

    deployment: str = ""
    state: str = ""
    ok: int | None = None
    failed: int | None = None
    counts: dict[str, int] = {}


DeploymentEvent: TypeAlias = NodeProgress | DeploymentSummary


class ShellSession(Model, frozen=True):
    """A terminal that is or was open on a node."""

    id: str
    node: str
    subject: str = ""
    origin: str = ""
    argv: list[str] = []
    started_at: float | None = None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""


class SeriesInfo(Model, frozen=True):
    """What one column of a history is."""

    name: str
    unit: str = ""


class History(Model, frozen=True):
    """A node's metrics: `values` has one row per series, as long as `at`; None is a gap."""

    series: list[SeriesInfo] = []
    at: list[float] = []
    values: list[list[float | None]] = []


class User(Model, frozen=True):
    """A person, or a program, that may sign in."""

    name: str
    role: str
    disabled: bool = False
    created_at: float | None = None


class Session(Model, frozen=True):
    """A sign-in by password, held by a cookie."""

    user: User
    csrf: str
    expires_at: float | None = None


class ApiToken(Model, frozen=True, omit_defaults=True):
    """A bearer token; `token` itself is known only when it was just made."""

    id: str
    name: str
    role: str
    user: str = ""
    created_at: float | None = None
    expires_at: float | None = None
    last_used_at: float | None = None
    token: str = ""


class AuditEntry(Model, frozen=True):
    """One line of the audit log."""

    id: int
    at: float
    subject: str
    act: str
    object: str = ""
    outcome: str = ""
    address: str = ""
    detail: dict[str, Any] | None = None


class Event(Model, frozen=True):
    """Something happened in the mesh."""

    id: int
    at: float
    kind: str
    node: str | None = None
    data: Any = None


class About(Model, frozen=True):
    """What answers."""

    name: str
    version: str = ""
    mesh_id: str = ""
    ca_fingerprint: str = ""
