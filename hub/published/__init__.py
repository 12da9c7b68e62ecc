"""HTTP services of nodes, published at the hub.

`Published` joins the parts and `Sites` serves them. `services` says what is published, `doors` and
`entries` who got in, `uses` who is there; `headers` holds the rules of what passes, `exchange` and
`sockets` carry it over a connection that `connect` opens.
"""

from hub.published.published import Published
from hub.published.services import Service, ServiceSpec
from hub.published.sites import Sites

__all__ = ["Published", "Service", "ServiceSpec", "Sites"]
