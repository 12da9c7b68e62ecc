"""The built UI, from memory: hashed assets for ever, `index.html` for every page route.

The rule it guards: only files that were there at the start are served, by exact path, so no path
can leave the folder; and what belongs to the API is never answered with a page.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litestar import HttpMethod, MediaType, Request, Response, route
from litestar.exceptions import MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler

from hub.api.guards import public

STATIC = Path(__file__).parent.parent / "static"
INDEX = "index.html"
RESERVED = ("api", "schema", "healthz", "readyz", "metrics", "assets", "install", "tunnel")
"""First parts of paths that are never pages."""
_FOREVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_NOT_BUILT = "The pages are not built. In a checkout run: make ui\n"
_METHODS = [HttpMethod.GET, HttpMethod.HEAD, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH,
            HttpMethod.DELETE]  # fmt: skip


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file of the built UI, ready to be sent."""

    content: bytes
    compressed: bytes | None
    """By gzip, where that makes it smaller."""
    media_type: str
    etag: str
    cache: str

    @classmethod
    def read(cls, path: Path, name: str) -> StaticFile:
        """Read one file; `name` is its path below the folder."""
        content = path.read_bytes()
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        is_text = media_type.startswith("text/") or media_type.endswith(
            ("javascript", "json", "xml")
        )
        compressed = gzip.compress(content, 6, mtime=0) if is_text else None
        return cls(
            content,
            compressed if compressed and len(compressed) < len(content) else None,
            media_type,
            f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            _FOREVER if name.startswith("assets/") else _ASK_AGAIN,
        )

    def respond(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """Answer with the file, compressed where the browser takes it, or with 304."""
        headers = {"ETag": self.etag, "Cache-Control": self.cache, "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == self.etag:
            return Response(b"", status_code=304, headers=headers, media_type=self.media_type)
        content = self.content
        if self.compressed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            content = self.compressed
        return Response(content, headers=headers, media_type=self.media_type)


def load_static(folder: Path) -> dict[str, StaticFile]:
    """Read the built UI, by path below the folder; empty when it is not built."""
    return {
        name: StaticFile.read(path, name)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for name in (path.relative_to(folder).as_posix(),)
    }


def page_routes(folder: Path = STATIC) -> Sequence[HTTPRouteHandler]:
    """Make the handlers of everything that no other route answers."""
    files = load_static(folder)

    @route(
        ["/", "/{path:path}"],
        http_method=_METHODS,
        guards=[public()],
        include_in_schema=False,
        status_code=200,
        sync_to_thread=False,
    )
    def serve_page(request: Request[Any, Any, Any], path: str = "") -> Response[Any]:
        name = path.strip("/")
        if name.partition("/")[0] in RESERVED and name not in files:
            raise NotFoundException(detail=f"there is nothing at {request.url.path}")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedException(detail="pages can only be read")
        if INDEX not in files:
            return Response(_NOT_BUILT, status_code=503, media_type=MediaType.TEXT)
        return files.get(name, files[INDEX]).respond(request)

    return (serve_page,)
