"""Names of nodes: what the target language, URLs and the pages can hold.

Letters, digits, dot, dash and underscore, beginning with a letter or digit, at most 64; words of
the target language are taken.
"""

from __future__ import annotations

import re

from hub.errors import BadRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = frozenset({"all", "and", "or", "not"})


def check_name(name: str) -> str:
    """Return `name` when a node may be called so.

    Raises:
        BadRequest: it may not; the text says what a name is.
    """
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise BadRequest(
            f"{name[:80]!r} can't be a node's name: use 1 to 64 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or digit, and none of all, and, or, not"
        )
    return name


def name_from_hostname(hostname: str) -> str:
    """Make a name of whatever a host calls itself."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", hostname).lstrip("._-")[:64].rstrip("-")
    if not name:
        return "node"
    return f"node-{name}" if name.lower() in _RESERVED else name
