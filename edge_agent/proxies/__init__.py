"""Ways out through a proxy: which one a hub is reached by, and a socket that leads through it.

    route = route_to("https://hub.example:8443", config.proxy)
    connected = await connect_by(route, "https://hub.example:8443")     # None: no proxy

HTTP proxies (CONNECT, basic authentication) by http:// and https://, SOCKS5 with and without a
password; names are resolved by the proxy. The rule it guards: a password of a proxy is in no
message, log or `repr`.
"""

from edge_agent.proxies.choice import DIRECT, BadProxy, Proxy, Route, parse_proxy, route_to
from edge_agent.proxies.connect import ProxyFailed, ProxyFault, connect_by, connect_through
from edge_agent.proxies.secure import until_gone

__all__ = [
    "DIRECT",
    "BadProxy",
    "Proxy",
    "ProxyFailed",
    "ProxyFault",
    "Route",
    "connect_by",
    "connect_through",
    "parse_proxy",
    "route_to",
    "until_gone",
]
