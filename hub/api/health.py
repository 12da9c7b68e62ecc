"""For those who watch the hub: `/healthz`, `/readyz`, `/metrics`, `/api/v1/about`.

All are public and say nothing of nodes or people but how many nodes are connected.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError, version

import msgspec
from litestar import Controller, MediaType, Response, get

from hub.api.guards import public
from hub.core import Hub
from hub.errors import Unavailable

READY_TIMEOUT_S = 2.0
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """Which hub this is."""

    name: str
    version: str
    mesh_id: str
    ca_fingerprint: str
    """SHA-256 of the root's public key in hex: what join tokens pin."""


class AboutController(Controller):
    """The hub's identity."""

    path = "/about"
    tags = ("about",)

    @get(guards=[public()])
    async def get_about(self, hub: Hub) -> About:
        """Say which hub this is."""
        return About(
            name="mooring",
            version=hub_version(),
            mesh_id=hub.authority.mesh_id,
            ca_fingerprint=hub.authority.root_spki_sha256.hex(),
        )


class HealthController(Controller):
    """Probes and metrics."""

    include_in_schema = False

    @get("/healthz", guards=[public()], media_type=MediaType.TEXT)
    async def is_alive(self) -> str:
        """Answer: the process runs."""
        return "ok\n"

    @get("/readyz", guards=[public()], media_type=MediaType.TEXT)
    async def is_ready(self, hub: Hub) -> Response[str]:
        """Answer when the ports are open and the store takes a write."""
        if not hub.readiness.listening:
            return Response("not listening yet\n", status_code=503)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await hub.store.check()
        except (TimeoutError, Unavailable):
            return Response("the store takes no writes\n", status_code=503)
        return Response("ready\n")

    @get("/metrics", guards=[public()])
    async def get_metrics(self, hub: Hub) -> Response[str]:
        """Expose the hub's own metrics to Prometheus."""
        return Response(hub.telemetry.exposition(), media_type=PROMETHEUS)


def hub_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("mooring")
    except PackageNotFoundError:
        return "0+checkout"
