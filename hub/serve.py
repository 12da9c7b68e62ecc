"""`run(config)`: a hub as a process, from the state directory to the last goodbye.

The order it keeps: everything that can fail (certificates, ports, database) before `ready` is
printed; at the end GOAWAY to the agents, then the pages, then the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from certs.authority import Authority
from certs.contexts import JOIN_ALPN, TUNNEL_ALPN
from certs.errors import CertsError
from certs.private_files import make_private_directory, write_private
from certs.servers import Role, ServerFiles, keep_current
from hub.accounts.first_start import create_admin, operator_token, write_operator_env
from hub.addresses import certificate_hosts, tunnel_urls, with_urls
from hub.admission import Lane, expose_returning
from hub.agent_tunnels import AgentTunnels
from hub.api.health import hub_version
from hub.app import create_site
from hub.build import build_hub, load_hub, run_hub
from hub.client_tunnels import ClientTunnels
from hub.config import HubConfig
from hub.core import Hub
from hub.errors import HubError
from hub.listener import Listener, Route, bind
from hub.pages_server import serve_pages
from hub.store import published
from hub.store.engine import Store
from hub.tls import CLIENT_ALPN, Faces, make_faces, reload_on_change
from protocol.aio.descriptors import raise_descriptor_limit
from protocol.aio.websocket import accept_websocket

logger = logging.getLogger(__name__)

COME_BACK_LEAST_S, COME_BACK_MOST_S = 15.0, 300.0
"""A planned stop asks the agents to return spread over as long as admitting them takes."""
FILES_WANTED = 12_000
"""Each tunnel and each page takes one."""
CERTIFICATES_EVERY_S = 86_400.0


class AlreadyRunning(HubError):
    """Another hub uses the state directory."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Listening sockets; `tunnels` is empty when one port serves all."""

    shared: list[socket.socket]
    tunnels: list[socket.socket]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a hub that serves is reached, for whoever started it."""

    url: str
    fingerprint: str
    """SHA-256 of the mesh's root key, in hex: what joiners pin."""
    password_file: Path | None
    """Set at the first start only."""


def run(config: HubConfig) -> None:
    """Serve until SIGTERM or SIGINT; prints `ready` when API and tunnels are open.

    Raises:
        AlreadyRunning: another hub uses the state directory.
        HubError, CertsError, OSError: what keeps it from starting, in words for people.
    """
    os.umask(0o077)  # whatever is written below the state directory is ours alone
    if (files := raise_descriptor_limit()) < FILES_WANTED:
        logger.warning(
            "this hub may open %d files, one for each agent and page: for more, raise the hard "
            "limit (ulimit -Hn, or LimitNOFILE= in the systemd unit)",
            files,
        )
    uvloop.run(_serve(config))
    gc.freeze()  # the process ends: what ten thousand tunnels left is not worth collecting


