"""Whether a tunnel has a connection that works, for whoever waits for that to change."""

from __future__ import annotations

import asyncio


class Connectedness:
    """Down at first; up once the peer said HELLO; over when the tunnel is."""

    __slots__ = ("_down", "_greeting", "_up", "lost_because")

    def __init__(self) -> None:
        self._up = asyncio.Event()  # or over
        self._down = asyncio.Event()  # or over
        self._down.set()
        self._greeting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.lost_because = ""
        """Why the last connection was lost."""

    @property
    def is_up(self) -> bool:
        """The peer said HELLO on the connection that there is."""
        return self._up.is_set() and not self._down.is_set()

    async def wait_up(self) -> None:
        """Wait until it is up, or over."""
        await self._up.wait()

    async def wait_down(self) -> None:
        """Wait until it is down, or over."""
        await self._down.wait()

    async def wait_greeted(self) -> bool:
        """Wait for the peer's HELLO on the present connection; False: that is gone."""
        return await asyncio.shield(self._greeting)

    def begins(self) -> None:
        """There is another connection."""
        if self._greeting.done():
            self._greeting = asyncio.get_running_loop().create_future()

    def greeted(self) -> None:
        """The peer said HELLO on it."""
        self._down.clear()
        self._up.set()
        self._heard(True)

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self.lost_because = reason
        self._up.clear()
        self._down.set()
        self._heard(False)

    def over(self, reason: str) -> None:
        """There will be no connection any more: nobody waits for ever."""
        self.lost(reason)
        self._up.set()

    def _heard(self, hello: bool) -> None:
        if not self._greeting.done():
            self._greeting.set_result(hello)
