"""Links between nodes: `/links`."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import Parameter

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.links import LinkView

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class LinkPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the links, by name."""

    items: list[LinkView]
    next_cursor: str | None
    total: int


class NewLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link to declare: what connects to `bind`:`port` of one node comes out at the other."""

    name: str
    from_node: str
    port: Port
    to_node: str
    to_port: Port
    bind: str = "127.0.0.1"
    host: str = "127.0.0.1"


class LinkChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a link."""

    enabled: bool


class LinksController(Controller):
    """Links between nodes."""

    path = "/links"
    tags = ("links",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_links(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> LinkPage:
        """List the links with how they do."""
        everything = hub.links.list()
        following = [view for view in everything if cursor is None or view.name > cursor]
        shown = following[:limit]
        return LinkPage(
            items=shown,
            next_cursor=shown[-1].name if len(following) > limit else None,
            total=len(everything),
        )

    @get("/{name:str}", guards=[requires(Verb.VIEW)])
    async def show_link(self, hub: Hub, name: str) -> LinkView:
        """Show a link."""
        return hub.links.get(name)

    @post(guards=[requires(Verb.FORWARD)])
    async def create_link(self, hub: Hub, subject: Subject, data: NewLink) -> LinkView:
        """Declare a link; the hub keeps it up from now on."""
        return await hub.links.create(
            subject,
            data.name,
            data.from_node,
            data.port,
            data.to_node,
            data.to_port,
            bind=data.bind,
            host=data.host,
        )

    @patch("/{name:str}", guards=[requires(Verb.FORWARD)])
    async def change_link(
        self, hub: Hub, subject: Subject, name: str, data: LinkChange
    ) -> LinkView:
        """Open a link's port, or close it and reset its connections."""
        return await hub.links.enable(subject, name, data.enabled)

    @delete("/{name:str}", guards=[requires(Verb.FORWARD)])
    async def delete_link(self, hub: Hub, subject: Subject, name: str) -> None:
        """Close a link's port, reset its connections, and forget it."""
        await hub.links.delete(subject, name)
