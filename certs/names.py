"""Names in certificates: one SAN URI says what a certificate's holder is.

`mooring://<mesh>/ca`, `mooring://<mesh>/hub`, `mooring://<mesh>/node/<uuid>`. Nothing else in a
certificate identifies anybody; subjects are for people who read certificates.
"""

from __future__ import annotations

import re

from cryptography import x509

_MESH = r"[0-9a-f]{32}"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_NODE_ID = re.compile(_UUID)
_CA_URI = re.compile(rf"mooring://({_MESH})/ca")
_NODE_URI = re.compile(rf"mooring://({_MESH})/node/({_UUID})")


def ca_uri(mesh_id: str) -> str:
    """Return the name of a mesh's CA."""
    return f"mooring://{mesh_id}/ca"


def hub_uri(mesh_id: str) -> str:
    """Return the name of a mesh's hub."""
    return f"mooring://{mesh_id}/hub"


def node_uri(mesh_id: str, node_id: str) -> str:
    """Return the name of a node.

    Raises:
        ValueError: `node_id` is not a lower-case UUID.
    """
    if not _NODE_ID.fullmatch(node_id):
        raise ValueError(f"not a node id: {node_id!r}")
    return f"mooring://{mesh_id}/node/{node_id}"


def parse_ca(uri: str) -> str | None:
    """Return the mesh id of a CA's name, None when it isn't one."""
    match = _CA_URI.fullmatch(uri)
    return match[1] if match else None


def parse_node(uri: str) -> tuple[str, str] | None:
    """Return (mesh id, node id) of a node's name, None when it isn't one."""
    match = _NODE_URI.fullmatch(uri)
    return (match[1], match[2]) if match else None


def uris_of(certificate: x509.Certificate) -> list[str]:
    """List the SAN URIs of a certificate; empty without the extension."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.UniformResourceIdentifier)
