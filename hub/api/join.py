"""How a node comes in: `GET /ca` for its pin to verify, `POST /join` with a join token's secret."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Controller, MediaType, Request, Response, get, post
from msgspec import Meta

from hub.api.guards import address_of, public
from hub.core import Hub
from protocol.messages import Facts

BODY_LIMIT_BYTES = 256 * 1024


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A node that wants in; fields of newer agents are ignored."""

    secret: Annotated[str, Meta(max_length=64)]
    csr_pem: Annotated[str, Meta(max_length=8192)]
    name: Annotated[str, Meta(max_length=256)] | None = None
    facts: Facts


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A node's identity."""

    node_id: str
    name: str
    certificate_pem: str
    trust_pem: str


class JoinController(Controller):
    """Joining; open to everybody, the secret decides."""

    tags = ("join",)

    @get("/ca", media_type=MediaType.TEXT, guards=[public()])
    async def get_ca(self, hub: Hub) -> Response[str]:
        """Return the mesh's root certificate in PEM."""
        pem = hub.authority.root_pem.decode()
        return Response(pem, media_type="application/x-pem-file")

    @post("/join", guards=[public()], request_max_body_size=BODY_LIMIT_BYTES)
    async def join(
        self, hub: Hub, request: Request[Any, Any, Any], data: JoinRequest
    ) -> JoinAnswer:
        """Let a node in for one use of its join token."""
        joined = await hub.enrolment.join(
            data.secret, data.csr_pem.encode(), data.name, data.facts, address_of(request)
        )
        await hub.nodes.refresh(joined.node_id)
        return JoinAnswer(
            node_id=joined.node_id,
            name=joined.name,
            certificate_pem=joined.certificate_pem.decode(),
            trust_pem=joined.trust_pem.decode(),
        )
