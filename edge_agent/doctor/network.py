"""What the doctor sees on the way to one hub, from the name to the upgrade.

Each step is a method that returns its finding, or nothing when there was nothing to see; the ones
after a failed step are left out, because they could only say the same again.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import http.client
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from certs.contexts import JOIN_ALPN, TUNNEL_ALPN, agent_context, join_context, untrusting_context
from certs.errors import CertificateRefused, PinMismatch
from certs.identity import check_hub
from certs.trust import pinned_root
from edge_agent.dial import TUNNEL_PATH
from edge_agent.doctor.findings import Finding, failed, ok, skipped, warning
from edge_agent.doctor.local import Own
from edge_agent.hub_http import Answer, Call, exchange, look, printable
from edge_agent.proxies import BadProxy, ProxyFailed, Route, connect_by, route_to
from edge_agent.proxies.connect import reason_of
from edge_agent.tls_faults import not_tls, stranger, tls_fault

STEP_S = 10.0
SKEW_S = 60.0
"""More than this between two clocks is worth a word."""
ADDRESSES = 8
"""Of one name, at most so many are tried."""

_TCP = {
    errno.ECONNREFUSED: ("refuses", "check the port, and that the hub (or the proxy) runs there"),
    errno.ENETUNREACH: ("no route", "this machine has no route there: give it one, or a proxy"),
    errno.EHOSTUNREACH: ("no route", "the network can't reach that host: check the address"),
    errno.ETIMEDOUT: ("no answer", "a firewall drops it: let it out, or name a proxy"),
    errno.EACCES: ("forbidden here", "this machine's own firewall forbids it"),
    errno.EPERM: ("forbidden here", "this machine's own firewall forbids it"),
}
_REFUSALS = {
    "revoked": "an administrator revoked it: ask why, then join again with a new token",
    "quarantined": "two machines seem to use its key: remove the node and join both again",
    "unknown_node": "the hub does not know it, it was removed: join again with a new token",
    "expired": "join again with a new token: mooring agent join --force",
}


@dataclass(frozen=True, slots=True)
class Expected:
    """What we know of the hub and how to go there."""

    own: Own
    pin: bytes | None
    proxy: str | None
    environ: Mapping[str, str]
    step_s: float


async def look_at_hub(hub: str, expected: Expected) -> list[Finding]:
    """Look at the way to one address and at who is there."""
    try:
        route = route_to(hub, expected.proxy, expected.environ)
    except BadProxy as error:
        findings = [failed("way out", str(error), "correct it")]
    else:
        way = ok("way out", f"{route.proxy or 'direct'} ({route.why})")
        findings = [way, *await _Visit(hub, route, expected).findings()]
    return [replace(finding, hub=hub) for finding in findings]


class _Visit:
    """One address, one route."""

    def __init__(self, hub: str, route: Route, expected: Expected) -> None:
        self._hub, self._route, self._expected = hub, route, expected
        self._addresses: list[tuple[int, tuple[str, int]]] = []
        self._answer: Answer | None = None

    async def findings(self) -> list[Finding]:
        found: list[Finding] = []
        for step in (self._name, self._tcp, self._proxy, self._tls, self._identity):
            finding = await step()
            if finding is not None:
                found.append(finding)
                if finding.status == "failed":
                    return [*found, *self._clock()]
        return [*found, *self._clock(), await self._upgrade()]

    # --- to the first hop ---

    def _hop(self) -> tuple[str, int]:
        if self._route.proxy is not None:
            return self._route.proxy.host, self._route.proxy.port
        parts = urlsplit(self._hub)
        return parts.hostname or "", parts.port or 443

    async def _name(self) -> Finding:
        host, port = self._hop()
        try:
            async with asyncio.timeout(self._expected.step_s):
                found = await _resolve(host, port)
        except TimeoutError:
            detail = f"nobody resolves {host} in time"
            return failed("name", detail, "check the name servers in /etc/resolv.conf")
        except OSError as error:
            detail = f"{host} can't be resolved ({reason_of(error)})"
            return failed("name", detail, "check the spelling, and /etc/resolv.conf")
        self._addresses = found[:ADDRESSES]
        return ok("name", f"{host} is {', '.join(address[0] for _, address in found[:ADDRESSES])}")

    async def _tcp(self) -> Finding:
        async with asyncio.TaskGroup() as tasks:
            tries = [
                tasks.create_task(_connect(family, address, self._expected.step_s))
                for family, address in self._addresses
            ]
        outcomes = {
            address[0]: tried.result()
            for (_, address), tried in zip(self._addresses, tries, strict=True)
        }
        port = self._hop()[1]
        bad = {host: _TCP.get(code, (os.strerror(code), "")) for host, code in outcomes.items()
               if code}  # fmt: skip
        words = ", ".join(f"{host} port {port}: {what}" for host, (what, _) in bad.items())
        if len(bad) == len(outcomes):
            advice = next(iter(bad.values()))[1] or "check the network"
            return failed("tcp", words, advice)
        if bad:
            return warning("tcp", f"some addresses don't answer ({words})", "repair or drop them")
        return ok("tcp", f"port {port} answers")

    async def _proxy(self) -> Finding | None:
        if self._route.proxy is None:
            return None
        try:
            connected = await connect_by(self._route, self._hub, self._expected.step_s)
        except ProxyFailed as error:
            return failed("proxy", f"{error.proxy} {error.detail}", error.advice)
        if connected is not None:
            connected.close()
        return ok("proxy", "connects to the hub's address")

    # --- who is there ---

    async def _tls(self) -> Finding:
        """Shake hands as a joiner: the hub then asks for no certificate and notes nothing."""
        try:
            seen = await look(self._hub, self._route, JOIN_ALPN, self._expected.step_s)
        except ssl.SSLError as error:
            fault = not_tls(self._hub, error)
            return failed("tls", fault.detail, fault.advice)
        except OSError as error:
            detail = f"the handshake is cut off ({reason_of(error)})"
            advice = "something in between may cut what it can't read: let the connection pass"
            return failed("tls", detail, advice)
        if seen.alpn == JOIN_ALPN:
            return ok("tls", f"ALPN {seen.alpn}")
        fault = stranger(seen)
        if await self._is_ours():
            detail = f"our hub's certificate, but ALPN is {seen.alpn or 'none'} and not {JOIN_ALPN}"
            advice = "something ends TLS in front of the hub: have it pass TCP through untouched"
            return failed("tls", detail, advice)
        return failed("tls", fault.detail, fault.advice)

    async def _is_ours(self) -> bool:
        """Whether the certificate there leads to our root, whatever it is for."""
        verified: list[bytes | None] = []
        with contextlib.suppress(OSError, http.client.HTTPException):
            await self._ask(Call("GET", "/api/v1/ca"), self._joining_context(), verified.append)
        return bool(verified) and self._expected.own.trust_pem is not None

    async def _identity(self) -> Finding:
        own, pin = self._expected.own, self._expected.pin
        call = Call("GET", "/api/v1/ca")
        answer = await self._asked("hub", call, self._joining_context(), JOIN_ALPN)
        if isinstance(answer, Finding):
            return answer
        self._answer = answer
        if answer.status != 200:
            detail = f"it answers {answer.status} when asked for its CA"
            return failed("hub", detail, "check that it is a Mooring hub, and its /readyz")
        if pin is not None:
            try:
                pinned_root(answer.body, pin)
            except PinMismatch:
                detail = "its CA is not the one that the join token names"
                advice = "check the address; make a token at this very hub: mooring token create"
                return failed("hub", detail, advice)
            return ok("hub", "the one that made the join token")
        if own.config is not None and own.trust_pem is not None:
            return ok("hub", f"our mesh's ({own.config.mesh_id[:8]}…)")
        return ok("hub", "a Mooring hub; only a join token tells whether it is the right one")

    def _clock(self) -> list[Finding]:
        told = None if self._answer is None else self._answer.headers.get("Date")
        try:
            hubs = parsedate_to_datetime(told).timestamp() if told else None
        except ValueError:
            hubs = None
        if hubs is None:
            return [skipped("clock", "the hub did not tell its time")] if self._answer else []
        ahead = time.time() - hubs
        if abs(ahead) < SKEW_S:
            return [ok("clock", "agrees with the hub's")]
        detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the hub's"
        advice = "set the one that is wrong: timedatectl set-ntp true"
        return [failed("clock", detail, advice)]

    # --- would it let us in ---

    async def _upgrade(self) -> Finding:
        """Ask for a tunnel and go away before HELLO: one that is up stays up."""
        own = self._expected.own
        if not own.usable or own.trust_pem is None:
            return skipped("tunnel", "needs a certificate that can be used")
        state = own.state
        key = base64.b64encode(os.urandom(16)).decode()
        call = Call(
            "GET",
            TUNNEL_PATH,
            headers={
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": key,
                "Sec-WebSocket-Protocol": "mooring.v1",
            },
        )
        context = agent_context(state.certificate, state.key, own.trust_pem)
        answer = await self._asked("tunnel", call, context, TUNNEL_ALPN)
        return answer if isinstance(answer, Finding) else _judged(answer)

    async def _asked(
        self, check: str, call: Call, context: ssl.SSLContext, alpn: str
    ) -> Answer | Finding:
        """Ask our hub; a finding says why there is no answer, or that it is another's."""
        config = self._expected.own.config

        def is_ours(der: bytes | None) -> None:
            if config is not None:
                check_hub(der, config.mesh_id)

        try:
            return await self._ask(call, context, is_ours)
        except ssl.SSLError as error:
            fault = await tls_fault(self._hub, self._route, error, alpn, self._expected.step_s)
            return failed(check, fault.detail, fault.advice)
        except CertificateRefused as error:
            return failed(check, f"it is not our mesh's hub: {error}", "check the address")
        except (OSError, http.client.HTTPException) as error:
            detail = f"no answer over TLS ({printable(str(error)) or 'not in time'})"
            return failed(check, detail, "see the hub's log for why")

    def _joining_context(self) -> ssl.SSLContext:
        trust_pem = self._expected.own.trust_pem
        return untrusting_context() if trust_pem is None else join_context(trust_pem)

    async def _ask(
        self, call: Call, context: ssl.SSLContext, check: Callable[[bytes | None], None]
    ) -> Answer:
        step_s = self._expected.step_s
        return await exchange(self._hub, self._route, context, call, check=check, timeout_s=step_s)


