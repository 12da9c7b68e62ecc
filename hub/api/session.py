"""Signing in and out of the pages: `/session`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import Cookie
from msgspec import Meta

from hub.accounts.sessions import ABSOLUTE_S, BrowserSession
from hub.accounts.users import User, shown
from hub.api.guards import COOKIE, address_of, check_origin, public, signed_in
from hub.authz import Subject
from hub.core import Hub
from hub.errors import BadRequest, WrongCredentials

Password = Annotated[str, Meta(max_length=256)]


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """What the sign-in form sends."""

    username: Annotated[str, Meta(min_length=1, max_length=64)]
    password: Password


class PasswordChange(msgspec.Struct, frozen=True, kw_only=True):
    """The password of now and the one to come."""

    current: Password
    new: Password


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in; for a bearer token there is neither `csrf` nor an end."""

    user: User
    csrf: str | None
    """To be sent as X-CSRF-Token with every mutating request."""
    expires_at: float | None


class SessionController(Controller):
    """The browser's session."""

    path = "/session"
    tags = ("session",)

    @post(guards=[public()], status_code=200)
    async def sign_in(
        self, hub: Hub, request: Request[Any, Any, Any], data: SignIn
    ) -> Response[Session]:
        """Check name and password, and set the session's cookie."""
        if "origin" in request.headers:
            check_origin(request)
        address = address_of(request)
        try:
            user = await hub.accounts.users.sign_in(data.username, data.password, address)
        except WrongCredentials:
            await hub.audit.record(
                "anonymous", "session.create", data.username, outcome="failed", address=address
            )
            raise
        agent = request.headers.get("user-agent", "")
        new = await hub.accounts.sessions.create(user, address, agent)
        await hub.audit.record(user.name, "session.create", address=address)
        cookie = _cookie(new.cookie, int(ABSOLUTE_S))
        return Response(_shown(shown(user), new.session), cookies=[cookie])

    @get(guards=[signed_in()])
    async def get_session(
        self, hub: Hub, subject: Subject, request: Request[Any, Any, Any]
    ) -> Session:
        """Say who is signed in, with which rights."""
        user = await hub.accounts.users.find(subject.name)
        held = User(user.name, subject.role, user.disabled, user.created_at)
        if subject.via == "token":
            return Session(user=held, csrf=None, expires_at=None)
        session = await hub.accounts.sessions.verify(request.cookies[COOKIE], subject.address)
        return _shown(held, session)

    @delete(guards=[signed_in()])
    async def sign_out(self, hub: Hub, subject: Subject) -> Response[None]:
        """End the session and everything opened with it."""
        if subject.via != "session":
            raise BadRequest("this is a token, not a session; remove it under /api/v1/api-tokens")
        await hub.accounts.sessions.end(subject)
        await hub.audit.record(subject.name, "session.delete", address=subject.address)
        return Response(None, status_code=204, cookies=[_cookie("", 0)])

    @post("/password", guards=[signed_in()], status_code=204)
    async def change_password(self, hub: Hub, subject: Subject, data: PasswordChange) -> None:
        """Change the own password; all other sessions of the user end."""
        try:
            await hub.accounts.users.change_own_password(subject, data.current, data.new)
        except WrongCredentials:
            await hub.audit.record(
                subject.name, "session.password", outcome="failed", address=subject.address
            )
            raise
        await hub.audit.record(subject.name, "session.password", address=subject.address)


def _shown(user: User, session: BrowserSession) -> Session:
    return Session(user=user, csrf=session.csrf, expires_at=session.expires_at)


def _cookie(value: str, max_age_s: int) -> Cookie:
    return Cookie(
        key=COOKIE,
        value=value,
        max_age=max_age_s,
        path="/",
        secure=True,
        httponly=True,
        samesite="strict",
    )
