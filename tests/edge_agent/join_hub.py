"""The joining side of a hub on loopback: real TLS, a real store and CA, HTTP by hand."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from certs.authority import Authority
from certs.contexts import hub_join_context
from certs.servers import Role as Face
from certs.servers import keep_current
from certs.tokens import JoinToken, decode_token, encode_token
from hub.api.problems import problem_of
from hub.audit import Audit
from hub.authz import Role, Subject
from hub.enrolment import Enrolment
from hub.errors import HubError, Throttled
from hub.events import EventLog
from hub.join_tokens import JoinTokens
from hub.store.engine import Store
from protocol.messages import Facts

ADMIN = Subject(name="ada", role=Role.ADMIN, user_id="1", via="token", credential="1")


class JoinBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What docs/design/api.md says a joiner sends."""

    secret: str
    csr_pem: str
    facts: Facts
    name: str | None = None


@dataclass
class Request:
    line: str
    body: bytes
    alpn: str | None


@dataclass
class JoinHub:
    folder: Path
    authority: Authority
    tokens: JoinTokens
    enrolment: Enrolment
    url: str = ""
    ca_pem: bytes | None = None
    """What GET /ca answers instead of the truth."""
    busy: int = 0
    """How many joins to turn away first."""
    drop_joins: bool = False
    requests: list[Request] = field(default_factory=list)

    async def token(self, **options: object) -> str:
        created = await self.tokens.create(ADMIN, **options)  # type: ignore[arg-type]
        decoded = decode_token(created.text)
        return encode_token(JoinToken(hubs=(self.url,), pin=decoded.pin, secret=decoded.secret))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line for line in head.splitlines() if line.startswith("Content-Length")]
            body = await reader.readexactly(int(lengths[0].split()[1]) if lengths else 0)
            tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
            line = head.splitlines()[0]
            self.requests.append(Request(line, body, tls.selected_alpn_protocol()))
            status, answer, extra = await self._answer(line, body)
            if status:
                header = f"HTTP/1.1 {status} x\r\nContent-Length: {len(answer)}\r\n{extra}\r\n"
                writer.write(header.encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: str, body: bytes) -> tuple[int, bytes, str]:
        match line.split()[:2]:
            case ["GET", "/api/v1/ca"]:
                return 200, self.ca_pem or self.authority.root_pem, ""
            case ["POST", "/api/v1/join"] if self.drop_joins:
                return 0, b"", ""
            case ["POST", "/api/v1/join"]:
                return await self._join(body)
            case _:
                return 404, b"{}", ""

    async def _join(self, body: bytes) -> tuple[int, bytes, str]:
        asked = msgspec.json.decode(body, type=JoinBody)
        try:
            if self.busy:
                self.busy -= 1
                raise Throttled(7)
            joined = await self.enrolment.join(
                asked.secret, asked.csr_pem.encode(), asked.name, asked.facts, "127.0.0.1"
            )
        except HubError as error:
            problem = problem_of(error)
            return problem.status, msgspec.json.encode(problem), "Retry-After: 7\r\n"
        answer = {
            "node_id": joined.node_id,
            "name": joined.name,
            "certificate_pem": joined.certificate_pem.decode(),
            "trust_pem": joined.trust_pem.decode(),
        }
        return 201, msgspec.json.encode(answer), ""


@asynccontextmanager
async def join_hub(folder: Path, face: Face = Face.HUB) -> AsyncIterator[JoinHub]:
    folder.mkdir()
    async with Store.open(f"sqlite+aiosqlite:///{folder / 'hub.db'}") as store:
        authority = Authority.open(folder / "ca", time.time())
        files, _ = keep_current(folder / "tls", face, authority, ["127.0.0.1"], time.time())
        audit = Audit(store)
        tokens = JoinTokens(store, audit, authority, ("https://hub.example",))
        enrolment = Enrolment(store, audit, EventLog(store), authority)
        await enrolment.load()
        hub = JoinHub(folder, authority, tokens, enrolment)
        context = hub_join_context(files.chain, files.key)
        server = await asyncio.start_server(hub.serve, "127.0.0.1", 0, ssl=context)
        async with server:
            hub.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield hub
