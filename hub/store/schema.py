"""Every table of the hub, as SQLAlchemy Core; constraints live here and not only in code.

Times are seconds since the epoch (Float), ids are text (uuid4 hex or a sortable id), documents are
JSON. Migrations in `hub/store/migrations` build exactly this; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

ROLES = ("viewer", "operator", "deployer", "admin")
RUN_STATES = (
    "queued", "sent", "running", "succeeded", "failed", "timed_out", "expired", "cancelled",
    "rejected", "skipped", "lost",
)  # fmt: skip
TASK_STATES = ("running", "succeeded", "failed", "cancelled")
DEPLOYMENT_STATES = ("running", "succeeded", "failed", "cancelled")
STEP_STATES = (
    "queued", "transferring", "installing", "succeeded", "failed", "skipped", "cancelled", "lost",
)  # fmt: skip


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


users = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),  # NULL: cannot sign in with a password
    Column("disabled", Boolean, nullable=False, default=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint(_one_of("role", ROLES), name="role"),
)

browser_sessions = Table(
    "browser_sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("csrf", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("address", String(64), nullable=False),
    Column("user_agent", String(256), nullable=False, default=""),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(64), nullable=False),
    Column("role", String(16), nullable=False),  # scope: at most the user's own role
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("last_used_at", Float),
    CheckConstraint(_one_of("role", ROLES), name="role"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(36), primary_key=True),  # UUID, as in the certificate's SAN
    Column("name", String(64), nullable=False, unique=True),
    Column("labels", JSON, nullable=False, default=dict),
    Column("facts", JSON, nullable=False, default=dict),
    Column("packages", JSON, nullable=False, default=list),
    Column("state", String(16), nullable=False, default="active"),
    Column("state_reason", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
    Column("connected_at", Float),  # start of the present or last tunnel
    Column("last_seen_at", Float),  # end of the last tunnel; NULL and not connected: never seen
    Column("address", String(64)),
    CheckConstraint(_one_of("state", ("active", "quarantined", "revoked")), name="state"),
)

groups = Table(
    "groups",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False, default=""),
    Column("created_at", Float, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("group_id", ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, index=True),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("uses_left", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("groups", JSON, nullable=False, default=list),
    Column("labels", JSON, nullable=False, default=dict),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    CheckConstraint("uses_left >= 0 AND uses_left <= uses", name="uses_left"),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", String(40), primary_key=True),  # hex
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("fingerprint", String(64), nullable=False, unique=True),  # SHA-256 of the DER
    Column("key_hash", String(64), nullable=False),  # SHA-256 of the SPKI
    Column("not_before", Float, nullable=False),
    Column("not_after", Float, nullable=False),
    Column("revoked_at", Float),
    Column("revoked_reason", Text),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("subject", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("spec", JSON, nullable=False),  # argv, user, cwd, env, timeout_s, parallel, max_errors
    Column("stdin", LargeBinary),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    CheckConstraint(_one_of("state", TASK_STATES), name="state"),
    Index("ix_tasks_created_at", "created_at"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),  # the `run` of the wire
    Column("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), nullable=False),
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("node_name", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("exit_code", Integer),
    Column("signal", Integer),
    Column("stdout_head", LargeBinary, nullable=False, default=b""),  # first 64 KiB
    Column("stdout_tail", LargeBinary, nullable=False, default=b""),  # last 192 KiB of the rest
    Column("stderr_head", LargeBinary, nullable=False, default=b""),
    Column("stderr_tail", LargeBinary, nullable=False, default=b""),
    Column("stdout_bytes", Integer, nullable=False, default=0),
    Column("stderr_bytes", Integer, nullable=False, default=0),
    Column("started_at", Float),
    Column("finished_at", Float),
    UniqueConstraint("task_id", "node_id"),
    CheckConstraint(_one_of("state", RUN_STATES), name="state"),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the whole
    Column("size_bytes", Integer, nullable=False),
    Column("chunk_bytes", Integer, nullable=False),
    Column("chunk_digests", LargeBinary, nullable=False),  # 32 bytes a chunk
    Column("created_at", Float, nullable=False),
    CheckConstraint("size_bytes >= 0", name="size_bytes"),
)

packages = Table(
    "packages",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("format", String(16), nullable=False),
    Column("description", Text, nullable=False, default=""),
    Column("manifest", JSON, nullable=False, default=dict),  # service.json, when there is one
    Column("digest", ForeignKey("artifacts.digest"), nullable=False, index=True),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    UniqueConstraint("name", "version"),
    CheckConstraint(_one_of("format", ("zip", "tar.gz")), name="format"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("subject", String(64), nullable=False),
    Column("target", Text, nullable=False),
    Column("action", String(16), nullable=False),
    Column("package", String(128), nullable=False),
    Column("version", String(128), nullable=False),
    Column("digest", String(64)),
    Column("parallel", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    CheckConstraint(_one_of("state", DEPLOYMENT_STATES), name="state"),
    CheckConstraint(_one_of("action", ("install", "update", "uninstall")), name="action"),
    Index("ix_deployments_created_at", "created_at"),
)

deployment_nodes = Table(
    "deployment_nodes",
    metadata,
    Column("deployment_id", ForeignKey("deployments.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("node_name", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", String(32), nullable=False, default=""),
    Column("done_bytes", Integer, nullable=False, default=0),
    Column("total_bytes", Integer, nullable=False, default=0),
    Column("changed", Boolean, nullable=False, default=False),
    Column("error", Text, nullable=False, default=""),
    Column("started_at", Float),
    Column("finished_at", Float),
    CheckConstraint(_one_of("state", STEP_STATES), name="state"),
)

shell_sessions = Table(
    "shell_sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("node_name", String(64), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("origin", String(16), nullable=False),  # browser or client
    Column("argv", JSON, nullable=False, default=list),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("exit_code", Integer),
    Column("reason", Text, nullable=False, default=""),
)

published_services = Table(
    "published_services",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("node_id", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host", String(255), nullable=False),  # as the node reaches it
    Column("port", Integer, nullable=False),
    Column("scheme", String(8), nullable=False),
    Column("verify", Boolean, nullable=False),  # the certificate, with https
    Column("host_name", String(253), unique=True),  # None: below the hub's own address
    Column("keep_host", Boolean, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    CheckConstraint(_one_of("scheme", ("http", "https")), name="scheme"),
)

links = Table(
    "links",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("from_node", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False),
    Column("bind", String(45), nullable=False),
    Column("port", Integer, nullable=False),
    Column("to_node", ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host", String(253), nullable=False),
    Column("to_port", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False, default=True),
    Column("created_by", String(64), nullable=False),
    Column("user_id", String(32), nullable=False),  # of created_by; the user may be gone
    Column("created_at", Float, nullable=False),
    UniqueConstraint("from_node", "bind", "port"),
    CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
    CheckConstraint("to_port BETWEEN 1 AND 65535", name="to_port"),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(128), primary_key=True),
    Column("value", JSON, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String(64), nullable=False),  # node.online, task.finished, …
    Column("node_id", String(36), index=True),
    Column("data", JSON, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("subject", String(64), nullable=False),  # a user, node:<name>, or anonymous
    Column("address", String(64), nullable=False, default=""),
    Column("act", String(64), nullable=False),  # session.create, task.create, node.refuse …
    Column("object", String(256), nullable=False, default=""),
    Column("outcome", String(16), nullable=False),
    Column("detail", JSON, nullable=False, default=dict),
    CheckConstraint(_one_of("outcome", ("ok", "denied", "failed")), name="outcome"),
)
