"""Every route of the application, and what it asks of the caller: nothing is undeclared."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute

from hub.api.guards import Public, Requires, SignedIn
from hub.app import create_app
from hub.authz import VERBS, Role, Verb
from hub.core import Hub
from tests.hub.conftest import ClientFor

PUBLIC, ANY = "public", "any"

DECLARED: dict[str, str | Verb] = {
    "GET /api/v1/about": PUBLIC,
    "GET /api/v1/api-tokens": ANY,
    "POST /api/v1/api-tokens": ANY,
    "DELETE /api/v1/api-tokens/{token_id}": ANY,
    "GET /api/v1/audit": Verb.ADMIN,
    "GET /api/v1/ca": PUBLIC,
    "POST /api/v1/deployments": Verb.DEPLOY,
    "GET /api/v1/deployments": Verb.VIEW,
    "GET /api/v1/deployments/{deployment_id}": Verb.VIEW,
    "POST /api/v1/deployments/{deployment_id}/cancel": Verb.DEPLOY,
    "GET /api/v1/deployments/{deployment_id}/stream": Verb.VIEW,
    "GET /api/v1/events": Verb.VIEW,
    "GET /api/v1/forwards": Verb.VIEW,
    "GET /api/v1/forwards/{forward_id}": Verb.VIEW,
    "DELETE /api/v1/forwards/{forward_id}": Verb.FORWARD,
    "GET /api/v1/groups": Verb.VIEW,
    "POST /api/v1/groups": Verb.GROUPS,
    "DELETE /api/v1/groups/{group}": Verb.GROUPS,
    "PUT /api/v1/groups/{group}/nodes/{node}": Verb.GROUPS,
    "DELETE /api/v1/groups/{group}/nodes/{node}": Verb.GROUPS,
    "POST /api/v1/join": PUBLIC,
    "GET /api/v1/links": Verb.VIEW,
    "POST /api/v1/links": Verb.FORWARD,
    "GET /api/v1/links/{name}": Verb.VIEW,
    "PATCH /api/v1/links/{name}": Verb.FORWARD,
    "DELETE /api/v1/links/{name}": Verb.FORWARD,
    "GET /api/v1/nodes": Verb.VIEW,
    "GET /api/v1/nodes/{node}": Verb.VIEW,
    "PATCH /api/v1/nodes/{node}": Verb.GROUPS,
    "DELETE /api/v1/nodes/{node}": Verb.ADMIN,
    "GET /api/v1/nodes/{node}/events": Verb.VIEW,
    "GET /api/v1/nodes/{node}/metrics": Verb.METRICS,
    "POST /api/v1/nodes/{node}/release": Verb.ADMIN,
    "POST /api/v1/nodes/{node}/revoke": Verb.ADMIN,
    "GET /api/v1/packages": Verb.VIEW,
    "POST /api/v1/packages": Verb.DEPLOY,
    "GET /api/v1/packages/{name}": Verb.VIEW,
    "GET /api/v1/packages/{name}/{version}": Verb.VIEW,
    "DELETE /api/v1/packages/{name}/{version}": Verb.DEPLOY,
    "GET /api/v1/packages/{name}/{version}/content": Verb.DEPLOY,
    "GET /api/v1/published": Verb.VIEW,
    "POST /api/v1/published": Verb.FORWARD,
    "GET /api/v1/published/{name}": Verb.VIEW,
    "DELETE /api/v1/published/{name}": Verb.FORWARD,
    "POST /api/v1/session": PUBLIC,
    "GET /api/v1/session": ANY,
    "DELETE /api/v1/session": ANY,
    "POST /api/v1/session/password": ANY,
    "GET /api/v1/sessions": Verb.VIEW,
    "DELETE /api/v1/sessions/{session_id}": Verb.SHELL,
    "POST /api/v1/tasks": Verb.EXEC,
    "GET /api/v1/tasks": Verb.VIEW,
    "GET /api/v1/tasks/{task_id}": Verb.VIEW,
    "POST /api/v1/tasks/{task_id}/cancel": Verb.EXEC,
    "GET /api/v1/tasks/{task_id}/stream": Verb.VIEW,
    "POST /api/v1/tickets": Verb.VIEW,
    "GET /api/v1/tokens": Verb.ADMIN,
    "POST /api/v1/tokens": Verb.ADMIN,
    "DELETE /api/v1/tokens/{token_id}": Verb.ADMIN,
    "GET /api/v1/users": Verb.ADMIN,
    "POST /api/v1/users": Verb.ADMIN,
    "PATCH /api/v1/users/{name}": Verb.ADMIN,
    "DELETE /api/v1/users/{name}": Verb.ADMIN,
    "WS /api/v1/live": Verb.VIEW,
    "WS /api/v1/shell": Verb.SHELL,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": PUBLIC,
    "GET /install.sh": PUBLIC,
    "GET /install/{name}": PUBLIC,
    "GET /published/{name}": PUBLIC,
    "GET /published/{name}/{path}": PUBLIC,
    "GET /schema": PUBLIC,
    "GET /schema/openapi.json": PUBLIC,
    "GET /schema/{path}": PUBLIC,
}
PAGES = {"/", "/{path}"}
"""Any method is answered there, with a page, 404 or 405; they are public."""


def declared_by(guards: list[object]) -> str | Verb | None:
    match guards:
        case [Requires(verb)]:
            return verb
        case [SignedIn()]:
            return ANY
        case [Public()]:
            return PUBLIC
        case _:
            return None


def routes_of(app: Litestar) -> dict[str, str | Verb | None]:
    found: dict[str, str | Verb | None] = {}
    for route in app.routes:
        path = "/" + "/".join(
            "{" + part.name + "}" if not isinstance(part, str) else part
            for part in route.path_components
        )
        if isinstance(route, HTTPRoute):
            for method, (handler, _model) in route.route_handler_map.items():
                if method != "OPTIONS":
                    found[f"{method} {path}"] = declared_by(list(handler.resolve_guards()))
        elif isinstance(route, WebSocketRoute):
            found[f"WS {path}"] = declared_by(list(route.route_handler.resolve_guards()))
        else:
            found[f"ASGI {path}"] = None
    return found


async def test_every_route_declares_exactly_the_verb_of_the_table(hub: Hub, tmp_path: Path) -> None:
    found = routes_of(create_app(hub, static=tmp_path / "none"))
    pages = {key: verb for key, verb in found.items() if key.partition(" ")[2] in PAGES}
    assert set(pages.values()) == {PUBLIC}
    assert {key: verb for key, verb in found.items() if key not in pages} == DECLARED


@pytest.mark.parametrize("role", [None, *Role])
async def test_every_role_is_let_in_or_refused_as_declared(
    client: ClientFor, role: Role | None
) -> None:
    caller = await client(role)
    for route, declared in DECLARED.items():
        method, path = route.split(" ")
        if method == "WS" or route == "GET /api/v1/events" or declared == PUBLIC:
            continue
        concrete = path.replace("{", "no-").replace("}", "")
        answer = await caller.request(method, concrete, json={})
        assert _refusal(answer) == _expected(role, declared), (route, answer.text)


def _refusal(answer: httpx.Response) -> str | None:
    if answer.status_code not in (401, 403):
        return None
    code: str = answer.json()["code"]
    return code


def _expected(role: Role | None, declared: str | Verb) -> str | None:
    if role is None:
        return "not_signed_in"
    if isinstance(declared, Verb) and declared not in VERBS[role]:
        return "forbidden"
    return None
