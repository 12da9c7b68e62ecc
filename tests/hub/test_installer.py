"""The line to paste, run by a real shell and a real curl where there is one."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.servers import Role, ServerFiles, keep_current
from certs.tokens import JoinToken, encode_token
from hub import installer as module
from hub.agent_wheel import AgentWheel
from hub.errors import Unavailable
from hub.installer import Installer

WHEEL = "mooring-1.2.3-py3-none-any.whl"
TOKEN = encode_token(JoinToken(hubs=("https://h",), pin=b"p" * 32, secret=b"s" * 32))


@dataclass
class FakeDistribution:
    version: str = "1.2.3"


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkout under test may not be installed; what matters here is only its version."""
    monkeypatch.setattr(module, "installed", FakeDistribution)


@pytest.fixture
def pages(tmp_path: Path) -> ServerFiles:
    authority = Authority.open(tmp_path / "ca", time.time())
    return keep_current(tmp_path / "tls", Role.PAGES, authority, ["127.0.0.1"], time.time())[0]


def test_the_line_keeps_the_token_out_of_urls_and_arguments(pages: ServerFiles) -> None:
    line = Installer("https://hub.example:8443", pages.chain).command(TOKEN)
    curl, _, shell = line.partition(" | ")
    assert curl.startswith("curl -fsSk --pinnedpubkey 'sha256//")
    assert curl.endswith(" https://hub.example:8443/install.sh")
    assert shell == f"MOORING_JOIN_TOKEN={TOKEN} sh"


@pytest.mark.parametrize("url", ["http://h", "https://h/x", "https://h';id;'", "https://$(id)", ""])
def test_an_address_with_room_for_a_command_is_refused(pages: ServerFiles, url: str) -> None:
    for make in (
        Installer(url, pages.chain).script,
        lambda: Installer(url, pages.chain).command(TOKEN),
    ):
        with pytest.raises(Unavailable):
            make()


def test_a_token_with_room_for_a_command_is_refused(pages: ServerFiles) -> None:
    with pytest.raises(Unavailable):
        Installer("https://h", pages.chain).command("moor1.a;id")


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"gone\.pem"):
        Installer("https://h", tmp_path / "gone.pem").command(TOKEN)


def test_the_script_is_shell_and_has_no_blanks_left(pages: ServerFiles) -> None:
    script = Installer("https://hub.example", pages.chain).script()
    assert "@" not in script.replace("$@", "")
    for shell in filter(shutil.which, ("sh", "dash", "bash")):
        subprocess.run([shell, "-n"], input=script.encode(), check=True)


def test_half_a_script_does_nothing(pages: ServerFiles, tmp_path: Path) -> None:
    script = Installer("https://hub.example", pages.chain).script()
    half = script[: script.rindex("\nmain")]
    ran = subprocess.run(
        ["sh"], input=half.encode(), env={"HOME": str(tmp_path / "home")}, capture_output=True
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


@asynccontextmanager
async def serving(pages: ServerFiles, files: dict[str, bytes]) -> AsyncIterator[str]:
    """Serve some files over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pages.chain, pages.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            content = files.get(head.split()[1].decode())
            status = b"404 Not Found" if content is None else b"200 OK"
            content = content or b""
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n" % (status, len(content)))
            writer.write(b"Connection: close\r\n\r\n" + content)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # curl left when it saw the key
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def run(line: str, home: Path, **environment: str) -> tuple[int, str]:
    home.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        line,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "NO_PROXY": "*", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")


@needs_curl
async def test_curl_takes_the_pinned_certificate_of_our_own_ca(
    pages: ServerFiles, tmp_path: Path
) -> None:
    async with serving(pages, {"/install.sh": b"echo token=$MOORING_JOIN_TOKEN"}) as url:
        status, output = await run(Installer(url, pages.chain).command(TOKEN), tmp_path / "home")
    assert (status, output) == (0, f"token={TOKEN}\n")


@needs_curl
async def test_curl_refuses_any_other_certificate(pages: ServerFiles, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other-ca", time.time())
    foreign, _ = keep_current(tmp_path / "other", Role.PAGES, other, ["127.0.0.1"], time.time())
    async with serving(foreign, {"/install.sh": b"echo owned"}) as url:
        _, output = await run(Installer(url, pages.chain).command(TOKEN), tmp_path / "home")
    assert "owned" not in output
    assert "public key" in output


PYTHON = """#!/bin/sh
case "$*" in
    *"-m venv"*) for last; do :; done; mkdir -p "$last/bin"; cp "$0" "$last/bin/python" ;;
    *"pip install"*)
        cat > "$(dirname "$0")/mooring" <<'MOORING'
#!/bin/sh
echo "mooring $*"
case "$*" in
    *"agent join"*)
        [ -n "$MOORING_JOIN_TOKEN" ] && mkdir -p "$4" && echo joined > "$4/agent.json" ;;
    *) [ -z "${MOORING_JOIN_TOKEN:-}" ] || echo "the token leaked to the agent" ;;
esac
MOORING
        chmod +x "$(dirname "$0")/mooring" ;;
esac
"""
"""A Python that makes environments and installs wheels in name only: this needs no network."""


@needs_curl
async def test_the_script_installs_joins_starts_and_keeps_the_identity(
    pages: ServerFiles, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    programs = {
        "python3": PYTHON,
        "id": '#!/bin/sh\n[ "$1" = -u ] && echo 1000 || echo visitor\n',
        "systemctl": "#!/bin/sh\nexit 1\n",
    }
    for name, text in programs.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    home = tmp_path / "home"
    places = {"PATH": f"{tools}:{os.environ['PATH']}"}
    files = {f"/install/{WHEEL}": b"a wheel"}
    async with serving(pages, files) as url:
        installer = Installer(url, pages.chain)
        files["/install.sh"] = installer.script().encode()
        line = installer.command(TOKEN)
        status, output = await run(line, home, **places)
        assert status == 0, output
        prefix = home / ".local/share/mooring"
        assert f"mooring agent join --state-dir {prefix}/agent" in output
        assert TOKEN not in output
        assert (prefix / "agent/agent.json").read_text() == "joined\n"
        assert (prefix / "agent.env").stat().st_mode & 0o777 == 0o600
        assert not list(prefix.glob("download.*"))
        pid = int((prefix / "agent.pid").read_text())
        assert pid > 1
        status, output = await run(line, home, **places)
        assert status == 0, output
        assert "keeping the identity" in output
        assert "agent join" not in output
        del files[f"/install/{WHEEL}"]
        status, output = await run(line, home, **places)
        assert status == 1
        assert "could not fetch the agent" in output


@needs_curl
async def test_the_script_says_which_python_it_needs(pages: ServerFiles, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (tools / name).write_text("#!/bin/sh\nexit 1\n")
        (tools / name).chmod(0o755)
    (tmp_path / "script").write_text(Installer("https://127.0.0.1:1", pages.chain).script())
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    status, output = await run(
        f"sh {tmp_path / 'script'}", tmp_path / "home", PATH=f"{tools}:{os.environ['PATH']}"
    )
    assert status == 1
    assert "needs Python 3.11 or newer" in output


def test_the_wheel_is_built_once(pages: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[object] = []

    def build(source: object) -> AgentWheel:
        built.append(source)
        return AgentWheel(WHEEL, b"")

    monkeypatch.setattr(module, "build_agent_wheel", build)
    installer = Installer("https://h", pages.chain)
    assert installer.wheel() is installer.wheel()
    assert len(built) == 1
