"""Users: `/users`, for administrators."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, patch, post
from msgspec import Meta

from hub.accounts.users import User
from hub.api.guards import requires
from hub.authz import Role, Subject, Verb
from hub.core import Hub

Password = Annotated[str, Meta(max_length=256)]


class UserRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user to be made."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    password: Password
    role: Role


class UserChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; null leaves it."""

    role: Role | None = None
    disabled: bool | None = None
    password: Password | None = None


class UserPage(msgspec.Struct, frozen=True, kw_only=True):
    """All users by name."""

    items: list[User]
    next_cursor: str | None
    total: int


class UsersController(Controller):
    """The hub's users."""

    path = "/users"
    tags = ("users",)

    @get(guards=[requires(Verb.ADMIN)])
    async def list_users(self, hub: Hub) -> UserPage:
        """List all users."""
        users = await hub.accounts.users.all()
        return UserPage(items=users, next_cursor=None, total=len(users))

    @post(guards=[requires(Verb.ADMIN)])
    async def create_user(self, hub: Hub, subject: Subject, data: UserRequest) -> User:
        """Make a user."""
        user = await hub.accounts.users.create(data.name, data.password, data.role)
        await hub.audit.record(
            subject.name,
            "user.create",
            user.name,
            address=subject.address,
            detail={"role": user.role},
        )
        return user

    @patch("/{name:str}", guards=[requires(Verb.ADMIN)])
    async def change_user(self, hub: Hub, subject: Subject, name: str, data: UserChange) -> User:
        """Change a user's role, password, or whether they may sign in; their sessions end."""
        user = await hub.accounts.users.change(
            name, role=data.role, disabled=data.disabled, password=data.password
        )
        await hub.audit.record(
            subject.name,
            "user.change",
            name,
            address=subject.address,
            detail={
                "role": data.role,
                "disabled": data.disabled,
                "password": data.password is not None,
            },
        )
        return user

    @delete("/{name:str}", guards=[requires(Verb.ADMIN)])
    async def delete_user(self, hub: Hub, subject: Subject, name: str) -> None:
        """Remove a user with all sessions and tokens."""
        await hub.accounts.users.remove(name)
        await hub.audit.record(subject.name, "user.delete", name, address=subject.address)
