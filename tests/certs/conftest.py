from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.authority import NODE_LIFETIME_S, Authority
from certs.keys import make_key_and_csr


@pytest.fixture
def now() -> float:
    return time.time()


@pytest.fixture
def authority(tmp_path: Path, now: float) -> Authority:
    return Authority.open(tmp_path / "ca", now)


@dataclass(frozen=True)
class Credentials:
    node_id: str
    chain: Path
    key: Path
    der: bytes


Issue = Callable[..., Credentials]


@pytest.fixture
def issue(tmp_path: Path, now: float) -> Issue:
    """Make a node's files, signed by a given authority at a given time."""

    def make(
        authority: Authority, at: float = now, lifetime_s: float = NODE_LIFETIME_S
    ) -> Credentials:
        node_id = str(uuid.uuid4())
        key_pem, csr_pem = make_key_and_csr()
        issued = authority.issue_node(csr_pem, node_id, at, lifetime_s)
        folder = tmp_path / node_id
        folder.mkdir()
        (folder / "chain.pem").write_bytes(issued.chain_pem)
        (folder / "key.pem").write_bytes(key_pem)
        leaf = x509.load_pem_x509_certificate(issued.chain_pem)
        der = leaf.public_bytes(Encoding.DER)
        return Credentials(node_id, folder / "chain.pem", folder / "key.pem", der)

    return make
