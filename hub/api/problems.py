"""Errors become problem documents (RFC 9457) here and nowhere else.

The rule it guards: every error of the API is `application/problem+json` with a stable `code`; the
text of an unexpected fault goes to the log and not to the caller. `EXCEPTION_HANDLERS` is given to
the app.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, ValidationException, WebSocketException
from litestar.types import ExceptionHandlersMap, Scope

from hub import errors

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS: dict[str, int] = {
    "bad_request": 400,
    "invalid_target": 400,
    "not_signed_in": 401,
    "wrong_credentials": 401,
    "csrf": 403,
    "forbidden": 403,
    "not_found": 404,
    "nothing_matches": 404,
    "conflict": 409,
    "too_large": 413,
    "throttled": 429,
    "node_offline": 409,
    "refused_by_node": 409,
    "internal": 500,
    "unavailable": 503,
    "token_unknown": 403,
    "token_used": 403,
    "token_expired": 403,
}
_TITLES = {
    400: "Bad request", 401: "Not signed in", 403: "Not allowed", 404: "Not found",
    405: "Method not allowed", 409: "Conflict", 413: "Too large", 429: "Too many requests",
    500: "Internal error", 503: "Unavailable",
}  # fmt: skip
_CODES = {
    401: "not_signed_in", 403: "forbidden", 404: "not_found", 409: "conflict", 413: "too_large",
    429: "throttled", 500: "internal", 503: "unavailable",
}  # fmt: skip


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A problem document; the optional fields belong to one `code` each."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    column: int | None = None
    """1-based place in a target expression (`invalid_target`)."""
    verb: str | None = None
    """What the role does not include (`forbidden`)."""


def problem_of(error: errors.HubError) -> Problem:
    """Describe one of the hub's own errors."""
    status = STATUS[error.code]
    return Problem(
        type="about:blank",
        title=_TITLES[status],
        status=status,
        detail=str(error),
        code=error.code,
        column=error.column if isinstance(error, errors.InvalidTarget) else None,
        verb=error.verb if isinstance(error, errors.Forbidden) else None,
    )


def _respond(problem: Problem, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def _on_hub_error(_request: Request[Any, Any, Any], error: errors.HubError) -> Response[bytes]:
    problem = problem_of(error)
    if problem.status == 500:
        logger.error("a request failed: %s", error, exc_info=error)
    headers = {}
    if isinstance(error, errors.Throttled):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _respond(problem, headers)


def _on_http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Translate what Litestar itself raises: unknown routes, methods, sizes, malformed bodies."""
    status = error.status_code
    detail = error.detail
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        reasons = [_reason(entry) for entry in error.extra[:5] if isinstance(entry, dict)]
        detail = "; ".join(reasons) or detail
    problem = Problem(
        type="about:blank",
        title=_TITLES.get(status, detail),
        status=status,
        detail=detail,
        code=_CODES.get(status, "bad_request" if status < 500 else "internal"),
    )
    return _respond(problem, dict(error.headers or {}))


def _reason(entry: dict[str, Any]) -> str:
    key, message = entry.get("key"), str(entry.get("message", "invalid"))
    return f"{key}: {message}" if key else message


def _on_deep_body(_request: Request[Any, Any, Any], error: RecursionError) -> Response[bytes]:
    """Answer a body nested so deeply that it cannot be decoded."""
    logger.warning("a request went too deep: %s", error)
    return _respond(problem_of(errors.BadRequest("the body is nested too deeply")))


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    logger.error("a fault at %s %s", request.scope["type"], request.url.path, exc_info=error)
    return _respond(problem_of(errors.HubError("the hub failed; its log says why")))


async def log_socket_fault(error: Exception, scope: Scope) -> None:
    """Log what ended a socket unexpectedly: an `after_exception` hook, sockets get no answer."""
    expected = isinstance(error, errors.HubError | HTTPException | WebSocketException)
    if scope["type"] == ScopeType.WEBSOCKET and not expected:
        logger.error("a fault at the socket %s", scope["path"], exc_info=error)


EXCEPTION_HANDLERS: ExceptionHandlersMap = {
    errors.HubError: _on_hub_error,
    HTTPException: _on_http_error,
    RecursionError: _on_deep_body,
    Exception: _on_unexpected,
}
