"""The OpenAPI document at `/schema/openapi.json`, and a plain page of it at `/schema`.

Litestar's own pages load scripts from foreign hosts; this one is HTML alone, which our CSP allows.
"""

from __future__ import annotations

from html import escape
from typing import Any

from litestar import Request, Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from hub.api.guards import COOKIE, public

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1>
<p>The whole document, for programs: <a href="/schema/openapi.json">openapi.json</a></p>
{paths}
</body></html>
"""


class ListingPlugin(OpenAPIRenderPlugin):
    """Lists the routes, what they do and what they take."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Render the page."""
        title = f"{openapi_schema['info']['title']} {openapi_schema['info']['version']}"
        paths = "\n".join(
            _operation(method, path, operation)
            for path, operations in openapi_schema["paths"].items()
            for method, operation in operations.items()
            if isinstance(operation, dict)
        )
        return _PAGE.format(title=escape(title), paths=paths).encode()


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    does = operation.get("description") or operation.get("summary") or ""
    takes = [
        f"<li><code>{escape(parameter['name'])}</code> ({escape(parameter['in'])})</li>"
        for parameter in operation.get("parameters", ())
    ]
    if "requestBody" in operation:
        takes.append("<li>a body</li>")
    details = f"<ul>{''.join(takes)}</ul>" if takes else ""
    return (
        f"<section><h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(does)}</p>{details}</section>"
    )


def openapi_config(version: str) -> OpenAPIConfig:
    """Describe the document and where it is served."""
    return OpenAPIConfig(
        title="Mooring",
        version=version,
        description="The hub's HTTP interface; errors are problem documents (RFC 9457).",
        render_plugins=[JsonRenderPlugin(), ListingPlugin()],
        openapi_router=Router("/schema", route_handlers=[], guards=[public()]),
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer"),
                "cookie": SecurityScheme(type="apiKey", name=COOKIE, security_scheme_in="cookie"),
            }
        ),
        security=[{"bearer": []}, {"cookie": []}],
    )
