"""What brings an agent onto a stranger's server: the line to paste, the script, the wheel.

The line pins the public key of the certificate that browsers see, so that it is safe also when our
own CA signed that; the pin is read from the file at each use, because an operator's certificate
changes. Nothing but the hub's address, the pin and the wheel's name is put into the script, each
checked against a pattern that leaves no room for quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from certs.trust import load_certificate, public_key_pin
from hub.agent_wheel import AgentWheel, build_agent_wheel, installed, wheel_name
from hub.errors import Unavailable

_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]{1,255}")
_PIN = re.compile(r"sha256//[A-Za-z0-9+/]{43}=")
_WHEEL = re.compile(r"mooring-[A-Za-z0-9.+_!]{1,64}-py3-none-any\.whl")
_TOKEN = re.compile(r"moor1\.[A-Za-z0-9_-]{1,4096}")


@dataclass(slots=True)
class Installer:
    """Makes the three for one hub address."""

    hub_url: str
    """Where nodes reach the hub: https, host, maybe port, no path."""
    pages_chain: Path
    """The PEM file of the certificate that browsers see."""
    _wheel: AgentWheel | None = field(default=None)

    def command(self, token: str) -> str:
        """Return the line that installs, joins and starts an agent.

        Raises:
            Unavailable: the certificate can't be read.
        """
        pin, url = self._pin(), _checked(_URL, self.hub_url)
        script = f"curl -fsSk --pinnedpubkey '{pin}' {url}/install.sh"
        return f"{script} | MOORING_JOIN_TOKEN={_checked(_TOKEN, token)} sh"

    def script(self) -> str:
        """Return the script.

        Raises:
            Unavailable: the certificate can't be read, or the hub isn't installed.
        """
        template = files("hub").joinpath("install.sh").read_text("utf-8")
        return (
            template.replace("@HUB@", _checked(_URL, self.hub_url))
            .replace("@PIN@", self._pin())
            .replace("@WHEEL@", _checked(_WHEEL, wheel_name(installed())))
        )

    def wheel(self) -> AgentWheel:
        """Return the wheel; built once.

        Raises:
            Unavailable: the hub isn't installed.
        """
        if self._wheel is None:
            self._wheel = build_agent_wheel(installed())
        return self._wheel

    def _pin(self) -> str:
        try:
            return _checked(_PIN, public_key_pin(load_certificate(self.pages_chain)))
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.pages_chain} can't be read: {error}") from error


def _checked(pattern: re.Pattern[str], value: str) -> str:
    if not pattern.fullmatch(value):
        raise Unavailable(f"{value[:80]!r} can't be put into a shell line")
    return value
