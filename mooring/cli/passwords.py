"""Secrets from a person or a pipe, never from argv."""

from __future__ import annotations

import sys

import typer


def read_password(question: str, *, twice: bool = False) -> str:
    """Ask on the terminal without echo, else read one line of standard input.

    Raises:
        typer.BadParameter: nothing came, or the two entries differ.
    """
    if sys.stdin.isatty():
        from getpass import getpass

        password = getpass(f"{question}: ")
        if twice and password != getpass(f"{question}, again: "):
            raise typer.BadParameter("the two entries differ; nothing was changed")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise typer.BadParameter("no password was given; type it, or send it on standard input")
    return password
