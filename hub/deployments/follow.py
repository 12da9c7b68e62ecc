"""A deployment as NDJSON: every node as it is, then each change, the summary last.

The rule it guards: a slow reader costs one entry per node at most; what changed twice while it was
away it sees once, as it is now.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import islice

import msgspec

from hub.deployments.state import LiveDeployment
from hub.deployments.views import node_line, summary_line
from hub.tasks.feed import Follower

BATCH = 200
"""Lines in one piece of the answer."""


async def follow(deployment: LiveDeployment, follower: Follower) -> AsyncGenerator[bytes, None]:
    """Yield lines until the deployment has ended; the follower leaves with the iterator."""
    try:
        while True:
            follower.wake.clear()
            while changed := list(islice(follower.changed, BATCH)):
                yield b"".join(_take(deployment, follower, node_id) for node_id in changed)
            if deployment.row.finished_at is not None:
                break
            await follower.wake.wait()
        yield msgspec.json.encode(summary_line(deployment)) + b"\n"
    finally:
        deployment.feed.leave(follower)


def _take(deployment: LiveDeployment, follower: Follower, node_id: str) -> bytes:
    del follower.changed[node_id]
    return msgspec.json.encode(node_line(deployment.steps[node_id].row())) + b"\n"
