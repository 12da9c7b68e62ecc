from __future__ import annotations

from pathlib import Path

import pytest

from certs.authority import SERVER_LIFETIME_S, Authority
from certs.servers import KeyDamaged, Role, keep_current
from certs.trust import load_certificate, public_key_pin


def test_a_chain_is_kept_while_nothing_changes(
    tmp_path: Path, authority: Authority, now: float
) -> None:
    hosts = ["hub.example", "127.0.0.1"]
    files, new = keep_current(tmp_path / "tls", Role.PAGES, authority, hosts, now)
    assert new
    assert files.key.stat().st_mode & 0o777 == 0o600
    before = files.chain.read_bytes()
    _, new = keep_current(tmp_path / "tls", Role.PAGES, authority, hosts[::-1], now + 60)
    assert not new
    assert files.chain.read_bytes() == before


@pytest.mark.parametrize("change", ["hosts", "age", "ca", "damage"])
def test_a_chain_is_issued_anew_for_the_same_key(
    tmp_path: Path, authority: Authority, now: float, change: str
) -> None:
    files, _ = keep_current(tmp_path / "tls", Role.PAGES, authority, ["hub.example"], now)
    pin = public_key_pin(load_certificate(files.chain))
    hosts, signer, at = ["hub.example"], authority, now
    match change:
        case "hosts":
            hosts = ["hub.example", "10.0.0.1"]
        case "age":
            at = now + SERVER_LIFETIME_S / 2 + 1
        case "ca":
            signer = Authority.open(tmp_path / "other", now)
        case "damage":
            files.chain.write_bytes(b"half a certif")
    _, new = keep_current(tmp_path / "tls", Role.PAGES, signer, hosts, at)
    assert new
    leaf = load_certificate(files.chain)
    leaf.verify_directly_issued_by(signer.intermediate)
    assert public_key_pin(leaf) == pin


def test_a_damaged_key_is_named_and_kept(tmp_path: Path, authority: Authority, now: float) -> None:
    files, _ = keep_current(tmp_path / "tls", Role.HUB, authority, [], now)
    files.key.write_bytes(b"nonsense")
    with pytest.raises(KeyDamaged, match=r"hub-key\.pem"):
        keep_current(tmp_path / "tls", Role.HUB, authority, [], now)
    assert files.key.read_bytes() == b"nonsense"
