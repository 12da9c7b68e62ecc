"""Packages: `/packages`; the repository of what can be deployed, with streamed uploads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.exceptions import HTTPException
from litestar.params import Parameter
from litestar.response import Stream

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.errors import BadRequest
from hub.packages import Package, UploadSpec

Limit = Annotated[int, Parameter(ge=1, le=500)]
Cursor = Annotated[str | None, Parameter(max_length=200)]
Text = Annotated[str | None, Parameter(max_length=4096)]
Word = Annotated[str | None, Parameter(max_length=128)]


class PackagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the packages, by name, the newest version first."""

    items: list[Package]
    next_cursor: str | None
    total: int


class PackagesController(Controller):
    """Packages."""

    path = "/packages"
    tags = ("packages",)

    @post(guards=[requires(Verb.DEPLOY)], request_max_body_size=None)
    async def upload_package(
        self,
        hub: Hub,
        subject: Subject,
        request: Request[Any, Any, Any],
        filename: Annotated[str, Parameter(max_length=255)] = "",
        name: Word = None,
        version: Word = None,
        description: Text = None,
    ) -> Package:
        """Upload a zip or tar.gz of at most 4 GiB as the body; name and version are unique.

        Name and version come from `service.json` in the archive, else from the query, else from the
        file's name. `X-Checksum-SHA256` is compared with what arrived when it is sent.
        """
        spec = UploadSpec(
            filename=filename,
            name=name,
            version=version,
            description=description,
            declared_bytes=_length(request),
            checksum=request.headers.get("x-checksum-sha256"),
        )
        return await hub.packages.add(subject, spec, _body(request))

    @get(guards=[requires(Verb.VIEW)])
    async def list_packages(
        self, hub: Hub, limit: Limit = 100, cursor: Cursor = None
    ) -> PackagePage:
        """List all versions of all packages."""
        items, next_cursor, total = await hub.packages.page(None, limit, cursor)
        return PackagePage(items=items, next_cursor=next_cursor, total=total)

    @get("/{name:str}", guards=[requires(Verb.VIEW)])
    async def list_versions(
        self, hub: Hub, name: str, limit: Limit = 100, cursor: Cursor = None
    ) -> PackagePage:
        """List the versions of one package."""
        items, next_cursor, total = await hub.packages.page(name, limit, cursor)
        return PackagePage(items=items, next_cursor=next_cursor, total=total)

    @get("/{name:str}/{version:str}", guards=[requires(Verb.VIEW)])
    async def get_package(self, hub: Hub, name: str, version: str) -> Package:
        """Show one version."""
        return await hub.packages.get(name, version)

    @get("/{name:str}/{version:str}/content", guards=[requires(Verb.DEPLOY)])
    async def get_content(self, hub: Hub, name: str, version: str) -> Stream:
        """Download one version as it was uploaded."""
        package, parts = await hub.packages.content(name, version)
        filename = f"{package.name}-{package.version}.{package.format}"
        headers = {
            "Content-Length": str(package.size_bytes),
            "Content-Disposition": f'attachment; filename="{filename}"',
            "X-Checksum-SHA256": package.digest,
        }
        return Stream(parts, media_type="application/octet-stream", headers=headers)

    @delete("/{name:str}/{version:str}", guards=[requires(Verb.DEPLOY)])
    async def delete_package(self, hub: Hub, subject: Subject, name: str, version: str) -> None:
        """Remove one version that no node has and no deployment needs."""
        await hub.packages.remove(subject, name, version)


def _length(request: Request[Any, Any, Any]) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest("the Content-Length is not a number of bytes")
    return int(text)


async def _body(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except HTTPException as error:
        raise BadRequest("the upload was cut short: send it again") from error
