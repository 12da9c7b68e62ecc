"""The hub's own certificates on disk: a key that stays, a chain that is renewed.

`keep_current` is called at start and daily. The key outlives certificates, so that pins of it (the
line to paste for a new node) stay true; the chain is issued anew when its hosts change, at half
life, or when it is not of this CA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from certs.authority import Authority
from certs.errors import CertsError
from certs.keys import key_from_pem, key_to_pem, make_key, spki_sha256
from certs.private_files import make_private_directory, write_private
from certs.trust import load_certificate


class Role(StrEnum):
    """Which of the hub's two faces a certificate is for."""

    HUB = "hub"
    PAGES = "pages"


class KeyDamaged(CertsError):
    """The hub's own key file can't be used."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} is not a P-256 key; remove it to have a new one made"


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Where a server's chain and key are."""

    chain: Path
    key: Path


def keep_current(
    directory: Path, role: Role, authority: Authority, hosts: Sequence[str], now: float
) -> tuple[ServerFiles, bool]:
    """Make or renew `ROLE.pem` and `ROLE-key.pem` in `directory`; True says that the chain is new.

    Raises:
        KeyDamaged: the key file exists and can't be used.
        OSError: a file can't be read or written.
    """
    files = ServerFiles(directory / f"{role}.pem", directory / f"{role}-key.pem")
    make_private_directory(directory)
    if not files.key.exists():
        write_private(files.key, key_to_pem(make_key()))
    try:
        key = key_from_pem(files.key.read_bytes()).public_key()
    except ValueError as error:
        raise KeyDamaged(files.key) from error
    issue: Callable[..., bytes] = {
        Role.HUB: authority.issue_hub,
        Role.PAGES: authority.issue_pages,
    }[role]
    if _is_current(files.chain, spki_sha256(key), authority, hosts, now):
        return files, False
    write_private(files.chain, issue(key, hosts, now))
    return files, True


def _is_current(
    chain: Path, key_hash: bytes, authority: Authority, hosts: Sequence[str], now: float
) -> bool:
    try:
        leaf = load_certificate(chain)
        leaf.verify_directly_issued_by(authority.intermediate)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # whatever is wrong with it, a new one replaces it
        return False
    present = {
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    }
    start, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
    return (
        spki_sha256(leaf.public_key()) == key_hash
        and present == {host.strip("[]") for host in hosts}
        and start <= now < (start + end) / 2
    )
