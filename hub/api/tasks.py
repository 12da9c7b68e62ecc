"""Tasks: `/tasks`; commands on many nodes, their results, and their output as it comes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, get, post
from litestar.params import Parameter
from litestar.response import Stream

from hub.api.guards import requires
from hub.authz import Subject, Verb
from hub.core import Hub
from hub.tasks import Task, TaskSpec

NDJSON = "application/x-ndjson"
BODY_LIMIT_BYTES = 2 * 1024 * 1024
"""A specification with 1 MiB of standard input in base64, and room for the rest."""
Cursor = Annotated[str | None, Parameter(max_length=64)]


class TaskPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the tasks, newest first."""

    items: list[Task]
    next_cursor: str | None
    total: int


class TasksController(Controller):
    """Tasks."""

    path = "/tasks"
    tags = ("tasks",)

    @post(guards=[requires(Verb.EXEC)], status_code=202, request_max_body_size=BODY_LIMIT_BYTES)
    async def create_task(self, hub: Hub, subject: Subject, data: TaskSpec) -> Task:
        """Run a command on the nodes of a target; answers once it is stored."""
        return await hub.tasks.create(subject, data)

    @get(guards=[requires(Verb.VIEW)])
    async def list_tasks(
        self,
        hub: Hub,
        limit: Annotated[int, Parameter(ge=1, le=500)] = 100,
        cursor: Cursor = None,
    ) -> TaskPage:
        """List tasks, newest first, without their runs."""
        items, next_cursor, total = await hub.tasks.page(limit, cursor)
        return TaskPage(items=items, next_cursor=next_cursor, total=total)

    @get("/{task_id:str}", guards=[requires(Verb.VIEW)])
    async def get_task(self, hub: Hub, task_id: str) -> Task:
        """Show a task with its runs and their kept output."""
        return await hub.tasks.get(task_id)

    @post("/{task_id:str}/cancel", guards=[requires(Verb.EXEC)], status_code=200)
    async def cancel_task(self, hub: Hub, subject: Subject, task_id: str) -> Task:
        """Cancel what is queued and end what runs."""
        return await hub.tasks.cancel(subject, task_id)

    @get("/{task_id:str}/stream", guards=[requires(Verb.VIEW)], media_type=NDJSON)
    async def follow_task(self, hub: Hub, task_id: str) -> Stream:
        """Stream a task as NDJSON, from its beginning until it has ended."""
        lines = await hub.tasks.follow(task_id)
        return Stream(lines, media_type=NDJSON, headers={"Cache-Control": "no-store"})
