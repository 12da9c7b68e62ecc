"""Shared by all tests: coroutines run on uvloop, as hub, agent and client do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("mooring", deadline=None)  # a busy machine is no failure
settings.load_profile("mooring")


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Bytes are named by their length: an archive holds a time, and workers must agree on names."""
    return f"{len(val)}-bytes" if isinstance(val, bytes) and len(val) > 16 else None
