"""Ids of rows that are listed newest first."""

from __future__ import annotations

import secrets
import time


def sortable_id() -> str:
    """Make an id of 32 hex digits that begins with the time in milliseconds."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
