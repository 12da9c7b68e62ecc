"""What can go wrong between an operator and a hub: one class per stable `code` of the API.

    MooringError
    ├── BadRequest ─ InvalidTarget                 ├── Conflict, TooLarge, Throttled
    ├── NotSignedIn, WrongCredentials, CsrfFailed  ├── NodeOffline, RefusedByNode
    ├── Forbidden                                  ├── InternalError, Unavailable
    ├── NotFound, NothingMatches                   └── HubUnreachable ─ HubNotTrusted

Errors carry fields; `__str__` is one line that says what is wrong. Tell them apart by class or by
`code`, never by text.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class MooringError(Exception):
    """Base of everything the SDK raises."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class NoIdentity(MooringError):
    """No hub and no token are known, or what is stored can't be used."""

    code = "no_identity"


class HubUnreachable(MooringError):
    """No answer of a hub at `url`."""

    code = "hub_unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the hub at {url} can't be reached: {reason}")
        self.url = url
        self.reason = reason


class HubNotTrusted(HubUnreachable):
    """What answers at `url` shows a certificate that isn't trusted here."""

    code = "hub_not_trusted"


class BadRequest(MooringError):
    """The hub can't take the input as it is."""

    code = "bad_request"


class InvalidTarget(BadRequest):
    """A target expression doesn't parse; `column` is 1-based."""

    code = "invalid_target"

    def __init__(self, detail: str, column: int | None = None) -> None:
        super().__init__(detail)
        self.column = column

    def __str__(self) -> str:
        known = self.column is not None and "column" not in self.detail
        return f"{self.detail} (column {self.column})" if known else self.detail


class NotSignedIn(MooringError):
    """No token, or one that is unknown, expired or revoked."""

    code = "not_signed_in"


class WrongCredentials(MooringError):
    """Name or password don't match."""

    code = "wrong_credentials"


class CsrfFailed(MooringError):
    """A request by cookie lacked its proof."""

    code = "csrf"


class Forbidden(MooringError):
    """The role doesn't include `verb`."""

    code = "forbidden"

    def __init__(self, detail: str, verb: str | None = None) -> None:
        super().__init__(detail)
        self.verb = verb


class NotFound(MooringError):
    """There is no such thing."""

    code = "not_found"


class NothingMatches(MooringError):
    """The target matches no node."""

    code = "nothing_matches"


class Conflict(MooringError):
    """The present state of things forbids it."""

    code = "conflict"


class TooLarge(MooringError):
    """Beyond one of the hub's limits."""

    code = "too_large"


class Throttled(MooringError):
    """Too many attempts; try again after `retry_after_s` seconds."""

    code = "throttled"

    def __init__(self, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NodeOffline(MooringError):
    """The node has no tunnel to the hub."""

    code = "node_offline"


class RefusedByNode(MooringError):
    """The node's agent or its own policy said no."""

    code = "refused_by_node"


class InternalError(MooringError):
    """A fault of the hub; its log says more."""

    code = "internal"


class Unavailable(MooringError):
    """The hub can't do it now."""

    code = "unavailable"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document (RFC 9457) as the hub sends it."""

    status: int
    code: str
    title: str = ""
    detail: str = ""
    column: int | None = None
    verb: str | None = None


_BY_CODE: dict[str, type[MooringError]] = {
    kind.code: kind
    for kind in (
        BadRequest, NotSignedIn, WrongCredentials, CsrfFailed, NotFound, NothingMatches, Conflict,
        TooLarge, NodeOffline, RefusedByNode, InternalError, Unavailable,
    )
}  # fmt: skip
_BY_STATUS: dict[int, type[MooringError]] = {
    401: NotSignedIn, 403: Forbidden, 404: NotFound, 409: Conflict, 413: TooLarge, 429: Throttled,
    502: Unavailable, 503: Unavailable, 504: Unavailable,
}  # fmt: skip


def error_of(status: int, body: bytes, retry_after: str | None = None) -> MooringError:
    """Turn an answer that isn't a success into the exception to raise.

    Args:
        status: of the HTTP answer.
        body: a problem document, or whatever a proxy in between sent.
        retry_after: the header, in seconds.
    """
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        kind = _BY_STATUS.get(status, InternalError if status >= 500 else BadRequest)
        text = body[:200].decode("utf-8", "replace").strip()
        plain = text if text.isprintable() and "<" not in text else ""
        return kind(plain or f"the answer was HTTP status {status}, not one of a Mooring hub")
    detail = problem.detail or problem.title or problem.code
    match problem.code:
        case "invalid_target":
            return InvalidTarget(detail, problem.column)
        case "forbidden":
            return Forbidden(detail, problem.verb)
        case "throttled":
            seconds = float(retry_after) if retry_after and retry_after.isdecimal() else None
            return Throttled(detail, seconds)
        case code:
            return _BY_CODE.get(code, _BY_STATUS.get(status, BadRequest))(detail)
