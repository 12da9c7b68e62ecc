"""Users, API tokens and the audit through the API."""

from __future__ import annotations

from hub.authz import Role
from hub.core import Hub
from tests.hub.conftest import ClientFor


async def test_an_administrator_makes_changes_and_removes_users(
    hub: Hub, client: ClientFor
) -> None:
    admin = await client(Role.ADMIN)
    body = {"name": "ann", "password": "correct horse", "role": "viewer"}
    made = await admin.post("/api/v1/users", json=body)
    assert (made.status_code, made.json()["role"]) == (201, "viewer")
    assert "password" not in made.text
    assert (await admin.post("/api/v1/users", json=body)).json()["code"] == "conflict"
    changed = await admin.patch("/api/v1/users/ann", json={"role": "deployer"})
    assert changed.json()["role"] == "deployer"
    names = [user["name"] for user in (await admin.get("/api/v1/users")).json()["items"]]
    assert names == ["admin", "ann", "deployer", "operator", "viewer"]
    assert (await admin.delete("/api/v1/users/ann")).status_code == 204
    assert (await admin.delete("/api/v1/users/ann")).json()["code"] == "not_found"
    acts = [entry.act for entry in (await hub.audit.entries(10, subject="admin")).entries]
    assert acts == ["user.delete", "user.change", "user.create"]


async def test_bad_users_are_refused_with_what_is_wrong(client: ClientFor) -> None:
    admin = await client(Role.ADMIN)
    good = {"name": "ann", "password": "correct horse", "role": "viewer"}
    for wrong in ({"role": "king"}, {"password": "x"}, {"name": "a b"}, {"extra": 1}, {"name": 3}):
        answer = await admin.post("/api/v1/users", json={**good, **wrong})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), wrong
        assert len(answer.json()["detail"]) > 10
    answer = await admin.delete("/api/v1/users/admin")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_disabled_users_token_stops_at_once(client: ClientFor) -> None:
    admin, viewer = await client(Role.ADMIN), await client(Role.VIEWER)
    assert (await viewer.get("/api/v1/session")).status_code == 200
    await admin.patch("/api/v1/users/viewer", json={"disabled": True})
    assert (await viewer.get("/api/v1/session")).status_code == 401


async def test_everybody_makes_own_tokens_up_to_the_own_role(client: ClientFor) -> None:
    operator = await client(Role.OPERATOR)
    body = {"name": "ci", "role": "viewer", "ttl_s": 60}
    made = (await operator.post("/api/v1/api-tokens", json=body)).json()
    assert made["token"].startswith("moor_")
    assert made["expires_at"] == made["created_at"] + 60
    listed = (await operator.get("/api/v1/api-tokens")).json()["items"]
    assert [token["name"] for token in listed] == ["test", "ci"]
    assert "token" not in listed[1]
    answer = await operator.post("/api/v1/api-tokens", json={**body, "role": "admin"})
    assert answer.json()["code"] == "forbidden"
    operator.headers["Authorization"] = f"Bearer {made['token']}"
    assert (await operator.get("/api/v1/session")).json()["user"]["role"] == "viewer"
    answer = await operator.delete(f"/api/v1/api-tokens/{made['id']}")
    assert answer.status_code == 204
    assert (await operator.get("/api/v1/session")).status_code == 401


async def test_the_audit_is_filtered_and_paged(hub: Hub, client: ClientFor) -> None:
    admin = await client(Role.ADMIN)
    for number in range(5):
        await hub.audit.record("ann", "task.create", str(number))
    await hub.audit.record("bob", "task.create")
    seen, query = [], {"subject": "ann", "act": "task.create", "limit": "2"}
    for _ in range(3):
        page = (await admin.get("/api/v1/audit", params=query)).json()
        seen += [entry["object"] for entry in page["items"]]
        assert page["total"] == 5
        query["cursor"] = page["next_cursor"]
    assert seen == ["4", "3", "2", "1", "0"]
    assert page["next_cursor"] is None
    for wrong in ("limit=0", "limit=501", "cursor=x", "cursor=-1"):
        assert (await admin.get(f"/api/v1/audit?{wrong}")).status_code == 400
