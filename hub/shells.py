"""`Shells`: terminals on nodes, from the browser or a client; opened, listed, limited, ended.

The rules it guards: a session is stored before it is opened and ends in the store whatever ends it;
nobody has more than his share; one that is idle or old is ended with a reason (the socket or tunnel
that carries it ends it when its user's rights end). Ending resets the stream, and the node ends the
process group.

    async with shells.open(subject, "web-1", Terminal(rows=24), "browser") as shell:
        while (screen := await shell.receive()) is not None: ...
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import msgspec

from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.errors import Conflict, Forbidden, NodeOffline, NotFound, Unavailable
from hub.events import EventLog
from hub.ids import sortable_id
from hub.node_reports import clean_text
from hub.nodes import Nodes
from hub.nodeview import NodeView
from hub.registry import Registry
from hub.store import shells as queries
from hub.store.engine import Store
from hub.store.shells import ShellRow
from hub.tasks.spec import ROOT_USERS
from protocol.aio import Channel
from protocol.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    ResetCode,
    StreamReset,
    TunnelClosed,
)
from protocol.messages import Pty
from protocol.record_types import Exited, PtyFromHub, PtyFromNode, Screen

logger = logging.getLogger(__name__)

PER_NODE = 10
PER_USER = 20
IDLE_S = 15 * 60.0
"""Without a keystroke and without output."""
ABSOLUTE_S = 8 * 3600.0
TERM = "xterm-256color"


class ShellSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the API shows it; `ended_at` is null while it is open."""

    id: str
    node: str
    subject: str
    origin: str
    argv: list[str]
    started_at: float
    ended_at: float | None
    exit_code: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """What to open: the command (empty: the login shell), whose, and how large."""

    argv: Sequence[str] = ()
    user: str | None = None
    rows: int = 24
    columns: int = 80
    term: str = TERM


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions and how long."""

    per_node: int = PER_NODE
    per_user: int = PER_USER
    idle_s: float = IDLE_S
    absolute_s: float = ABSOLUTE_S


class Shell:
    """One open session; records go through `receive` and `send`, which note that it is in use."""

    def __init__(
        self, row: ShellRow, subject: Subject, channel: Channel[PtyFromHub, PtyFromNode]
    ) -> None:
        self.row = row
        self.subject = subject
        self.exited: Exited | None = None
        self.reason = ""
        """Why it ended, when the terminal did not simply exit."""
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._used_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._killed = asyncio.Event()

    @property
    def id(self) -> str:
        """The session's id."""
        return self.row.id

    async def receive(self) -> Screen | None:
        """Wait for output; None when the terminal ended, and `exited` or `reason` says how."""
        try:
            record = await self._channel.receive()
        except (StreamReset, TunnelClosed, RemoteProtocolError) as error:
            self.reason = self.reason or clean_text(str(error))
            return None
        self._used_at = self._loop.time()
        match record:
            case Screen():
                return record
            case Exited():
                self.exited = record
                self.reason = self.reason or clean_text(record.detail or record.reason)
            case None:
                self.reason = self.reason or "the node ended the stream"
            case _:
                assert_never(record)
        return None

    async def send(self, record: PtyFromHub) -> None:
        """Send a keystroke or a size; waits while the node does not take them.

        Raises:
            StreamReset, TunnelClosed: the terminal has ended.
        """
        self._used_at = self._loop.time()
        await self._channel.send(record)

    def end(self, reason: str) -> None:
        """End the terminal; the first reason stays."""
        self.reason = self.reason or reason
        self._channel.reset(ResetCode.CANCELLED, reason)
        self._killed.set()

    async def killed(self) -> None:
        """Wait for `end`, which must not wait for a viewer that takes nothing."""
        await self._killed.wait()

    def limit(self, limits: Limits) -> None:
        """End the session when it has been idle or open for too long."""
        now = self._loop.time()
        idle_at, old_at = self._used_at + limits.idle_s, self._opened_at + limits.absolute_s
        if now >= old_at:
            self.end(f"open for {limits.absolute_s / 3600:.3g} hours")
        elif now >= idle_at:
            self.end(f"idle for {limits.idle_s / 60:.3g} minutes")
        else:
            self._timer = self._loop.call_at(min(idle_at, old_at), self.limit, limits)

    def close(self) -> None:
        """Let go of the stream and the timer."""
        if self._timer is not None:
            self._timer.cancel()
        if self.exited is None:
            self._channel.reset(ResetCode.CANCELLED, self.reason or "the session was closed")
        else:
            self._channel.leave()


