"""Errors of the API: problem documents with stable codes, whoever raised them."""

from __future__ import annotations

import pytest

from hub import errors
from hub.api.problems import STATUS, problem_of
from hub.authz import Role
from hub.core import Hub
from tests.hub.conftest import ClientFor


def every_error(base: type[errors.HubError]) -> set[type[errors.HubError]]:
    return {base}.union(*(every_error(sub) for sub in base.__subclasses__()))


def test_every_code_has_a_status() -> None:
    mapped = {kind.code for kind in every_error(errors.HubError) if kind.__module__ == "hub.errors"}
    assert mapped <= set(STATUS)


def test_fields_of_an_error_are_in_its_document() -> None:
    assert problem_of(errors.InvalidTarget("no", column=3)).column == 3
    assert problem_of(errors.Forbidden("shell", "web-1")).verb == "shell"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("POST", "/api/v1/nothing", 404, "not_found"),
        ("GET", "/api", 404, "not_found"),
        ("PUT", "/api/v1/users", 405, "bad_request"),
        ("POST", "/", 405, "bad_request"),
    ],
)
async def test_unknown_routes_and_methods_are_problems(
    client: ClientFor, method: str, path: str, status: int, code: str
) -> None:
    answer = await (await client(Role.ADMIN)).request(method, path)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert set(problem) == {"type", "title", "status", "detail", "code"}


async def test_bodies_too_large_or_malformed_are_problems(client: ClientFor) -> None:
    admin = await client(Role.ADMIN)
    answer = await admin.post("/api/v1/users", content=b"{" * (2 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    for body in (b"{", b"[]", b"\xff", b"", b"[" * 100_000, b'{"x":' + b"[" * 100_000):
        answer = await admin.post("/api/v1/users", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


async def test_a_fault_is_logged_and_not_told(
    hub: Hub,
    client: ClientFor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_users: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(type(hub.accounts.users), "all", broken)
    answer = await (await client(Role.ADMIN)).get("/api/v1/users")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "the secret inside" in caplog.text
