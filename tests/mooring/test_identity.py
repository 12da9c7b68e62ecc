from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mooring.sdk import identity
from mooring.sdk.errors import NoIdentity
from mooring.sdk.identity import Identity


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("hub.example", "https://hub.example"),
        ("https://hub:8443/", "https://hub:8443"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert identity.check_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://hub",
        "https://",
        "https://hub:x",
        "https://a@hub",
        "https://hub/path",
        "https://[::1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(NoIdentity):
        identity.check_url(text)


def test_the_file_is_for_its_owner_and_says_who_calls(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    path = identity.config_path(environ)
    identity.save(Identity(url="https://hub", token="secret", ca_pem="pem"), path)
    identity.save(Identity(url="https://hub", token="newer", ca_pem="pem"), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert identity.load(environ) == Identity(url="https://hub", token="newer", ca_pem="pem")


def test_the_environment_wins_as_a_whole(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    identity.save(Identity(url="https://a", token="for a"), identity.config_path(environ))
    found = identity.load(environ | {"MOORING_URL": "https://b"})
    assert found == Identity(url="https://b")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"token": "x"}'])
def test_without_a_usable_file_nobody_is_signed_in(tmp_path: Path, content: bytes | None) -> None:
    environ = {"HOME": str(tmp_path)}
    if content is not None:
        path = identity.config_path(environ)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with pytest.raises(NoIdentity):
        identity.load(environ)


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(Identity(url="https://hub", token="secret"))


@pytest.mark.parametrize("url", ["https://127.0.0.1:8443", "https://localhost", "https://[::1]:1"])
def test_the_own_host_needs_no_proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert Identity(url=url).proxy() is None
    assert Identity(url="https://hub.example").proxy() == "http://proxy:3128"
