"""What the end of a stream that was ours means for the person at the command line."""

from __future__ import annotations

from mooring.cli.failures import FAILED, NOT_ALLOWED, NOT_FOUND, UNREACHABLE, CommandError
from protocol.aio import ProtocolError, ResetCode, StreamReset

NODE_IS_AWAY = "mooring nodes shows since when; try again when it is back"


def refusal(node: str, error: StreamReset, unreachable: str = NODE_IS_AWAY) -> CommandError:
    """Say why a node or the hub ended a stream; `unreachable` is the advice for that code."""
    match error.code:
        case ResetCode.NOT_FOUND:
            return CommandError(str(error), "mooring nodes lists the nodes", NOT_FOUND)
        case ResetCode.REFUSED:
            advice = "your role, or the node's own policy.json, has to allow it"
            return CommandError(str(error), advice, NOT_ALLOWED)
        case ResetCode.UNREACHABLE | ResetCode.TIMEOUT:
            return CommandError(str(error), unreachable, FAILED)
        case _:
            return CommandError(f"{node}: {error}", "mooring nodes show NODE says more", FAILED)


def connection_ended(error: ProtocolError) -> CommandError:
    """Say that the tunnel went away."""
    advice = "run it again; the hub may have been restarted"
    return CommandError(f"the connection ended: {error}", advice, UNREACHABLE)
