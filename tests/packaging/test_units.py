"""The systemd units: valid, and the agent's is the one that the installer writes."""

from __future__ import annotations

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
ROOTS_PLACES = {
    "$MOORING": "/opt/mooring/venv/bin/mooring",
    "$PREFIX": "/opt/mooring",
    "$STATE": "/var/lib/mooring-agent",
    "$2": "multi-user.target",
}


def parse(text: str) -> dict[str, dict[str, str]]:
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_the_agents_unit_is_the_one_that_the_installer_writes() -> None:
    script = (ROOT / "hub" / "install.sh").read_text()
    written = re.findall(r"<<UNIT\n(.*?)^UNIT$", script, re.DOTALL | re.MULTILINE)[0]
    for name, value in ROOTS_PLACES.items():
        written = written.replace(name, value)
    shipped = (ROOT / "deploy" / "systemd" / "mooring-agent.service").read_text()
    assert parse(shipped) == parse(written)


def test_commands_outlive_the_agents_restart() -> None:
    unit = parse((ROOT / "deploy" / "systemd" / "mooring-agent.service").read_text())
    assert unit["Service"]["KillMode"] == "process"
    assert unit["Service"]["Delegate"] == "yes"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    copy = tmp_path / unit.name  # mooring is not installed in /opt here
    copy.write_text(unit.read_text().replace("/opt/mooring/venv/bin/mooring", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
