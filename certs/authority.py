"""The mesh's certificate authority: a root that signs an intermediate, which signs everybody.

It is made once, whole or not at all: the files are written into a directory of another name,
synced, and that directory is renamed. `Authority.open(directory, now)` is all that a hub calls at
start. The root's key is not kept in memory.

    ca/root.pem  ca/root-key.pem  ca/intermediate.pem  ca/intermediate-key.pem      (0700, 0600)
"""

from __future__ import annotations

import ipaddress
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certs import templates
from certs.errors import AuthorityDamaged, CertsError
from certs.identity import NodeIdentity, node_identity, verify_node
from certs.keys import key_from_pem, key_to_pem, make_key, read_request, spki_sha256
from certs.names import hub_uri, node_uri
from certs.private_files import make_private_directory, sync_directory, write_private
from certs.templates import Issuer
from certs.trust import load_certificate, mesh_of, to_pem

NODE_LIFETIME_S = 7 * 86400.0
SERVER_LIFETIME_S = 397 * 86400.0
"""Browsers accept at most 398 days."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A node's certificate with its chain, and what it says."""

    chain_pem: bytes
    identity: NodeIdentity


@dataclass(frozen=True, slots=True)
class Authority:
    """An opened CA; made by `Authority.open`."""

    mesh_id: str
    root: x509.Certificate
    _issuer: Issuer

    @classmethod
    def open(cls, directory: Path, now: float) -> Authority:
        """Load the CA in `directory`, or make one when the directory doesn't exist.

        Raises:
            AuthorityDamaged: the directory exists and isn't a whole CA; nothing was changed.
            OSError: it can't be written.
        """
        for leftover in directory.parent.glob(f".{directory.name}.new-*"):
            shutil.rmtree(leftover)
        if not directory.exists():
            _create(directory, now)
        return cls._load(directory)

    @classmethod
    def _load(cls, directory: Path) -> Authority:
        try:
            root = load_certificate(directory / "root.pem")
            intermediate = load_certificate(directory / "intermediate.pem")
            key = key_from_pem((directory / "intermediate-key.pem").read_bytes())
            intermediate.verify_directly_issued_by(root)
            if spki_sha256(intermediate.public_key()) != spki_sha256(key.public_key()):
                raise ValueError("the intermediate's key is not its certificate's")
            return cls(mesh_of(root), root, Issuer(intermediate, key))
        except FileNotFoundError as error:
            raise AuthorityDamaged(directory, f"{error.filename} is missing") from error
        except (OSError, CertsError) as error:
            raise AuthorityDamaged(directory, str(error)) from error
        except Exception as error:  # the parsers' errors have no common base
            raise AuthorityDamaged(directory, str(error) or type(error).__name__) from error

    @property
    def root_spki_sha256(self) -> bytes:
        """What join tokens pin: 32 bytes."""
        return spki_sha256(self.root.public_key())

    @property
    def root_pem(self) -> bytes:
        """What agents and browsers trust; servers send the intermediate themselves."""
        return to_pem([self.root])

    @property
    def trust_pem(self) -> bytes:
        """Root and intermediate, for verifying peers that send their leaf alone."""
        return to_pem([self.root, self._issuer.certificate])

    @property
    def intermediate(self) -> x509.Certificate:
        """The certificate that signs leaves."""
        return self._issuer.certificate

    def issue_node(
        self, csr_pem: bytes, node_id: str, now: float, lifetime_s: float = NODE_LIFETIME_S
    ) -> IssuedCertificate:
        """Sign a node's certificate for the key that a request proves; its names are ignored.

        Raises:
            RequestRefused: the request can't be read, isn't signed by its key, or isn't P-256.
            ValueError: `node_id` is no UUID.
        """
        key = read_request(csr_pem)
        uri = node_uri(self.mesh_id, node_id)
        leaf = templates.client_leaf(key, self._issuer, uri, now, now + lifetime_s)
        return IssuedCertificate(to_pem([leaf, self._issuer.certificate]), node_identity(leaf))

    def issue_hub(
        self,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: float,
        lifetime_s: float = SERVER_LIFETIME_S,
    ) -> bytes:
        """Sign the certificate that tunnels and joiners see; returns the chain in PEM."""
        names = [x509.UniformResourceIdentifier(hub_uri(self.mesh_id)), *_host_names(hosts)]
        return self._issue_server(key, names, now, lifetime_s)

    def issue_pages(
        self,
        key: ec.EllipticCurvePublicKey,
        hosts: Sequence[str],
        now: float,
        lifetime_s: float = SERVER_LIFETIME_S,
    ) -> bytes:
        """Sign the certificate that browsers see, for at least one host; returns the chain in PEM.

        Raises:
            ValueError: no host, or one that is neither an address nor a DNS name.
        """
        if not hosts:
            raise ValueError("a certificate for browsers needs a host name or an address")
        return self._issue_server(key, _host_names(hosts), now, lifetime_s)

    def verify_node(self, der: bytes | None, now: float) -> NodeIdentity:
        """Verify the leaf an agent presented, see `certs.identity.verify_node`.

        Raises:
            CertificateRefused: with the reason.
        """
        return verify_node(der, self._issuer.certificate, self.mesh_id, now)

    def _issue_server(
        self,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        now: float,
        lifetime_s: float,
    ) -> bytes:
        leaf = templates.server_leaf(key, self._issuer, names, now, now + lifetime_s)
        return to_pem([leaf, self._issuer.certificate])


def _create(directory: Path, now: float) -> None:
    mesh_id = secrets.token_hex(16)
    root_key, key = make_key(), make_key()
    root = templates.root(root_key, mesh_id, now)
    intermediate = templates.intermediate(key.public_key(), Issuer(root, root_key), mesh_id, now)
    new = directory.with_name(f".{directory.name}.new-{secrets.token_hex(4)}")
    make_private_directory(new)
    write_private(new / "root-key.pem", key_to_pem(root_key))
    write_private(new / "root.pem", to_pem([root]))
    write_private(new / "intermediate-key.pem", key_to_pem(key))
    write_private(new / "intermediate.pem", to_pem([intermediate]))
    new.rename(directory)
    sync_directory(directory.parent)


def _host_names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    return [_host_name(host) for host in dict.fromkeys(hosts)]


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)
