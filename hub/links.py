"""`Links`: the links between nodes: stored, listed, changed, kept up from one start to the next.

The rule it guards: a link lives by the rights of whoever declared it, asked of the stored user at
every connection; a port is one link's, and no link leads back to itself. A removed node's links are
removed with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Callable

import msgspec

from hub.accounts.changes import Ended
from hub.accounts.users import Users
from hub.audit import Audit
from hub.authz import Role, Subject, Verb, allows, authorize
from hub.errors import BadRequest, Conflict, Forbidden, NotFound
from hub.events import EventLog
from hub.forwards import Forwards
from hub.hosts import check_bind, check_host
from hub.link import Link, Services, State
from hub.listeners import Listeners
from hub.nodes import Nodes
from hub.registry import Registry
from hub.store import links as rows
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.links import LinkRow

LINKS = 500
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class LinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A link as the API shows it: a port of `from_node` that comes out beyond `to_node`."""

    name: str
    from_node: str
    bind: str
    port: int
    to_node: str
    host: str
    to_port: int
    enabled: bool
    created_by: str
    created_at: float
    state: State
    reason: str
    """Why it is not up, or what its last connection met."""
    forward: str | None
    """The id of its forward, which counts its connections, while the port is open."""


class Links:
    """The service; `load` it once, then `run` it."""

    def __init__(
        self,
        store: Store,
        users: Users,
        registry: Registry,
        nodes: Nodes,
        listeners: Listeners,
        forwards: Forwards,
        events: EventLog,
        audit: Audit,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._users = users
        self._nodes = nodes
        self._audit = audit
        self._clock = clock
        self._services = Services(
            registry, listeners, forwards, events, nodes.name_of, self._subject_of
        )
        self._links: dict[str, Link] = {}
        self._saving = asyncio.Lock()
        self._tasks: asyncio.TaskGroup | None = None

    # --- life ---

    async def load(self) -> None:
        """Read all links."""
        async with self._store.read() as connection:
            for row in await rows.all_links(connection):
                self._links[row.name] = Link(row, self._services)

    async def run(self) -> None:
        """Keep all links up until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for link in self._links.values():
                tasks.create_task(link.run())
            await asyncio.Event().wait()

    def node_changed(self, node_id: str) -> None:
        """A node came or went."""
        for link in self._links.values():
            if node_id in (link.row.from_node, link.row.to_node):
                link.wake()

    def node_removed(self, node_id: str) -> None:
        """A node's row was deleted, and its links' rows with it."""
        for link in list(self._links.values()):
            if node_id in (link.row.from_node, link.row.to_node):
                del self._links[link.row.name]
                link.delete(f"a node of the link {link.row.name} was removed")

    def rights_changed(self, ended: Ended) -> None:
        """A user's rights changed: their links ask again."""
        for link in self._links.values():
            if link.row.user_id == ended.user_id:
                link.wake()

    # --- what the API does ---

    def list(self) -> list[LinkView]:
        """Show all links by name."""
        return [self._view(self._links[name]) for name in sorted(self._links)]

    def get(self, name: str) -> LinkView:
        """Show one.

        Raises:
            NotFound: there is none of that name.
        """
        return self._view(self._find(name))

    async def create(
        self,
        subject: Subject,
        name: str,
        from_node: str,
        port: int,
        to_node: str,
        to_port: int,
        *,
        bind: str = "127.0.0.1",
        host: str = "127.0.0.1",
    ) -> LinkView:
        """Declare a link and begin to keep it up.

        Raises:
            NotFound: there is no such node.
            Forbidden: the subject may not forward through both nodes.
            BadRequest: the name, host or address can't be taken.
            Conflict: the name or the port is another link's, it would lead back to itself, or there
                are 500 links.
        """
        if not _NAME.fullmatch(name):
            raise BadRequest("a link's name has 1 to 64 of A-Z a-z 0-9 . _ -")
        row = LinkRow(
            name=name,
            from_node=self._nodes.get(from_node).id,
            bind=check_bind(bind),
            port=port,
            to_node=self._nodes.get(to_node).id,
            host=check_host(host),
            to_port=to_port,
            enabled=True,
            created_by=subject.name,
            user_id=subject.user_id,
            created_at=self._clock(),
        )
        await self._admit(subject, row, "link.create")
        async with self._saving:
            if len(self._links) >= LINKS:
                raise Conflict(f"there are {LINKS} links; delete some first")
            if self._leads_back(row):
                raise Conflict(f"{name!r} would lead back to its own port; give it another target")
            note = self._audit.unit(subject.name, "link.create", name, address=subject.address)

            async def unit(connection: Connection) -> LinkRow:
                await rows.insert_link(connection, row)
                await note(connection)
                return row

            await self._store.write(unit, then=self._begin)
        return self.get(name)

    async def enable(self, subject: Subject, name: str, enabled: bool) -> LinkView:
        """Enable or disable a link.

        Raises:
            NotFound: there is none of that name.
            Forbidden: the subject may not forward through both nodes.
        """
        link, act = self._find(name), "link.enable" if enabled else "link.disable"
        await self._admit(subject, link.row, act)
        note = self._audit.unit(subject.name, act, name, address=subject.address)

        async def unit(connection: Connection) -> LinkRow:
            row = await rows.set_enabled(connection, name, enabled)
            await note(connection)
            return row

        reason = f"the link {name} was disabled by {subject.name}"
        await self._store.write(unit, then=lambda row: link.replace(row, reason))
        return self.get(name)

    async def delete(self, subject: Subject, name: str) -> None:
        """Close a link's port, reset its connections, and forget it.

        Raises:
            NotFound: there is none of that name.
            Forbidden: the subject may not forward through both nodes.
        """
        link = self._find(name)
        await self._admit(subject, link.row, "link.delete")
        note = self._audit.unit(subject.name, "link.delete", name, address=subject.address)

        async def unit(connection: Connection) -> None:
            await rows.delete_link(connection, name)
            await note(connection)

        def forget(_: None) -> None:
            self._links.pop(name, None)
            link.delete(f"the link {name} was deleted by {subject.name}")

        await self._store.write(unit, then=forget)

    # --- inside ---

    def _find(self, name: str) -> Link:
        link = self._links.get(name)
        if link is None:
            raise NotFound("link", name)
        return link

    def _begin(self, row: LinkRow) -> None:
        link = self._links[row.name] = Link(row, self._services)
        if self._tasks is not None:
            self._tasks.create_task(link.run())

    async def _admit(self, subject: Subject, row: LinkRow, act: str) -> None:
        try:
            for node_id in (row.from_node, row.to_node):
                authorize(subject, Verb.FORWARD, self._nodes.name_of(node_id))
        except Forbidden:
            await self._audit.record(
                subject.name, act, row.name, outcome="denied", address=subject.address
            )
            raise

    async def _subject_of(self, row: LinkRow) -> Subject:
        """Return who declared a link, as stored now.

        Raises:
            Conflict: they are gone, disabled, or may not forward.
        """
        again = "delete the link and declare it again"
        try:
            user = await self._users.find(row.created_by)
        except NotFound:
            user = None
        if user is None or user.id != row.user_id:
            raise Conflict(f"{row.created_by}, who declared it, is no user any more; {again}")
        subject = Subject(user.name, Role(user.role), user.id, "link", row.name)
        if user.disabled or not allows(subject, Verb.FORWARD):
            raise Conflict(f"{user.name}, who declared it, may not forward any more; {again}")
        return subject

    def _leads_back(self, row: LinkRow) -> bool:
        """Whether a connection to the link's port would come to that port again."""
        others = [link.row for link in self._links.values()]
        seen: set[str] = set()
        following = [row]
        while following:
            at = following.pop()
            if _comes_in(at, row):
                return True
            for other in others:
                if other.name not in seen and _comes_in(at, other):
                    seen.add(other.name)
                    following.append(other)
        return False

    def _view(self, link: Link) -> LinkView:
        row, standing = link.row, link.standing
        return LinkView(
            name=row.name,
            from_node=self._nodes.name_of(row.from_node),
            bind=row.bind,
            port=row.port,
            to_node=self._nodes.name_of(row.to_node),
            host=row.host,
            to_port=row.to_port,
            enabled=row.enabled,
            created_by=row.created_by,
            created_at=row.created_at,
            state=standing.state,
            reason=standing.reason,
            forward=link.forward_id,
        )


def _comes_in(at: LinkRow, other: LinkRow) -> bool:
    """Whether what comes out of one link goes into another."""
    same_port = at.to_node == other.from_node and at.to_port == other.port
    return same_port and (at.host == other.bind or _is_own(at.host))


def _is_own(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    return address.is_loopback or address.is_unspecified
