from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mooring.conftest import Run


def test_ssh_finds_the_proxy_for_every_node_by_its_own_spelling(run: Run, tmp_path: Path) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed (Debian: apt-get install openssh-client)")
    done = run("ssh-config")
    assert done.code == 0
    config = tmp_path / "config"
    config.write_text(done.out)
    seen = [
        subprocess.run(
            ["ssh", "-G", "-F", str(config), host], capture_output=True, text=True, check=True
        ).stdout
        for host in ("Web-1.mooring", "web-1.example")
    ]
    assert "ssh-proxy %n %p" in seen[0]
    assert "ssh-proxy" not in seen[1]


def test_a_target_gives_a_block_per_node(mooring: Run) -> None:
    assert mooring("ssh-config", "all").out.strip() == ""
    assert mooring("ssh-config", "status==online").code == 4
