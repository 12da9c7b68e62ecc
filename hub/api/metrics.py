"""A node's history: `/nodes/{node}/metrics`."""

from __future__ import annotations

from typing import Annotated

from litestar import get
from litestar.params import Parameter

from hub.api.guards import requires
from hub.authz import Verb
from hub.core import Hub
from hub.metrics import History


@get("/nodes/{node:str}/metrics", guards=[requires(Verb.METRICS)], tags=["metrics"])
async def node_metrics(
    hub: Hub,
    node: str,
    since_s: Annotated[float, Parameter(gt=0, le=3600)] = 3600.0,
) -> History:
    """Show what a node measured in the last seconds, an hour at most; null is a gap."""
    return hub.metrics.history(hub.nodes.get(node).id, since_s)
