"""Every error becomes two lines on stderr and an exit code, here and nowhere else.

Exit codes: 0 all went well; 1 it ran and something failed; 2 usage; 3 not allowed or not signed in;
4 not found or nothing matches; 5 hub unreachable; 124 timed out; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from mooring.sdk import errors as e

FAILED, USAGE, NOT_ALLOWED, NOT_FOUND, UNREACHABLE, TIMED_OUT, INTERRUPTED = 1, 2, 3, 4, 5, 124, 130


class CommandError(e.MooringError):
    """An error of the command line itself, with its own exit code and advice."""

    def __init__(self, detail: str, advice: str, exit_code: int = USAGE) -> None:
        super().__init__(detail)
        self.advice = advice
        self.exit_code = exit_code


_TABLE: dict[type[e.MooringError], tuple[int, str]] = {
    e.NoIdentity: (NOT_ALLOWED, "run: mooring login URL, or set MOORING_URL and MOORING_TOKEN"),
    e.HubNotTrusted: (UNREACHABLE, "name its CA in MOORING_CA, or run: mooring login URL"),
    e.HubUnreachable: (UNREACHABLE, "check the address, and that the hub runs"),
    e.InvalidTarget: (USAGE, "mooring --help shows what a TARGET may be"),
    e.BadRequest: (USAGE, "change the input and try again; --help shows what is expected"),
    e.NotSignedIn: (
        NOT_ALLOWED,
        "the token is missing, expired or revoked; run: mooring login URL",
    ),
    e.WrongCredentials: (NOT_ALLOWED, "try again; an administrator can set a new password"),
    e.CsrfFailed: (NOT_ALLOWED, "use the hub's own address, the one it was started with"),
    e.Forbidden: (NOT_ALLOWED, "ask an administrator for a role that includes it"),
    e.NotFound: (NOT_FOUND, "check the name; the list subcommands show what there is"),
    e.NothingMatches: (NOT_FOUND, "preview a target with: mooring nodes TARGET"),
    e.Conflict: (FAILED, "change what stands in the way and try again"),
    e.TooLarge: (FAILED, "send less at once"),
    e.Throttled: (FAILED, "wait a little and try again"),
    e.NodeOffline: (FAILED, "mooring nodes shows since when; try again when it is back"),
    e.RefusedByNode: (FAILED, "the node's own policy.json decides what is allowed there"),
    e.Unavailable: (UNREACHABLE, "try again in a moment"),
    e.InternalError: (FAILED, "the hub's log says more"),
}


def exit_code_of(error: e.MooringError) -> int:
    """Which exit code an error means."""
    return _judge(error)[0]


def _judge(error: e.MooringError) -> tuple[int, str]:
    if isinstance(error, CommandError):
        return error.exit_code, error.advice
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    return FAILED, "run it again with MOORING_DEBUG=1 to see where it comes from"


def report(error: e.MooringError) -> int:
    """Print what is wrong and what to do; return the exit code."""
    code, advice = _judge(error)
    say(str(error), advice)
    return code


def say(what: str, advice: str) -> None:
    """Print the two lines."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() and _colour() else ("", "")
    line = " ".join(what.split())
    print(f"{red}error:{plain} {line}\n hint: {advice}", file=sys.stderr)


def _colour() -> bool:
    return not os.environ.get("NO_COLOR")
