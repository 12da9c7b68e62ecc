"""The subcommands: a table from word to module, imported when the word is said.

The rule it guards: `mooring exec` pays for nothing that `mooring up` needs. Each module has an
`app` of Typer's; what isn't built isn't here.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

COMMANDS = {
    "up": ("up", "Set up"),
    "hub": ("hub", "Set up"),
    "agent": ("agent", "Set up"),
    "token": ("token", "Set up"),
    "login": ("login", "Set up"),
    "nodes": ("nodes", "Fleet"),
    "groups": ("groups", "Fleet"),
    "metrics": ("metrics", "Fleet"),
    "exec": ("execute", "Work"),
    "tasks": ("tasks", "Work"),
    "shell": ("shell", "Work"),
    "sessions": ("sessions", "Work"),
    "forward": ("forward", "Reach"),
    "socks": ("socks", "Reach"),
    "ssh-proxy": ("ssh_proxy", "Reach"),
    "ssh-config": ("ssh_config", "Reach"),
    "forwards": ("forwards", "Reach"),
    "links": ("links", "Reach"),
    "publish": ("publish", "Reach"),
    "published": ("published", "Reach"),
    "packages": ("packages", "Software"),
    "deploy": ("deploy", "Software"),
    "users": ("users", "Access"),
    "api-tokens": ("api_tokens", "Access"),
    "audit": ("audit", "Access"),
    "simulate": ("simulate", "Tests"),
}  # fmt: skip


class Menu(TyperGroup):
    """The top level."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Name all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module, panel = COMMANDS[cmd_name]
        command: Any = get_command(import_module(f"mooring.cli.{module}").app)
        command.name = cmd_name
        command.rich_help_panel = panel
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand, or say which one it may have been."""
        word = args[0]
        if word not in COMMANDS and not word.startswith("-"):
            close = get_close_matches(word, COMMANDS, n=1)
            ctx.fail(f"there is no command {word!r}" + "".join(f"; is it {c!r}?" for c in close))
        return super().resolve_command(ctx, args)


class TargetOrCommand(TyperGroup):
    """A group whose first word may be a target too: `mooring nodes [TARGET]` is `nodes list`.

    The words of subcommands win; a node that is called like one is `~^show$` or `id:…`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say `list` for whoever left it out."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=Menu, add_completion=False, name="mooring")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mooring {version('mooring')}")
        raise typer.Exit


@app.callback(
    epilog="Example:  mooring exec 'group:web and status==online' -- systemctl restart nginx"
)
def top(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Ties servers behind NAT to one hub: commands, shells, deployments, metrics, forwards.

    Everywhere: --json prints JSON (one document, or one object per line where output streams),
    --yes asks nothing, --help shows help with an example.

    A TARGET is: all, a name or glob (web-*), group:NAME, id:UUID, label.KEY==VALUE,
    fact.KEY OP VALUE, pkg.NAME OP VERSION, status==online, ~REGEX; joined by and, or, not and
    parentheses.
    """
