"""One-time tickets for browser sockets: `/tickets`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from litestar import Controller, post
from msgspec import Meta

from hub.accounts.tickets import Ticket
from hub.api.guards import requires
from hub.authz import Subject, Verb, authorize
from hub.core import Hub
from hub.errors import BadRequest


class TicketRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ticket is for; `node` as the socket's first frame will name it."""

    purpose: Literal["live", "shell"]
    node: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class TicketsController(Controller):
    """Tickets."""

    path = "/tickets"
    tags = ("session",)

    @post(guards=[requires(Verb.VIEW)])
    async def create_ticket(self, hub: Hub, subject: Subject, data: TicketRequest) -> Ticket:
        """Issue a ticket: good once, for 30 seconds, for this caller and purpose."""
        if (data.purpose == "shell") != (data.node is not None):
            raise BadRequest("a ticket for a shell names a node, one for live data does not")
        if data.purpose == "shell":
            authorize(subject, Verb.SHELL, data.node)
        return hub.accounts.tickets.issue(subject, data.purpose, data.node)
