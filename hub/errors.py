"""What can go wrong in the hub, one class per stable `code` of the API.

    HubError
    ├── BadRequest          bad_request        ├── Conflict        conflict
    │   └── InvalidTarget   invalid_target     ├── TooLarge        too_large
    ├── NotSignedIn         not_signed_in      ├── Throttled       throttled
    ├── WrongCredentials    wrong_credentials  ├── NodeOffline     node_offline
    ├── CsrfFailed          csrf               ├── RefusedByNode   refused_by_node
    ├── Forbidden           forbidden          ├── Unavailable     unavailable
    ├── NotFound            not_found          └── (HubError)      internal
    ├── NothingMatches      nothing_matches
    └── TokenRefused        token_unknown, token_used, token_expired

Errors carry fields, `__str__` says what is wrong and what to do; nothing here knows HTTP, which
`hub.api.problems` maps by a table.
"""

from __future__ import annotations

from typing import ClassVar


class HubError(Exception):
    """Base of the hub's errors; raised itself only for a fault of the hub."""

    code: ClassVar[str] = "internal"

    def __init__(self, detail: str) -> None:
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class BadRequest(HubError):
    """The caller's input cannot be taken as it is."""

    code = "bad_request"


class InvalidTarget(BadRequest):
    """A target expression does not parse; `column` is 1-based."""

    code = "invalid_target"

    def __init__(self, detail: str, column: int) -> None:
        super().__init__(detail)
        self.column = column


class NotSignedIn(HubError):
    """No credential, or one that is unknown, expired or revoked."""

    code = "not_signed_in"

    def __init__(self, detail: str = "sign in, or send a valid bearer token") -> None:
        super().__init__(detail)


class WrongCredentials(HubError):
    """Name or password do not match; which of them is not said."""

    code = "wrong_credentials"

    def __init__(self, detail: str = "the name or the password is wrong") -> None:
        super().__init__(detail)


class CsrfFailed(HubError):
    """A browser's mutating request lacks its own page's proof: Origin or X-CSRF-Token."""

    code = "csrf"


class Forbidden(HubError):
    """The subject's role does not include `verb`."""

    code = "forbidden"

    def __init__(self, verb: str, node: str | None = None) -> None:
        where = "" if node is None else f" on {node}"
        super().__init__(f"your role does not allow {verb}{where}; ask an administrator")
        self.verb = verb
        self.node = node


class NotFound(HubError):
    """There is no `kind` (node, task, user …) called `name`."""

    code = "not_found"

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind
        self.name = name


class NothingMatches(HubError):
    """A target expression is valid and matches no node."""

    code = "nothing_matches"

    def __init__(self, target: str) -> None:
        super().__init__(f"no node matches {target!r}; list the nodes to see names and labels")
        self.target = target


class Conflict(HubError):
    """The present state of things forbids it: a taken name, an object in use."""

    code = "conflict"


class TooLarge(HubError):
    """`what` is larger than `limit_bytes`."""

    code = "too_large"

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(f"{what} is larger than {limit_bytes} bytes")
        self.what = what
        self.limit_bytes = limit_bytes


class Throttled(HubError):
    """Too many attempts; try again after `retry_after_s` seconds."""

    code = "throttled"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many attempts; try again in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class NodeOffline(HubError):
    """No tunnel to the node is open."""

    code = "node_offline"

    def __init__(self, node: str) -> None:
        super().__init__(f"{node} is not connected")
        self.node = node


class RefusedByNode(HubError):
    """The node's agent or its local policy said no."""

    code = "refused_by_node"

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"{node} refused: {reason}")
        self.node = node
        self.reason = reason


class Unavailable(HubError):
    """The hub cannot do it now: a queue is full, it is closing, the store does not answer."""

    code = "unavailable"


class TokenRefused(HubError):
    """A join token lets nobody in; each way has its own class and code."""


class TokenUnknown(TokenRefused):
    """No token has this secret, or none any more."""

    code = "token_unknown"

    def __init__(self) -> None:
        super().__init__("the hub doesn't know this join token; create one and use it whole")


class TokenUsed(TokenRefused):
    """All uses of the token are taken."""

    code = "token_used"

    def __init__(self) -> None:
        super().__init__("this join token was used already; create another one")


class TokenExpired(TokenRefused):
    """The token's time is over."""

    code = "token_expired"

    def __init__(self) -> None:
        super().__init__("this join token has expired; create another one")
