"""Deployments: bring a package to nodes, or take it away, with progress per node.

`Deployments` is the service; `drive` takes one node to its end over `carry` (the hub's side of the
`transfer` and `install` streams), `chunks` reads artifacts once for all nodes, `follow` tells it
live.
"""

from hub.deployments.service import Deployments
from hub.deployments.views import Deployment, DeploymentNode, DeploymentSpec

__all__ = ["Deployment", "DeploymentNode", "DeploymentSpec", "Deployments"]
