"""Published services: `/published` of the API, and the way in at `/published/NAME`.

The rule it guards: the way in is the only place where the hub's session cookie opens a service, and
it opens it only to a page that a person goes to: no page of another host can make the browser load
something through it.
"""

from __future__ import annotations

import html
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from litestar import Controller, MediaType, Request, Response, delete, get, post
from litestar.params import Parameter

from hub.api.guards import authenticate, public, requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.errors import BadRequest, NotSignedIn
from hub.published import Published, Service, ServiceSpec
from hub.published.doors import PREFIX

_AGAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Mooring</title>'
    '<meta http-equiv="refresh" content="0;url={0}"><p><a href="{0}">Go on</a></p></html>'
)


class PublishedService(msgspec.Struct, frozen=True, kw_only=True):
    """A published service as the API shows it; the counts begin with the hub's start."""

    name: str
    node: str
    host: str
    port: int
    scheme: str
    verify: bool
    host_name: str | None
    keep_host: bool
    url: str
    """Where a browser finds it."""
    created_by: str
    created_at: float
    requests: int
    active: int
    """Requests and sockets that are open now."""
    sent_bytes: int
    """To the service."""
    received_bytes: int


class PublishedPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the published services, by name."""

    items: list[PublishedService]
    next_cursor: str | None
    total: int


class PublishedController(Controller):
    """Published services."""

    path = "/published"
    tags = ("published",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_published(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Annotated[str | None, Parameter(max_length=64)] = None,
    ) -> PublishedPage:
        """List the published services."""
        everything = hub.published.services.all()
        following = [service for service in everything if cursor is None or service.name > cursor]
        shown = following[:limit]
        return PublishedPage(
            items=[_view(hub.published, service) for service in shown],
            next_cursor=shown[-1].name if len(following) > limit else None,
            total=len(everything),
        )

    @post(guards=[requires(Verb.FORWARD)])
    async def publish(self, hub: Hub, subject: Subject, data: ServiceSpec) -> PublishedService:
        """Publish an HTTP service of a node."""
        return _view(hub.published, await hub.published.services.publish(subject, data))

    @get("/{name:str}", guards=[requires(Verb.VIEW)])
    async def get_published(self, hub: Hub, name: str) -> PublishedService:
        """Show a published service."""
        return _view(hub.published, hub.published.services.get(name))

    @delete("/{name:str}", guards=[requires(Verb.FORWARD)])
    async def withdraw(self, hub: Hub, subject: Subject, name: str) -> None:
        """Publish a service no longer; who uses it is cut off."""
        await hub.published.services.withdraw(subject, name)


@get(
    [f"{PREFIX}{{name:str}}", f"{PREFIX}{{name:str}}/{{path:path}}"],
    guards=[public()],
    include_in_schema=False,
)
async def enter_published(hub: Hub, request: Request[Any, Any, Any], name: str) -> Response[str]:
    """Lead a signed-in browser into a service, another to the sign-in page and back."""
    service = hub.published.services.get(name)
    here = request.scope["raw_path"].decode("latin-1")
    target = here[len(PREFIX) + len(name) :] or "/"
    if query := request.scope["query_string"].decode("latin-1"):
        here, target = f"{here}?{query}", f"{target}?{query}"
    if request.headers.get("sec-fetch-dest", "document") != "document":
        raise BadRequest("a published service is entered by going to its page")
    try:
        subject = await authenticate(request)
        return _redirect(await hub.published.doors.let_in(subject, service, target))
    except NotSignedIn:
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return _once_more(here)
        return _redirect(f"/sign-in?return={quote(here, safe='')}")


def _redirect(location: str) -> Response[str]:
    headers = {"Location": location, "Cache-Control": "no-store"}
    return Response("", status_code=303, headers=headers, media_type=MediaType.TEXT)


def _once_more(here: str) -> Response[str]:
    """Load the page again from here: a browser that comes from elsewhere keeps our cookie back."""
    headers = {"Cache-Control": "no-store"}
    page = _AGAIN.format(html.escape(here))
    return Response(page, headers=headers, media_type=MediaType.HTML)


def _view(published: Published, service: Service) -> PublishedService:
    row = service.row
    return PublishedService(
        name=row.name,
        node=published.services.node_of(service).name,
        host=row.host,
        port=row.port,
        scheme=row.scheme,
        verify=row.verify,
        host_name=row.host_name,
        keep_host=row.keep_host,
        url=published.doors.url_of(service),
        created_by=row.created_by,
        created_at=row.created_at,
        requests=service.requests,
        active=service.active,
        sent_bytes=service.sent_bytes,
        received_bytes=service.received_bytes,
    )
