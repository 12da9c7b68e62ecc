"""What can be asked of the hub, as values: one answer, a list in pages, a live sequence.

A `Call[T]` is what to send and which type the answer has; `Client.call` gives a T. `Listing[T]` is
read page by page with `each`, `Stream[T]` is a live sequence for `stream`. `calls` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from mooring.sdk.models import Page

T = TypeVar("T")
Query: TypeAlias = Mapping[str, str | int | float | None]
BASE = "/api/v1"
PAGE_SIZE = 500  # the most that the hub gives at once


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its answer."""

    method: str
    path: str
    returns: type[T]
    query: Query = field(default_factory=dict)
    body: object = None


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """A list that comes in pages."""

    path: str
    returns: type[Page[T]]
    query: Query = field(default_factory=dict)

    def page(self, cursor: str | None = None, limit: int = PAGE_SIZE) -> Call[Page[T]]:
        """Ask for one page, beginning at `cursor`."""
        query = {**self.query, "limit": limit, "cursor": cursor}
        return Call("GET", self.path, self.returns, query)


@dataclass(frozen=True, slots=True)
class Stream(Generic[T]):
    """A sequence of JSON objects, one per line, that goes on until its subject ends."""

    path: str
    yields: Any
    """The Struct or union of Structs that a line holds."""
