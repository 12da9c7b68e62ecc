"""What labels and groups of nodes may be called, so that the target language can name them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hub.errors import BadRequest

LABELS_LIMIT = 64
LABEL_VALUE_LIMIT = 256
GROUPS_LIMIT = 64
DESCRIPTION_LIMIT = 1024
_LABEL_KEY = re.compile(r"[A-Za-z0-9._-]{1,64}")
_GROUP_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return labels that a node may have.

    Raises:
        BadRequest: too many, or a key or value that can't be taken.
    """
    if len(labels) > LABELS_LIMIT:
        raise BadRequest(f"a node has at most {LABELS_LIMIT} labels")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise BadRequest(
                f"{key[:80]!r} can't be a label's key: use 1 to 64 letters, digits, dots, dashes "
                "and underscores"
            )
        if len(value) > LABEL_VALUE_LIMIT or not value.isprintable():
            raise BadRequest(
                f"the value of label {key!r} must be printable and have at most "
                f"{LABEL_VALUE_LIMIT} characters"
            )
    return dict(labels)


def check_groups(names: Sequence[str]) -> list[str]:
    """Return the groups of one node, each once; whether they exist is not asked here.

    Raises:
        BadRequest: too many.
    """
    if len(names) > GROUPS_LIMIT:
        raise BadRequest(f"a node is in at most {GROUPS_LIMIT} groups")
    return sorted(set(names))


def check_group(name: str, description: str) -> None:
    """Let a new group's name and description pass, or not.

    Raises:
        BadRequest: one of them can't be taken.
    """
    if not _GROUP_NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} can't be a group's name: use 1 to 64 lower-case letters, digits, "
            "dots, dashes and underscores, beginning with a letter or digit"
        )
    if len(description) > DESCRIPTION_LIMIT:
        raise BadRequest(f"a description has at most {DESCRIPTION_LIMIT} characters")
