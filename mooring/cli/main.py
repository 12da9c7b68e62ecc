"""The entry point of `mooring`: global options out, one subcommand in, an exit code back.

Nothing leaves here as a traceback unless `MOORING_DEBUG` is set.
"""

from __future__ import annotations

import os
import sys

import typer
from typer.main import get_command

from mooring.cli import failures
from mooring.cli.menu import app
from mooring.cli.settings import take_globals
from mooring.sdk.errors import MooringError


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code."""
    settings, words = take_globals(argv)
    try:
        command = get_command(app)
        result = command.main(words, prog_name="mooring", standalone_mode=False, obj=settings)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except MooringError as error:
        return failures.report(error)
    except typer.TyperException as error:
        return _report_usage(error)
    except (KeyboardInterrupt, typer.Abort):
        print(file=sys.stderr)
        return failures.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # as if SIGPIPE had ended it, like other tools in a pipe
    except Exception as error:
        if os.environ.get("MOORING_DEBUG"):
            raise
        what = f"{type(error).__name__}: {error}"
        failures.say(what, "run it again with MOORING_DEBUG=1 to see where it comes from")
        return failures.FAILED


def _report_usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "mooring"
    advice = f"run: {path} --help"
    if type(error).__name__ == "NoSuchOption" and path in ("mooring exec", "mooring shell"):
        advice = f"write -- before the command to run: {path} … -- COMMAND [ARG]..."
    failures.say(error.format_message(), advice)
    return failures.USAGE


if __name__ == "__main__":
    main()
