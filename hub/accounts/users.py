"""Users: create, change, remove, check a password.

The rule it guards: there is always an administrator who can sign in (the last one is neither
removed, nor disabled, nor demoted), and whoever's rights shrink loses sessions and sockets at
once.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hub.accounts.changes import Changes, Ended
from hub.accounts.passwords import Passwords
from hub.accounts.throttle import Throttle
from hub.authz import Role, Subject
from hub.errors import BadRequest, Conflict, WrongCredentials
from hub.store import accounts as queries
from hub.store.engine import Store

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


class User(msgspec.Struct, frozen=True):
    """A user as the API shows one."""

    name: str
    role: str
    disabled: bool
    created_at: float


def shown(row: queries.UserRow) -> User:
    """Return what the API shows of a stored user."""
    return User(row.name, row.role, row.disabled, row.created_at)


@dataclass(slots=True)
class Users:
    """Keeps the users."""

    _store: Store
    _changes: Changes
    _passwords: Passwords = field(default_factory=Passwords)
    _throttle: Throttle = field(default_factory=Throttle)
    _clock: Callable[[], float] = time.time

    async def all(self) -> list[User]:
        """Return all users by name."""
        async with self._store.read() as connection:
            return [shown(row) for row in await queries.all_users(connection)]

    async def find(self, name: str) -> queries.UserRow:
        """Return the user of that name.

        Raises:
            NotFound: there is none.
        """
        async with self._store.read() as connection:
            return await queries.existing_user(connection, name)

    async def create(self, name: str, password: str, role: Role) -> User:
        """Make a user.

        Raises:
            BadRequest: name or password are not acceptable.
            Conflict: the name is taken.
        """
        if not NAME.fullmatch(name):
            raise BadRequest("a user's name has 1 to 64 of A-Z a-z 0-9 . _ @ -")
        password_hash = await self._passwords.hash(password)
        user_id, now = uuid.uuid4().hex, self._clock()
        row = queries.UserRow(user_id, name, role.value, password_hash, False, now)
        if not await self._store.write(lambda connection: queries.insert_user(connection, row)):
            raise Conflict(f"the name {name!r} is taken")
        return shown(row)

    async def sign_in(self, name: str, password: str, address: str) -> queries.UserRow:
        """Check name and password.

        Raises:
            Throttled: too many attempts for this name from this address.
            WrongCredentials: they do not fit, or the user is disabled; which is not said.
        """
        self._throttle.attempt(name, address)
        async with self._store.read() as connection:
            user = await queries.user_named(connection, name)
        fits = await self._passwords.verify(user.password_hash if user else None, password)
        if user is None or not fits or user.disabled:
            raise WrongCredentials
        self._throttle.succeeded(name, address)
        return user

    async def change_own_password(self, subject: Subject, current: str, new: str) -> None:
        """Replace the subject's password; all their other sessions end.

        Raises:
            Throttled: too many attempts.
            WrongCredentials: `current` does not fit.
            BadRequest: `new` is not acceptable.
        """
        user = await self.sign_in(subject.name, current, subject.address)
        password_hash = await self._passwords.hash(new)
        spared = subject.credential if subject.via == "session" else None

        await self._store.write(
            lambda connection: queries.change_user(
                connection, user.name, {"password_hash": password_hash}, spared
            )
        )
        self._changes.announce(Ended(user.id, spared=spared))

    async def change(
        self,
        name: str,
        *,
        role: Role | None = None,
        disabled: bool | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is not None; the user's sessions end.

        Raises:
            NotFound: there is no such user.
            Conflict: it would take the last administrator away.
            BadRequest: the password is not acceptable.
        """
        values: dict[str, Any] = {}
        if role is not None:
            values["role"] = role.value
        if disabled is not None:
            values["disabled"] = disabled
        if password is not None:
            values["password_hash"] = await self._passwords.hash(password)
        user = await self._store.write(
            lambda connection: queries.change_user(connection, name, values, None)
        )
        self._changes.announce(Ended(user.id))
        return shown(user)

    async def remove(self, name: str) -> None:
        """Remove a user with all sessions and tokens.

        Raises:
            NotFound: there is no such user.
            Conflict: it is the last administrator.
        """
        user_id = await self._store.write(lambda connection: queries.delete_user(connection, name))
        self._changes.announce(Ended(user_id))
