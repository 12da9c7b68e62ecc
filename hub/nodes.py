"""`Nodes`: every node and group in memory as the API shows them, over the rows of the database.

The rule it guards: what is in memory was committed (it is replaced by the writer, right after the
commit and in its order), so that listing nodes and evaluating a target cost no SQL. Presence is the
truth: a node is online from `came_online` to `went_offline`; at the hub's start nobody is.

    nodes = Nodes(store, events, audit); await nodes.load(); tasks.create_task(nodes.run())
    nodes.get("web-1"); nodes.select("group:web and status==online")

Enrolment changes rows of its own: its hooks call `note_change` and `forget`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from hub.audit import Audit
from hub.authz import Subject
from hub.buckets import Buckets
from hub.errors import NotFound, NothingMatches, Unavailable
from hub.events import EventLog
from hub.node_labels import check_group, check_groups, check_labels
from hub.node_names import check_name
from hub.node_reports import clean_facts, clean_packages, clean_text
from hub.node_rows import GroupView, group_of, moved, view_of
from hub.nodeview import NodeView
from hub.presence import Move, Presence
from hub.store import groups as group_rows
from hub.store import nodes as rows
from hub.store.connection import Connection
from hub.store.engine import Store
from hub.store.groups import GroupRow
from hub.targets import evaluate, parse
from protocol.messages import InstalledPackage, Report

logger = logging.getLogger(__name__)

ALIVE_EVERY_S = 15.0
"""How often the hub stores that it lives: the error of "last seen" after a crash."""
RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class NodeChange:
    """What to change of a node; None leaves it."""

    name: str | None = None
    labels: Mapping[str, str] | None = None
    groups: Sequence[str] | None = None


@dataclass(slots=True)
class Nodes:
    """The service; `load` it once before anybody asks."""

    store: Store
    events: EventLog
    audit: Audit
    clock: Callable[[], float] = time.time
    on_presence: list[Callable[[str], None]] = field(default_factory=list)
    """Called with a node's id when it came or went."""
    _views: dict[str, NodeView] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    """Id by name."""
    _sorted: list[NodeView] | None = None
    """All views by name; None after a change."""
    _groups: dict[str, GroupRow] = field(default_factory=dict)
    _online: set[str] = field(default_factory=set)
    _presence: Presence = field(init=False)
    _changed: set[str] = field(default_factory=set)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _reports: dict[str, Report] = field(default_factory=dict)
    """The newest report of a node that waits for its turn."""
    _report_rate: Buckets = field(default_factory=lambda: Buckets(per_s=0.5, burst=10))

    def __post_init__(self) -> None:
        self._presence = Presence(self.store, self.events, self.find, self._move)

    # --- life -----------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read all nodes and groups; whoever was connected at a crash is offline since then."""

        async def unit(
            connection: Connection,
        ) -> tuple[list[rows.NodeRow], list[GroupRow]]:
            await rows.end_presence(connection)
            await rows.note_alive(connection, self.clock())
            return await rows.all_nodes(connection), await group_rows.all_groups(connection)

        nodes, groups = await self.store.write(unit)
        self._groups = {group.name: group for group in groups}
        for node in nodes:
            self._take(node)

    async def run(self) -> None:
        """Store signs of life and follow `note_change` until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stay_alive())
            tasks.create_task(self._follow_changes())

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(ALIVE_EVERY_S)
            try:
                await self.store.write(lambda c: rows.note_alive(c, self.clock()))
            except Unavailable as error:
                logger.warning("could not store a sign of life: %s", error)

    async def _follow_changes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._changed:
                node_id = self._changed.pop()
                try:
                    await self.refresh(node_id)
                except Unavailable as error:
                    logger.warning("could not read node %s again: %s", node_id, error)
                    self._changed.add(node_id)
                    await asyncio.sleep(RETRY_S)

    # --- reading --------------------------------------------------------------------------------

    def all(self) -> Sequence[NodeView]:
        """Return all nodes by name; not to be changed."""
        if self._sorted is None:
            self._sorted = sorted(self._views.values(), key=lambda view: view.name)
        return self._sorted

    def get(self, ref: str) -> NodeView:
        """Return the node with this id or name.

        Raises:
            NotFound: there is none.
        """
        view = self._views.get(ref) or self._views.get(self._ids.get(ref, ""))
        if view is None:
            raise NotFound("node", ref)
        return view

    def find(self, node_id: str) -> NodeView | None:
        """Return the node with this id, None when there is none."""
        return self._views.get(node_id)

    def name_of(self, node_id: str) -> str:
        """Return the node's name, or the id of one that is not known."""
        view = self._views.get(node_id)
        return node_id if view is None else view.name

    def select(self, target: str) -> list[NodeView]:
        """Return the nodes that a target matches, by name; at least one.

        Raises:
            InvalidTarget: it does not parse.
            NothingMatches: it matches none, or names what does not exist.
        """
        matching = evaluate(parse(target), self.all(), self._groups.keys())
        if not matching:
            raise NothingMatches(target)
        return matching

    def groups(self) -> list[GroupView]:
        """Return all groups by name."""
        members: dict[str, list[str]] = {name: [] for name in self._groups}
        for view in self.all():
            for group in view.groups:
                members.setdefault(group, []).append(view.name)
        return [group_of(self._groups[name], members[name]) for name in sorted(self._groups)]

    def group(self, name: str) -> GroupView:
        """Return one group.

        Raises:
            NotFound: there is none of this name.
        """
        row = self._groups.get(name)
        if row is None:
            raise NotFound("group", name)
        return group_of(row, [view.name for view in self.all() if name in view.groups])

    # --- changing -------------------------------------------------------------------------------

    async def update(self, subject: Subject, ref: str, change: NodeChange) -> NodeView:
        """Rename, label or regroup a node, all or nothing.

        Raises:
            NotFound: there is no such node or group.
            BadRequest: a name, label or group can't be taken.
            Conflict: another node has the name.
        """
        view = self.get(ref)
        values: dict[str, Any] = {}
        if change.name is not None:
            values["name"] = check_name(change.name)
        if change.labels is not None:
            values["labels"] = check_labels(change.labels)
        groups = None if change.groups is None else check_groups(change.groups)
        changed = sorted([*values, *(["groups"] if groups is not None else [])])
        if not changed:
            return view
        await self._change(view.id, values, groups)
        result = self.get(view.id)
        detail = {"changed": changed, "was": view.name}
        await self._tell(subject, "node.change", result.name, detail)
        await self._publish("node.changed", result, detail)
        return result

    async def create_group(self, subject: Subject, name: str, description: str = "") -> GroupView:
        """Create an empty group.

        Raises:
            BadRequest: the name or description can't be taken.
            Conflict: there is one of this name.
        """
        check_group(name, description)
        row = GroupRow(uuid.uuid4().hex, name, description, self.clock())
        await self.store.write(
            lambda c: group_rows.insert_group(c, row),
            then=lambda row: self._groups.__setitem__(row.name, row),
        )
        await self._tell(subject, "group.create", name)
        await self._publish_group(name, "created")
        return self.group(name)

    async def delete_group(self, subject: Subject, name: str) -> None:
        """Delete a group; its members stay.

        Raises:
            NotFound: there is no such group.
        """
        await self.store.write(
            lambda c: group_rows.delete_group(c, name), then=lambda _: self._drop_group(name)
        )
        await self._tell(subject, "group.delete", name)
        await self._publish_group(name, "deleted")

    async def add_to_group(self, subject: Subject, name: str, ref: str) -> GroupView:
        """Make a node a member of a group.

        Raises:
            NotFound: there is no such group or node.
        """
        return await self._regroup(subject, name, ref, "group.add", group_rows.add_member)

    async def remove_from_group(self, subject: Subject, name: str, ref: str) -> GroupView:
        """Make a node no member of a group.

        Raises:
            NotFound: there is no such group or node.
        """
        return await self._regroup(subject, name, ref, "group.drop", group_rows.remove_member)

    async def _regroup(
        self,
        subject: Subject,
        name: str,
        ref: str,
        act: str,
        query: Callable[[Connection, str, str], Awaitable[None]],
    ) -> GroupView:
        view = self.get(ref)

        async def unit(connection: Connection) -> rows.NodeRow | None:
            await query(connection, name, view.id)
            return await rows.node_by_id(connection, view.id)

        await self.store.write(unit, then=lambda row: self._replace(view.id, row))
        await self._tell(subject, act, name, {"node": view.name})
        await self._publish_group(name, "members")
        return self.group(name)

    # --- what tunnels and enrolment tell ----------------------------------------------------------

    async def came_online(self, node_id: str, address: str, now: float) -> None:
        """A tunnel of the node is open, from this network address."""
        if node_id not in self._views:  # it joined just now, and `run` has not come to it
            with contextlib.suppress(Unavailable):
                await self.refresh(node_id)
        peer = clean_text(address)[:64]
        await self._presence.note(Move(node_id, now, peer, {"address": peer}))

    async def went_offline(self, node_id: str, now: float, reason: str) -> None:
        """The node's last tunnel ended."""
        await self._presence.note(Move(node_id, now, None, {"reason": clean_text(reason)}))

    async def take_report(self, node_id: str, report: Report) -> None:
        """Store a node's facts and packages, when they changed; the newest of a burst wins."""
        if wait_s := self._report_rate.take(node_id, time.monotonic()):
            self._reports[node_id] = report
            await asyncio.sleep(wait_s)
            if self._reports.get(node_id) is not report:
                return
        self._reports.pop(node_id, None)
        said = {"facts": clean_facts(report.facts), "packages": clean_packages(report.packages)}
        await self._store_report(node_id, said)

    async def set_packages(self, node_id: str, packages: Sequence[InstalledPackage]) -> None:
        """Store what is installed on a node, as it said at the end of a deployment."""
        await self._store_report(node_id, {"packages": clean_packages(packages)})

    async def refresh(self, node_id: str) -> None:
        """Read a node's row again, after somebody else changed, made or deleted it."""
        await self.store.write(
            lambda c: rows.node_by_id(c, node_id), then=lambda row: self._replace(node_id, row)
        )

    def note_change(self, node_id: str) -> None:
        """Say that a node's row changed elsewhere: `run` refreshes it soon."""
        self._changed.add(node_id)
        self._wake.set()

    def forget(self, node_id: str) -> None:
        """Drop a node whose row was deleted."""
        view = self._views.pop(node_id, None)
        if view is not None and self._ids.get(view.name) == node_id:
            del self._ids[view.name]
        self._online.discard(node_id)
        self._reports.pop(node_id, None)
        self._sorted = None

    # --- inside ---------------------------------------------------------------------------------

    async def _change(
        self, node_id: str, values: Mapping[str, Any], groups: Sequence[str] | None = None
    ) -> None:
        await self.store.write(
            lambda c: rows.change_node(c, node_id, values=values, group_names=groups),
            then=self._take,
        )

    async def _store_report(self, node_id: str, said: Mapping[str, object]) -> None:
        """Store those of a node's `facts` and `packages` that changed."""
        view = self._views.get(node_id)
        changed = {
            name: value for name, value in said.items() if getattr(view, name, value) != value
        }
        if view is not None and changed:
            await self._change(node_id, msgspec.to_builtins(changed))
            await self._publish("node.changed", view, {"changed": sorted(changed)})

    def _move(self, move: Move) -> None:
        """Show that a node came or went; one that was removed meanwhile is gone."""
        view = self._views.get(move.node_id)
        if view is None:
            return
        logger.info("%s: %s %s", view.name, "online" if move.online else "offline", move.detail)
        if move.online:
            self._online.add(view.id)
            view = replace(view, connected_at=move.at, address=move.address)
        else:
            self._online.discard(view.id)
            view = replace(view, last_seen_at=move.at)
        self._views[view.id] = moved(view, move.online)
        self._sorted = None
        for call in self.on_presence:
            call(move.node_id)

    def _replace(self, node_id: str, row: rows.NodeRow | None) -> None:
        if row is None:
            self.forget(node_id)
        else:
            self._take(row)

    def _take(self, row: rows.NodeRow) -> None:
        """Keep a committed row as the node's view."""
        old = self._views.get(row.id)
        if old is not None and old.name != row.name and self._ids.get(old.name) == row.id:
            del self._ids[old.name]
        self._views[row.id] = view_of(row, row.id in self._online)
        self._ids[row.name] = row.id
        self._sorted = None

    def _drop_group(self, name: str) -> None:
        """Forget a deleted group, also in its members."""
        self._groups.pop(name, None)
        for view in self.all():
            if name in view.groups:
                remaining = tuple(group for group in view.groups if group != name)
                self._views[view.id] = replace(view, groups=remaining)
        self._sorted = None

    async def _tell(
        self, subject: Subject, act: str, name: str, detail: dict[str, Any] | None = None
    ) -> None:
        await self.audit.record(subject.name, act, name, address=subject.address, detail=detail)

    async def _publish(self, kind: str, view: NodeView, data: dict[str, Any]) -> None:
        await self.events.publish(kind, node_id=view.id, node=view.name, data=data)

    async def _publish_group(self, name: str, change: str) -> None:
        await self.events.publish("group.changed", data={"group": name, "change": change})