def _judged(answer: Answer) -> Finding:
    words = printable(answer.body.decode("utf-8", "replace")) or "no reason"
    match answer.status:
        case 101:
            return ok("tunnel", "the hub lets this node in")
        case 403:
            reason = re.search(r"refused: (\w+)", words)
            advice = _REFUSALS.get(reason[1] if reason else "", "ask the hub's administrator")
            return failed("tunnel", f"the hub refuses this node: {words}", advice)
        case 404:
            detail = "the hub's tunnels are not at this address (404)"
            return failed("tunnel", detail, "check the port, and --public-url at the hub")
        case 429 | 503:
            detail = f"the hub is busy: {words} ({answer.status})"
            return failed("tunnel", detail, "try again in a minute")
        case _:
            detail = f"the hub answers {answer.status} instead of opening a tunnel: {words}"
            return failed("tunnel", detail, "see the hub's log")


async def _resolve(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """Resolve in a thread that nobody waits for: the system's resolver may take a minute."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[tuple[int, tuple[str, int]]]] = loop.create_future()

    def settle(found: list[tuple[int, tuple[str, int]]], error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(found)
        else:
            done.set_exception(error)

    def ask() -> None:
        found: list[tuple[int, tuple[str, int]]] = []
        failure: OSError | None = None
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, (str(address[0]), port)))
        except OSError as error:
            failure = error
        except UnicodeError:
            failure = OSError("it is no name")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found, failure)

    threading.Thread(target=ask, daemon=True).start()
    return await done


async def _connect(family: int, address: tuple[str, int], timeout_s: float) -> int:
    """Connect and close; returns 0 or the `errno`."""
    with socket.socket(family, socket.SOCK_STREAM) as plain:
        plain.setblocking(False)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(plain, address)
        except TimeoutError:
            return errno.ETIMEDOUT
        except OSError as error:
            return error.errno or errno.EIO
    return 0
