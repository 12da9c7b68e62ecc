"""The blocking client: `call` for one answer, `each` for a list, `stream` for what goes on.

Not for several threads at once: make one per thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import httpx

from mooring.sdk import exchange, identity
from mooring.sdk.call import BASE, Call, Listing, Stream
from mooring.sdk.identity import HTTP_ALPN, Identity
from mooring.sdk.models import Event

T = TypeVar("T")


class Client:
    """A hub, seen by one identity."""

    def __init__(self, who: Identity) -> None:
        self.identity = who
        transport = httpx.HTTPTransport(
            verify=who.tls(HTTP_ALPN),
            proxy=who.proxy(),
            socket_options=exchange.keep_alive(),
        )
        self._http = httpx.Client(
            base_url=who.url,
            transport=transport,
            headers=exchange.headers_of(who),
            timeout=exchange.TIMEOUT,
        )

    @classmethod
    def connect(cls) -> Client:
        """Use the identity of the environment or of `mooring login`.

        Raises:
            NoIdentity: there is none.
        """
        return cls(identity.load())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, call: Call[T], headers: Mapping[str, str] | None = None) -> T:
        """Carry out one call.

        Raises:
            MooringError: the class says why.
        """
        with self._failures():
            request = self._http.build_request(**exchange.request_of(call, headers))
            return exchange.answer_of(call, self._http.send(request))

    def each(self, listing: Listing[T], limit: int | None = None) -> Iterator[T]:
        """Yield what a list holds, `limit` items at most, page after page."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = exchange.page_size(left)
            page = self.call(listing.page(cursor, size))
            yield from page.items if left is None else page.items[:left]
            left = None if left is None else left - len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return

    def count(self, listing: Listing[T]) -> int:
        """How many items a list has."""
        page = self.call(listing.page(limit=1))
        return page.total if page.total is not None else len(page.items)

    def stream(self, stream: Stream[T]) -> Iterator[T]:
        """Yield the objects of a stream as they come, until it ends."""
        lines = exchange.Lines()
        for data in self._bytes(stream.path, {}):
            for line in lines.feed(data):
                yield exchange.decode(line, stream.yields)

    def events(self, after: int | None = None) -> Iterator[Event]:
        """Yield what happens in the mesh, after the event `after`, until the hub goes away."""
        params = {} if after is None else {"after": str(after)}
        decoder = exchange.ServerEvents()
        for data in self._bytes(f"{BASE}/events", params):
            for event in decoder.feed(data):
                yield exchange.decode(event, Event)

    def upload(
        self, call: Call[T], parts: Iterable[bytes], size_bytes: int, sha256: str | None = None
    ) -> T:
        """Carry out a call whose body is `parts`, `size_bytes` in all; nothing is kept in memory.

        Args:
            call: for example `calls.push_package(...)`.
            parts: the body.
            size_bytes: its length.
            sha256: in hex; the hub compares it.
        """
        arguments = exchange.request_of(call, exchange.upload_headers(size_bytes, sha256))
        arguments["content"] = parts
        with self._failures():
            request = self._http.build_request(**arguments, timeout=exchange.UPLOAD_TIMEOUT)
            return exchange.answer_of(call, self._http.send(request))

    def _bytes(self, path: str, params: Mapping[str, str]) -> Iterator[bytes]:
        with (
            self._failures(),
            self._http.stream(
                "GET", path, params=params, timeout=exchange.STREAM_TIMEOUT
            ) as response,
        ):
            if not response.is_success:
                exchange.check(response.status_code, response.read(), response.headers)
            yield from response.iter_bytes()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise exchange.failure_of(error, self.identity.url) from error