async def _serve(config: HubConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    make_private_directory(config.state_dir)
    with _lock(config.state_dir), _open_ports(config) as ports:
        config = with_urls(config, ports.shared[0].getsockname()[1])
        authority = Authority.open(config.state_dir / "ca", time.time())
        async with Store.open(config.store_url) as store, asyncio.TaskGroup() as tasks:
            async with store.read() as connection:
                published_hosts = await published.host_names(connection)
            mesh, pages = _certificates(config, authority, published_hosts)
            tunnel_port = ports.tunnels[0].getsockname()[1] if ports.tunnels else None
            hub = build_hub(
                config,
                store,
                authority,
                tasks,
                tunnel_urls=tunnel_urls(config, tunnel_port),
                pages_chain=pages.chain,
            )
            for listening in ports.shared:
                hub.accounts.origins.listening(*listening.getsockname()[:2])
            await load_hub(hub)
            address = await _first_start(hub)
            faces = make_faces(mesh, pages, authority.trust_pem)
            background = tasks.create_task(run_hub(hub))
            async with _open_for_all(hub, faces, ports, tasks):
                reloading = tasks.create_task(_keep_certificates(hub, faces, pages))
                _settle_memory()
                announce(address)
                await stop.wait()
                logger.info("stopping")
                reloading.cancel()
            background.cancel()


@asynccontextmanager
async def _open_for_all(
    hub: Hub, faces: Faces, ports: Ports, tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Serve pages and tunnels; at the end agents hear GOAWAY before the pages stop."""
    software = f"mooring-hub/{hub_version()}"
    agents = AgentTunnels(hub, tasks, software)
    clients = ClientTunnels(hub, tasks, software, agents.budget)
    async with serve_pages(create_site(hub)) as pages_protocol:
        returning, people, joining = Lane(hub.config.tunnels_per_s), Lane(), Lane()
        expose_returning(hub.telemetry, returning)
        pages = Route(faces.pages, pages_protocol, people)
        tunnel = Route(
            faces.tunnel,
            lambda: accept_websocket(agents.on_request),
            returning,
            fast=True,
            on_tls_error=agents.on_tls_error,
        )
        client = Route(
            faces.client, lambda: accept_websocket(clients.on_request), people, fast=True
        )
        routes = {
            TUNNEL_ALPN.encode(): tunnel,
            JOIN_ALPN.encode(): Route(faces.join, pages_protocol, joining),
            CLIENT_ALPN.encode(): client,
        }
        listeners = [tasks.create_task(Listener(routes, pages, hub.addresses).serve(ports.shared))]
        if ports.tunnels:
            listeners.append(
                tasks.create_task(Listener(routes, tunnel, hub.addresses).serve(ports.tunnels))
            )
        hub.readiness.listening = True
        try:
            yield
        finally:
            hub.readiness.listening = False
            for listener in listeners:
                listener.cancel()
            await hub.registry.close_all(come_back_s(len(hub.registry), hub.config.tunnels_per_s))
            await clients.close_all()


def come_back_s(agents: int, per_s: float) -> float:
    """Over how many seconds so many agents shall return, when `per_s` are admitted a second."""
    return min(max(COME_BACK_LEAST_S, agents / per_s), COME_BACK_MOST_S)


@contextlib.contextmanager
def _open_ports(config: HubConfig) -> Iterator[Ports]:
    with contextlib.ExitStack() as stack:
        ports = Ports(bind(config.bind, config.port), [])
        for listening in ports.shared:
            stack.enter_context(listening)
        if config.tunnel_port is not None:
            ports.tunnels.extend(bind(config.bind, config.tunnel_port))
            for listening in ports.tunnels:
                stack.enter_context(listening)
        yield ports


@contextlib.contextmanager
def _lock(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process."""
    with (state_dir / "hub.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another hub runs on {state_dir}; stop it first") from None
        yield


def _certificates(
    config: HubConfig, authority: Authority, published_hosts: Sequence[str]
) -> tuple[ServerFiles, ServerFiles]:
    """The files of the mesh's and of the pages' certificate, renewed when due."""
    directory, hosts, now = config.state_dir / "tls", certificate_hosts(config), time.time()
    mesh, _ = keep_current(directory, Role.HUB, authority, hosts, now)
    if config.tls_cert is not None and config.tls_key is not None:
        return mesh, ServerFiles(config.tls_cert, config.tls_key)
    pages, _ = keep_current(directory, Role.PAGES, authority, [*hosts, *published_hosts], now)
    return mesh, pages


async def _keep_certificates(hub: Hub, faces: Faces, pages: ServerFiles) -> None:
    """Renew our own certificates daily or for a new name; load again what changed on disk."""
    services = hub.published.services

    async def renew() -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CERTIFICATES_EVERY_S):
                    await services.names_changed.wait()
            services.names_changed.clear()
            mesh, _ = _certificates(hub.config, hub.authority, services.host_names())
            for context in (faces.tunnel, faces.join):
                context.load_cert_chain(mesh.chain, mesh.key)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reload_on_change(faces, pages))
        tasks.create_task(_retrying(renew))


async def _retrying(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (CertsError, OSError, ssl.SSLError):
            logger.exception("the hub's certificates could not be renewed; trying again tomorrow")


async def _first_start(hub: Hub) -> Address:
    """Leave the operator what they need to begin: CA, token, and at first a password."""
    state_dir, url = hub.config.state_dir, hub.config.public_urls[0]
    ca = state_dir / "ca.pem"
    write_private(ca, hub.authority.root_pem)
    created = await create_admin(hub.accounts, state_dir)
    token = await operator_token(hub.accounts, state_dir)
    write_operator_env(state_dir, url, token, ca if hub.config.tls_cert is None else None)
    return Address(
        url=url,
        fingerprint=hub.authority.root_spki_sha256.hex(),
        password_file=state_dir / "admin-password" if created else None,
    )


def _settle_memory() -> None:
    """Collect what the start left, and keep the rest out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def announce(address: Address) -> None:
    """Say where the hub is; `ready` on a line of its own comes last."""
    lines = [f"hub      {address.url}", f"CA       sha256:{address.fingerprint}"]
    if address.password_file is not None:
        lines.append(f"sign in  admin, one-time password in {address.password_file}")
    os.write(1, "\n".join([*lines, "ready", ""]).encode())
