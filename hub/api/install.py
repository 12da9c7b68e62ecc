"""What a new node downloads: `/install.sh` and the wheel; both public, neither holds a secret."""

from __future__ import annotations

import asyncio

from litestar import Controller, Response, get

from hub.api.guards import public
from hub.core import Hub
from hub.errors import NotFound


class InstallController(Controller):
    """The installer, at the root of the hub's address."""

    include_in_schema = False

    @get("/install.sh", guards=[public()])
    async def get_script(self, hub: Hub) -> Response[bytes]:
        """Return the script that installs and joins an agent."""
        script = hub.installer.script().encode()
        return Response(script, media_type="text/x-shellscript; charset=utf-8")

    @get("/install/{name:str}", guards=[public()])
    async def get_wheel(self, hub: Hub, name: str) -> Response[bytes]:
        """Return the agent's wheel, by its exact name."""
        wheel = await asyncio.to_thread(hub.installer.wheel)
        if name != wheel.name:
            raise NotFound("file", name[:100])
        return Response(wheel.content, media_type="application/octet-stream")
