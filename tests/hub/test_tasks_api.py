"""`/tasks`, `/sessions`, `/forwards` over HTTP, with a node that answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from sqlalchemy import insert

from hub.authz import Role
from hub.core import Hub
from hub.store import schema
from protocol.aio import memory_pair
from protocol.messages import Exec
from tests.hub.world import NodeChannel, agent, say

ClientFor = Callable[[Role | None], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def node(hub: Hub) -> AsyncIterator[str]:
    """A connected node whose commands print their argv."""

    async def script(opened: Exec, channel: NodeChannel) -> None:
        await say(channel, out=" ".join(opened.argv).encode())

    row = insert(schema.nodes).values(id="id-web-1", name="web-1", created_at=0.0)
    await hub.store.write(lambda connection: connection.execute(row))
    await hub.nodes.refresh("id-web-1")
    async with asyncio.TaskGroup() as group, memory_pair(agent(script)) as (_, hub_end):
        hub.registry.attach("id-web-1", hub_end, time.monotonic())
        running = group.create_task(hub.tasks.run())
        await hub.tasks.ready()
        yield "web-1"
        running.cancel()
        await asyncio.wait([running])


async def test_a_task_is_made_followed_and_shown(client: ClientFor, node: str) -> None:
    operator = await client(Role.OPERATOR)
    made = await operator.post("/api/v1/tasks", json={"target": node, "argv": ["echo", "hi"]})
    assert made.status_code == 202, made.text
    assert "runs" not in made.json()
    task = made.json()["id"]
    followed = await operator.get(f"/api/v1/tasks/{task}/stream")
    assert followed.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in followed.text.splitlines()]
    assert [line["type"] for line in lines] == ["output", "result", "summary"]
    assert lines[0] == {"type": "output", "node": node, "stream": "stdout", "data": "echo hi"}
    shown = (await operator.get(f"/api/v1/tasks/{task}")).json()
    assert (shown["state"], shown["counts"]) == ("succeeded", {"succeeded": 1})
    assert shown["runs"][0]["stdout"] == "echo hi"
    listed = (await operator.get("/api/v1/tasks?limit=1")).json()
    assert (listed["items"][0]["id"], listed["total"]) == (task, 1)
    ended = await operator.post(f"/api/v1/tasks/{task}/cancel")
    assert (ended.status_code, ended.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"target": "web-1", "argv": []}, 400, "bad_request"),
        ({"target": "web-1", "argv": [""]}, 400, "bad_request"),
        ({"target": "web-1", "argv": ["true"], "timeout_s": 0.01}, 400, "bad_request"),
        ({"target": "web-1", "argv": ["true"], "timeout_s": 200_000}, 400, "bad_request"),
        ({"target": "web-1", "argv": ["true"], "parallel": 0}, 400, "bad_request"),
        ({"target": "web-1", "argv": ["true"], "parallel": 1001}, 400, "bad_request"),
        ({"target": "web-1", "argv": ["true"], "unknown": 1}, 400, "bad_request"),
        ({"target": "web-1 and", "argv": ["true"]}, 400, "invalid_target"),
        ({"target": "nobody-*", "argv": ["true"]}, 404, "nothing_matches"),
        ({"target": "web-1", "argv": ["x" * 100_000]}, 413, "too_large"),
    ],
)
async def test_bad_specifications_are_problems(
    client: ClientFor, node: str, body: dict[str, object], status: int, code: str
) -> None:
    operator = await client(Role.OPERATOR)
    answer = await operator.post("/api/v1/tasks", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await operator.get("/api/v1/tasks")).json()["total"] == 0


async def test_viewers_look_and_do_not_run(client: ClientFor, node: str) -> None:
    viewer = await client(Role.VIEWER)
    body = {"target": node, "argv": ["true"]}
    assert (await viewer.post("/api/v1/tasks", json=body)).status_code == 403
    assert (await viewer.get("/api/v1/tasks")).status_code == 200
    assert (await viewer.get("/api/v1/tasks/nothing")).status_code == 404
    assert (await viewer.get("/api/v1/tasks/nothing/stream")).status_code == 404
    assert (await viewer.get("/api/v1/sessions")).json()["items"] == []
    assert (await viewer.get("/api/v1/forwards")).json()["items"] == []
    assert (await viewer.delete("/api/v1/sessions/nothing")).status_code == 403
    operator = await client(Role.OPERATOR)
    assert (await operator.delete("/api/v1/sessions/nothing")).status_code == 404
