"""`Doors`: how a browser that is signed in to the hub gets into a published service.

The rule it guards: only a browser session opens a door, with the rights it has at that moment, and
what it gets is good for one service. A service with a host name is entered by a one-time ticket,
which that host turns into a cookie of its own; one without by a new secret path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from hub.accounts.accounts import Accounts
from hub.accounts.changes import Ended
from hub.accounts.sessions import BrowserSession
from hub.audit import Audit
from hub.authz import Subject, Verb, authorize
from hub.errors import BadRequest, Forbidden, NotSignedIn
from hub.published.entries import Entries
from hub.published.services import Service, Services

PREFIX = "/published/"
ENTER = "/.mooring/enter"
"""Reserved at each service's host: everything below its first part is the hub's."""
_LOCAL = re.compile(r"/(?![/\\])[!-~]*")


def is_local_target(target: str) -> bool:
    """Say whether a redirect to it stays on its host: a path, perhaps with a query."""
    return _LOCAL.fullmatch(target) is not None


@dataclass(frozen=True, slots=True)
class Doors:
    """Addresses of services, tickets and entries."""

    hub_url: str
    services: Services
    entries: Entries
    accounts: Accounts
    audit: Audit

    def url_of(self, service: Service) -> str:
        """Return where people find a service."""
        if service.row.host_name is None:
            return f"{self.hub_url}{PREFIX}{service.name}/"
        return f"{self._site_of(service)}/"

    def front_of(self, service: Service, target: bytes) -> bytes:
        """Return the hub's own address that leads to a target within a service."""
        return f"{self.hub_url}{PREFIX}{service.name}".encode() + target

    async def let_in(self, subject: Subject, service: Service, target: str) -> str:
        """Return where a signed-in browser goes on to.

        Raises:
            Forbidden: the subject may not forward to the service's node.
            NotSignedIn: the session has just ended.
            BadRequest: it is a program with a token, or the target is no path.
        """
        if subject.via != "session":
            raise BadRequest("published services are for browsers; programs use `mooring forward`")
        if not is_local_target(target):
            raise BadRequest("the address is not one of a page; begin at the service's first page")
        try:
            authorize(subject, Verb.FORWARD, self.services.node_of(service).name)
        except Forbidden:
            await self.audit.record(
                subject.name, "published.enter", service.name,
                outcome="denied", address=subject.address,
            )  # fmt: skip
            raise
        if service.row.host_name is None:
            secret = await self._admit(subject, service)
            return f"{PREFIX}{service.name}/~{secret}{target}"
        ticket = self.accounts.tickets.issue(subject, "published", service.name).ticket
        query = urlencode({"ticket": ticket, "to": target})
        return f"{self._site_of(service)}{ENTER}?{query}"

    async def redeem(self, service: Service, ticket: str) -> str:
        """Return the secret of the entry that a ticket is good for.

        Raises:
            NotSignedIn: the ticket is unknown, used or expired, or its session has ended.
        """
        subject = self.accounts.tickets.claim(ticket, "published", service.name)
        return await self._admit(subject, service)

    async def _admit(self, subject: Subject, service: Service) -> str:
        session = await self._current(subject)
        return self.entries.admit(session.subject, service.name, session.expires_at)

    async def _current(self, subject: Subject) -> BrowserSession:
        """Return the session as it is now; what ends while it is read has ended."""
        ended: list[Ended] = []
        with self.accounts.watch(ended.append):
            session = await self.accounts.sessions.current(subject)
        if any(end.covers(subject) for end in ended):
            raise NotSignedIn
        return session

    def _site_of(self, service: Service) -> str:
        port = urlsplit(self.hub_url).port
        return f"https://{service.row.host_name}" + (f":{port}" if port not in (None, 443) else "")
