"""Who holds which node's tunnel, in this process; the seam for several hubs.

The newest tunnel of a node fences the older one; one that lost its connection and may be resumed
stays the node's, but the node is offline meanwhile. An instance (boot id, start time of the agent)
that comes back after another one replaced it proves that two machines share one key: at the second
proof within ten minutes both are quarantined.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from hub.errors import NodeOffline
from protocol.aio import GoAwayCode, Stream, Tunnel, TunnelClosed
from protocol.messages import Open

logger = logging.getLogger(__name__)

CLONE_PERIOD_S = 600.0
CLONE_RETURNS = 2
MAX_INSTANCES = 16  # remembered per node


@dataclass(slots=True)
class _Seen:
    """The instances that a node's tunnels came from."""

    current: tuple[str, int] | None = None
    replaced: deque[tuple[str, int]] = field(default_factory=lambda: deque(maxlen=MAX_INSTANCES))
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=CLONE_RETURNS))


class Registry:
    """The tunnels of all nodes."""

    def __init__(self, tasks: asyncio.TaskGroup, name_of: Callable[[str], str]) -> None:
        """`tasks` runs the closing of fenced tunnels; `name_of` names a node in errors."""
        self._tasks = tasks
        self._name_of = name_of
        self._tunnels: dict[str, Tunnel] = {}
        self._seen: dict[str, _Seen] = {}

    def __len__(self) -> int:
        return sum(tunnel.is_connected for tunnel in self._tunnels.values())

    def is_online(self, node_id: str) -> bool:
        """Whether the node has a tunnel that is connected now."""
        tunnel = self._tunnels.get(node_id)
        return tunnel is not None and tunnel.is_connected

    def resumable(self, node_id: str, name: bytes) -> Tunnel | None:
        """The node's tunnel, when its session has this name and can go on."""
        tunnel = self._tunnels.get(node_id)
        if tunnel is None or not name or not hmac.compare_digest(tunnel.resume_by, name):
            return None
        return tunnel

    def rtt_ms(self, node_id: str) -> float | None:
        """The tunnel's last round-trip time in milliseconds."""
        tunnel = self._tunnels.get(node_id)
        return None if tunnel is None or tunnel.rtt_s is None else tunnel.rtt_s * 1000

    async def open(self, node_id: str, message: Open) -> Stream:
        """Open a stream to a node.

        Raises:
            NodeOffline: it has no tunnel, or lost it just now.
        """
        tunnel = self._tunnels.get(node_id)
        if tunnel is None or not tunnel.is_connected:
            raise NodeOffline(self._name_of(node_id))
        try:
            return await tunnel.open(message)
        except TunnelClosed as closed:
            raise NodeOffline(self._name_of(node_id)) from closed

    def holds(self, node_id: str, tunnel: Tunnel) -> bool:
        """Whether `tunnel` is the node's newest one."""
        return self._tunnels.get(node_id) is tunnel

    def attach(self, node_id: str, tunnel: Tunnel, now: float) -> bool:
        """Make `tunnel` the node's, each time it is connected.

        False: this was the second proof of a copied key.
        The tunnel that it replaces is told and closed. On False the caller quarantines the node and
        cuts it.
        """
        older = self._tunnels.get(node_id)
        self._tunnels[node_id] = tunnel
        if older is not None and older is not tunnel:
            logger.warning("node %s: a newer tunnel replaces the old one", self._name_of(node_id))
            self._replace(older)
        return not self._is_cloned(node_id, tunnel, now)

    def detach(self, node_id: str, tunnel: Tunnel) -> bool:
        """The tunnel ended; True when it was the node's newest, so that the node is offline now."""
        if self._tunnels.get(node_id) is not tunnel:
            return False
        del self._tunnels[node_id]
        return True

    def cut(self, node_id: str, code: GoAwayCode, reason: str) -> None:
        """Close a node's tunnel from our side."""
        tunnel = self._tunnels.get(node_id)
        if tunnel is not None:
            self._close(tunnel, code, reason)

    def forget(self, node_id: str) -> None:
        """Drop what is remembered of a node's instances, after a release from quarantine."""
        self._seen.pop(node_id, None)

    async def close_all(self, retry_after_s: float) -> None:
        """Say GOAWAY to every node: the hub stops; they come back within `retry_after_s`."""
        async with asyncio.TaskGroup() as tasks:
            for tunnel in list(self._tunnels.values()):
                tasks.create_task(
                    tunnel.close(GoAwayCode.SHUTDOWN, "the hub is stopping", retry_after_s)
                )

    def _replace(self, older: Tunnel) -> None:
        """Tell the peer of an older tunnel; nobody waits any more for one without a connection."""
        reason = "a newer tunnel of this node took over"
        if older.is_connected:
            self._close(older, GoAwayCode.REPLACED, reason)
        else:
            older.abort(reason)

    def _close(self, tunnel: Tunnel, code: GoAwayCode, reason: str) -> None:
        self._tasks.create_task(tunnel.close(code, reason))

    def _is_cloned(self, node_id: str, tunnel: Tunnel, now: float) -> bool:
        hello = tunnel.peer
        if hello is None:
            return False
        seen = self._seen.setdefault(node_id, _Seen())
        instance = (hello.boot_id, hello.epoch)
        if seen.current == instance:
            return False
        if instance in seen.replaced:
            seen.returns.append(now)
            logger.warning("node %s: two machines seem to share its key", self._name_of(node_id))
        if seen.current is not None:
            seen.replaced.append(seen.current)
        seen.current = instance
        proofs = [at for at in seen.returns if now - at < CLONE_PERIOD_S]
        return len(proofs) >= CLONE_RETURNS
