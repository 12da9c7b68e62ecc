"""The hub's four TLS faces, one a route of the listener.

The tunnel's and the joiner's use a certificate of the mesh; the pages' and the client's use one of
the mesh, too, or the operator's own, which is read again when its files change. The table is in
docs/design/architecture.md, "One port".
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path

from certs.contexts import hub_join_context, hub_tunnel_context
from certs.servers import ServerFiles

logger = logging.getLogger(__name__)

CLIENT_ALPN = "mooring-client/1"
RELOAD_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Faces:
    """A context per kind of connection."""

    tunnel: ssl.SSLContext
    join: ssl.SSLContext
    client: ssl.SSLContext
    pages: ssl.SSLContext


def make_faces(mesh: ServerFiles, pages: ServerFiles, trust_pem: bytes) -> Faces:
    """Load all certificates.

    Raises:
        OSError, ssl.SSLError: a file is missing, or certificate and key don't fit.
    """
    return Faces(
        tunnel=hub_tunnel_context(mesh.chain, mesh.key, trust_pem),
        join=hub_join_context(mesh.chain, mesh.key),
        client=_pages_context(pages, CLIENT_ALPN, ssl.TLSVersion.TLSv1_3),
        pages=_pages_context(pages, "http/1.1"),
    )


def _pages_context(
    files: ServerFiles, alpn: str, lowest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = lowest
    context.set_alpn_protocols([alpn])
    context.load_cert_chain(files.chain, files.key)
    return context


async def reload_on_change(faces: Faces, pages: ServerFiles) -> None:
    """Load the pages' certificate again whenever its files change; runs until cancelled.

    A pair that can't be loaded (half written, say) is tried again; until then the old one serves.
    """
    loaded = _stamps(pages)
    while True:
        await asyncio.sleep(RELOAD_EVERY_S)
        stamps = _stamps(pages)
        if stamps == loaded:
            continue
        try:
            # Try the pair on a context of its own: a failure would leave a live one without a key.
            _pages_context(pages, "http/1.1")
            for context in (faces.pages, faces.client):
                context.load_cert_chain(pages.chain, pages.key)
        except (OSError, ssl.SSLError) as error:
            logger.warning("%s changed but can't be used yet: %s", pages.chain, error)
        else:
            loaded = stamps
            logger.info("%s was read again", pages.chain)


def _stamps(files: ServerFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(_stamp(path) for path in (files.chain, files.key))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
