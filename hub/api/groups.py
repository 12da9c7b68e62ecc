"""Groups of nodes: `/groups`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post, put
from litestar.params import Parameter

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.node_rows import GroupView


class GroupList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the groups, by name."""

    items: list[GroupView]
    next_cursor: str | None
    total: int


class NewGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group to create."""

    name: str
    description: str = ""


class GroupsController(Controller):
    """Groups."""

    path = "/groups"
    tags = ("groups",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_groups(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> GroupList:
        """List groups with the names of their members."""
        groups = hub.nodes.groups()
        following = [group for group in groups if cursor is None or group.name > cursor]
        shown = following[:limit]
        return GroupList(
            items=shown,
            next_cursor=shown[-1].name if len(following) > limit else None,
            total=len(groups),
        )

    @post(guards=[requires(Verb.GROUPS)])
    async def create_group(self, hub: Hub, subject: Subject, data: NewGroup) -> GroupView:
        """Create an empty group."""
        return await hub.nodes.create_group(subject, data.name, data.description)

    @delete("/{group:str}", guards=[requires(Verb.GROUPS)])
    async def delete_group(self, hub: Hub, subject: Subject, group: str) -> None:
        """Delete a group; its members stay."""
        await hub.nodes.delete_group(subject, group)

    @put("/{group:str}/nodes/{node:str}", guards=[requires(Verb.GROUPS)])
    async def add_member(self, hub: Hub, subject: Subject, group: str, node: str) -> GroupView:
        """Make a node a member."""
        return await hub.nodes.add_to_group(subject, group, node)

    @delete("/{group:str}/nodes/{node:str}", guards=[requires(Verb.GROUPS)], status_code=200)
    async def remove_member(self, hub: Hub, subject: Subject, group: str, node: str) -> GroupView:
        """Make a node no member."""
        return await hub.nodes.remove_from_group(subject, group, node)
