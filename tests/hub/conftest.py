"""What the hub's tests share: a store on a temporary SQLite file, a hub over it, its API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import Authority
from hub.accounts.passwords import Passwords
from hub.app import create_app
from hub.authz import Role
from hub.build import build_hub, load_hub
from hub.config import HubConfig
from hub.core import Hub
from hub.store.engine import Store

URL = "https://hub.test"
PASSWORD = "correct horse"

ClientFor = Callable[[Role | None], Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(f"sqlite+aiosqlite:///{tmp_path / 'hub.db'}") as store:
        yield store


@pytest.fixture
def passwords() -> Passwords:
    """Real argon2id at its lowest cost."""
    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
async def hub(store: Store, tmp_path: Path, passwords: Passwords) -> AsyncIterator[Hub]:
    """A hub with a user for every role (`viewer`, …, password `PASSWORD`); nothing runs."""
    authority = Authority.open(tmp_path / "ca", time.time())
    pages = tmp_path / "pages.pem"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pages.write_bytes(authority.issue_pages(key, ["hub.test"], time.time()))
    config = HubConfig(state_dir=tmp_path, public_urls=(URL,))
    async with asyncio.TaskGroup() as tasks:
        hub = build_hub(
            config,
            store,
            authority,
            tasks,
            tunnel_urls=(URL,),
            pages_chain=pages,
            passwords=passwords,
        )
        await load_hub(hub)
        for role in Role:
            await hub.accounts.users.create(role.value, PASSWORD, role)
        yield hub


@pytest.fixture
async def client(hub: Hub, tmp_path: Path) -> AsyncIterator[ClientFor]:
    """Make clients of the API: `await client(Role.VIEWER)` with a token, `None` with nothing."""
    static = tmp_path / "static"
    static.mkdir()
    app = cast("Any", create_app(hub, static=static))  # ASGI by two names
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async with AsyncExitStack() as stack:

        async def make(role: Role | None) -> httpx.AsyncClient:
            headers = {}
            if role is not None:
                user = await hub.accounts.users.find(role.value)
                new = await hub.accounts.tokens.create(user.id, user.name, "test", role)
                headers["Authorization"] = f"Bearer {new.secret}"
            made = httpx.AsyncClient(transport=transport, base_url=URL, headers=headers)
            return await stack.enter_async_context(made)

        yield make
