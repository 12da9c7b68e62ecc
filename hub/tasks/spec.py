"""`TaskSpec`: what to run and where, as the API takes it, and its checks.

The rule it guards: whatever passes `checked` fits into one OPEN frame and means the same on every
node, so nothing is refused half-way through a fan-out for a reason that was visible at the start.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from hub.errors import BadRequest, TooLarge
from protocol.messages import Exec

STDIN_BYTES = 1024 * 1024
OPEN_BYTES = 60 * 1024
"""What argv, env and the rest may take when encoded: an OPEN is one frame of 64 KiB (SPEC §4)."""
ROOT_USERS = frozenset({"root", "0"})

_STDIN_BASE64 = STDIN_BYTES // 3 * 4 + 1024


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command and the nodes to run it on."""

    target: Annotated[str, Meta(min_length=1, max_length=4096)]
    argv: Annotated[list[str], Meta(min_length=1, max_length=4096)]
    user: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    cwd: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    env: Annotated[dict[str, str], Meta(max_length=1024)] = {}
    stdin_base64: str | None = None
    timeout_s: Annotated[float, Meta(ge=0.1, le=48 * 3600)] = 60.0
    parallel: Annotated[int, Meta(ge=1, le=1000)] = 50
    """Runs at once."""
    max_errors: Annotated[int, Meta(ge=0)] | None = None
    """Past this number of runs that went wrong, nothing more is sent."""


def checked(spec: TaskSpec) -> bytes | None:
    """Check what types can't say and return the decoded standard input.

    Raises:
        BadRequest: an empty command, NUL characters, a bad variable name, stdin that is not base64.
        TooLarge: argv, env or stdin beyond their limits.
    """
    if not spec.argv[0]:
        raise BadRequest("argv[0] is empty: name the program to run")
    for text in (*spec.argv, *spec.env, *spec.env.values(), spec.user or "", spec.cwd or ""):
        _check_text(text)
    for name in spec.env:
        if not name or "=" in name:
            raise BadRequest(f"{name!r} is not a name of an environment variable")
    stdin = _decode(spec.stdin_base64)
    message = exec_message(spec, "0" * 32, "s" * 64, has_stdin=stdin is not None)
    if len(msgspec.msgpack.encode(message)) > OPEN_BYTES:
        raise TooLarge("argv and env together (send a long script as stdin)", OPEN_BYTES)
    try:
        msgspec.convert(msgspec.to_builtins(message), Exec)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the command cannot be sent: {error}") from error
    return stdin


def _check_text(text: str) -> None:
    if "\0" in text:
        raise BadRequest("argv, env, user and cwd cannot hold NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("argv, env, user and cwd must be valid Unicode text") from error


def _decode(stdin_base64: str | None) -> bytes | None:
    if stdin_base64 is None:
        return None
    if len(stdin_base64) > _STDIN_BASE64:
        raise TooLarge("stdin", STDIN_BYTES)
    try:
        stdin = base64.b64decode(stdin_base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"stdin_base64 is not base64: {error}") from error
    if len(stdin) > STDIN_BYTES:
        raise TooLarge("stdin", STDIN_BYTES)
    return stdin


def spec_document(spec: TaskSpec) -> dict[str, Any]:
    """Return the JSON document that the store keeps, without target and stdin."""
    document = msgspec.to_builtins(spec)
    del document["target"], document["stdin_base64"]
    return cast("dict[str, Any]", document)


def exec_message(
    spec: TaskSpec,
    run: str,
    subject: str,
    *,
    has_stdin: bool,
    stdout_offset: int = 0,
    stderr_offset: int = 0,
) -> Exec:
    """Make the OPEN that starts a run, or attaches again from the two offsets."""
    return Exec(
        run=run,
        argv=spec.argv,
        user=spec.user,
        cwd=spec.cwd,
        env=spec.env,
        timeout_s=spec.timeout_s,
        subject=subject,
        has_stdin=has_stdin,
        stdout_offset=stdout_offset,
        stderr_offset=stderr_offset,
    )
