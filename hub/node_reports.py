"""What agents say of themselves, made safe to store and to show.

The rule it guards: every text of an agent is cut to `TEXT_LIMIT` and freed of what does not print
(control characters, direction marks) before it reaches the database, a page or a terminal.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

import msgspec

from hub.nodeview import NO_FACTS, NodeFacts, NodePackage

logger = logging.getLogger(__name__)

T = TypeVar("T")
TEXT_LIMIT = 256


def clean_facts(document: object) -> NodeFacts:
    """Make facts of a `Facts` Struct or its stored document; of an unreadable one, none."""
    return _convert(document, NodeFacts) or NO_FACTS


def clean_packages(documents: object) -> tuple[NodePackage, ...]:
    """Make packages of what was reported or stored, by name; of an unreadable one, none."""
    packages = _convert(documents, list[NodePackage]) or []
    return tuple(sorted(packages, key=lambda package: (package.name, package.version)))


def clean_text(text: str) -> str:
    """Return the printable part of a text, cut to `TEXT_LIMIT`."""
    if not text.isprintable():
        text = "".join(filter(str.isprintable, text))
    return text[:TEXT_LIMIT]


def _convert(document: object, type: type[T]) -> T | None:
    if not document:
        return None
    try:
        return msgspec.convert(_clean(msgspec.to_builtins(document)), type)
    except msgspec.ValidationError as error:
        logger.warning("a stored or reported document is not readable: %s", error)
        return None


def _clean(value: Any) -> Any:
    match value:
        case str():
            return clean_text(value)
        case dict():
            return {key: _clean(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return value