class Shells:
    """All shell sessions of the hub."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        nodes: Nodes,
        events: EventLog,
        audit: Audit,
        limits: Limits = Limits(),
    ) -> None:
        self._store = store
        self._registry = registry
        self._nodes = nodes
        self._events = events
        self._audit = audit
        self._limits = limits
        self._open: dict[str, Shell | ShellRow] = {}
        """Sessions by id; a row while its stream is being opened."""

    async def resume(self) -> None:
        """End in the store what the last hub left open; call it once at the start."""
        at = time.time()
        await self._store.write(
            lambda connection: queries.end_open_sessions(connection, at, "the hub was restarted")
        )

    @asynccontextmanager
    async def open(
        self,
        subject: Subject,
        node: str,
        terminal: Terminal,
        origin: Literal["browser", "client"],
    ) -> AsyncIterator[Shell]:
        """Open a terminal on a node, by name or id; it is ended when the block is left.

        Raises:
            NotFound, Forbidden, Conflict (too many sessions), NodeOffline, Unavailable.
        """
        view = await self._admit(subject, node, terminal)
        row = ShellRow(
            id=sortable_id(),
            node_id=view.id,
            node_name=view.name,
            subject=subject.name,
            origin=origin,
            argv=list(terminal.argv),
            started_at=time.time(),
        )
        self._open[row.id] = row
        try:
            await self._store.write(lambda connection: queries.insert_session(connection, row))
            shell = await self._connect(row, subject, terminal)
            try:
                await self._tell_opened(row)
                yield shell
            finally:
                shell.close()
                await self._ended(row, shell.exited, shell.reason or "closed by its user")
        finally:
            del self._open[row.id]

    async def page(
        self, limit: int, cursor: str | None
    ) -> tuple[list[ShellSession], str | None, int]:
        """Show the newest sessions: the page, the next cursor, how many in all."""
        async with self._store.read() as connection:
            rows, total = await queries.list_sessions(connection, limit + 1, cursor)
        shown = rows[:limit]
        return [_view(row) for row in shown], shown[-1].id if len(rows) > limit else None, total

    async def kill(self, subject: Subject, session_id: str) -> None:
        """End an open session.

        Raises:
            NotFound: no open session has that id.
            Forbidden: the subject may not have shells on that node.
        """
        shell = self._open.get(session_id)
        if not isinstance(shell, Shell):
            raise NotFound("open session", session_id)
        authorize(subject, Verb.SHELL, shell.row.node_name)
        shell.end(f"ended by {subject.name}")
        await self._audit.record(subject.name, "shell.kill", session_id, address=subject.address)

    # --- inside ---

    async def _admit(self, subject: Subject, node: str, terminal: Terminal) -> NodeView:
        view = self._nodes.get(node)
        try:
            authorize(subject, Verb.SHELL, view.name)
            if terminal.user in ROOT_USERS:
                authorize(subject, Verb.EXEC_ROOT, view.name)
        except Forbidden:
            await self._audit.record(
                subject.name, "shell.open", view.name, outcome="denied", address=subject.address
            )
            raise
        rows = [entry.row if isinstance(entry, Shell) else entry for entry in self._open.values()]
        if sum(row.node_id == view.id for row in rows) >= self._limits.per_node:
            raise Conflict(f"{view.name} has {self._limits.per_node} open shells; close one first")
        if sum(row.subject == subject.name for row in rows) >= self._limits.per_user:
            raise Conflict(f"you have {self._limits.per_user} open shells; close one first")
        return view

    async def _connect(self, row: ShellRow, subject: Subject, terminal: Terminal) -> Shell:
        message = Pty(
            session=row.id,
            argv=row.argv,
            user=terminal.user,
            env={"TERM": terminal.term},
            rows=terminal.rows,
            columns=terminal.columns,
            subject=subject.name,
        )
        await self._audit.record(
            subject.name,
            "shell.open",
            row.node_name,
            address=subject.address,
            detail={"session": row.id, "argv": row.argv[:16], "user": terminal.user},
        )
        try:
            stream = await self._registry.open(row.node_id, message)
        except (NodeOffline, LocalProtocolError) as error:
            await self._ended(row, None, str(error))
            if isinstance(error, LocalProtocolError):
                raise Unavailable(str(error)) from error
            raise
        shell = Shell(row, subject, Channel(stream, PtyFromNode))
        shell.limit(self._limits)
        self._open[row.id] = shell
        return shell

    async def _tell_opened(self, row: ShellRow) -> None:
        data = {"session": row.id, "subject": row.subject, "origin": row.origin}
        await self._events.publish(
            "shell.opened", node_id=row.node_id, node=row.node_name, data=data
        )

    async def _ended(self, row: ShellRow, exited: Exited | None, reason: str) -> None:
        """Store and tell an ending; the session is over even when the store does not take it."""
        exit_code = exited.exit_code if exited is not None else None
        if exited is not None and not exited.reason:
            reason = ""
        at = time.time()
        try:
            await self._store.write(
                lambda connection: queries.end_session(connection, row.id, at, exit_code, reason)
            )
            await self._events.publish(
                "shell.closed",
                node_id=row.node_id,
                node=row.node_name,
                data={"session": row.id, "exit_code": exit_code, "reason": reason},
            )
            await self._audit.record(
                row.subject,
                "shell.close",
                row.node_name,
                detail={"session": row.id, "exit_code": exit_code, "reason": reason},
            )
        except Unavailable as error:
            logger.warning("the end of session %s is not stored: %s", row.id, error)


def _view(row: ShellRow) -> ShellSession:
    return ShellSession(
        id=row.id,
        node=row.node_name,
        subject=row.subject,
        origin=row.origin,
        argv=row.argv,
        started_at=row.started_at,
        ended_at=row.ended_at,
        exit_code=row.exit_code,
        reason=row.reason,
    )


async def until_first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run until one of them has ended; the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coroutine) for coroutine in coroutines]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
