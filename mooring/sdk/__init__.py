"""The Python SDK: a hub's HTTP interface and tunnel, typed.

`calls` describes each route once as a value; `Client` (blocking) and `AsyncClient` carry calls out:

    from mooring.sdk import Client, calls

    with Client.connect() as hub:
        for node in hub.each(calls.nodes("status==online and label.role==web")):
            print(node.name, node.facts.os_name)
        task = hub.call(calls.run(TaskSpec(target="web-*", argv=["uptime"])))
        for event in hub.stream(calls.task_stream(task.id)):
            print(event)

Who calls comes from the environment or from `mooring login` (`mooring.sdk.identity`). Every error
is a `MooringError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mooring.sdk import calls
from mooring.sdk.client import Client
from mooring.sdk.errors import MooringError
from mooring.sdk.identity import Identity
from mooring.sdk.models import TaskSpec

if TYPE_CHECKING:
    from mooring.sdk.async_client import AsyncClient

__all__ = ["AsyncClient", "Client", "Identity", "MooringError", "TaskSpec", "calls"]


def __getattr__(name: str) -> object:
    """Import the asynchronous client when it is first named: it brings asyncio and the tunnel."""
    if name == "AsyncClient":
        from mooring.sdk.async_client import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
