"""Packages on the node: the artifact cache, verified transfer, unpacking, releases, uninstalling.

`handle_transfer` fills the cache, `handle_install` changes what is installed; both work in a
`PackageRoom`, which the agent makes once from its state directory. `PackageRoom.installed` is what
the agent reports.
"""

from edge_agent.packages.install import handle_install
from edge_agent.packages.room import PackageRoom
from edge_agent.packages.transfer import handle_transfer

__all__ = ["PackageRoom", "handle_install", "handle_transfer"]
