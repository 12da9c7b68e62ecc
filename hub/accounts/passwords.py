"""Passwords: argon2id in worker threads, a few at a time.

The rule it guards: hashing (64 MiB and tens of milliseconds each) never blocks the event loop, and
a flood of sign-ins cannot take the machine's memory: two run, sixteen wait, the others are
refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hub.errors import BadRequest, Unavailable

T = TypeVar("T")
MIN_LENGTH = 8
MAX_LENGTH = 256
CONCURRENT = 2
WAITING_LIMIT = 16


@dataclass(slots=True)
class Passwords:
    """Hashes and verifies passwords."""

    _hasher: PasswordHasher = field(default_factory=PasswordHasher)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONCURRENT))
    _waiting: int = 0
    _decoy: str = ""

    async def hash(self, password: str) -> str:
        """Return the argon2id hash of a new password.

        Raises:
            BadRequest: it is shorter than 8 or longer than 256 characters.
            Unavailable: too many wait for theirs.
        """
        if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
            raise BadRequest(f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Say whether the password fits; takes as long when there is no hash to compare with.

        Raises:
            Unavailable: too many wait for theirs.
        """
        if len(password) > MAX_LENGTH:
            return False
        return await self._in_thread(lambda: self._matches(password_hash, password))

    def _matches(self, password_hash: str | None, password: str) -> bool:
        if password_hash is None and not self._decoy:
            self._decoy = self._hasher.hash("nobody's")
        try:
            self._hasher.verify(password_hash or self._decoy, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_LIMIT + CONCURRENT:
            raise Unavailable("too many sign-ins at once; try again in a few seconds")
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
