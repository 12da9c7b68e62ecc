"""Which proxy leads to a hub, and what real proxies on loopback make of a connection."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.servers import Role, keep_current
from certs.tokens import JoinToken, decode_token, encode_token
from edge_agent.config import AgentConfig, load_config
from edge_agent.join import JoinFailed, Reason, join
from edge_agent.proxies import (
    DIRECT,
    BadProxy,
    Proxy,
    ProxyFailed,
    ProxyFault,
    connect_through,
    parse_proxy,
    route_to,
)
from edge_agent.proxies.choice import exempting
from edge_agent.proxies.connect import HEAD_LIMIT_BYTES
from edge_agent.state import StateDir
from tests.edge_agent.join_hub import JoinHub, join_hub
from tests.proxies import ProxyServer

LOGIN = ("ann lee", "p:w@/%ü")
KINDS = ["http", "socks5"]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("http://p.example:3128", Proxy("http", "p.example", 3128)),
            ("p.example:3128", Proxy("http", "p.example", 3128)),
            ("HTTP://P.Example/", Proxy("http", "p.example", 80)),
            ("https://p.example", Proxy("https", "p.example", 443)),
            ("socks5://[fd00::1]", Proxy("socks5", "fd00::1", 1080)),
            ("socks5h://10.0.0.1:9050", Proxy("socks5", "10.0.0.1", 9050)),
            ("http://ann%20lee:p%3Aw%40@p:1", Proxy("http", "p", 1, "ann lee", "p:w@")),
            ("http://ann@p:1", Proxy("http", "p", 1, "ann", "")),
        ],
    )
    def test_a_url_says_scheme_host_port_and_login(self, url: str, expected: Proxy) -> None:
        assert parse_proxy(url) == expected

    @pytest.mark.parametrize(
        "url",
        ["", "http://", "ftp://p:1", "socks4://p:1", "http://p:x", "http://p:70000", "http://p/way",
         "http://a b:1", "http://p:1?q", "http://u:%ff@p:1", "http://u:secret@[::1:1"],
    )  # fmt: skip
    def test_what_is_no_proxy_is_refused_without_showing_it(self, url: str) -> None:
        with pytest.raises(BadProxy) as caught:
            parse_proxy(url)
        assert "secret" not in str(caught.value)

    def test_a_password_is_never_shown(self) -> None:
        proxy = parse_proxy("https://ann:secret@[fd00::1]:8080")
        assert str(proxy) == "https://[fd00::1]:8080"
        for text in (repr(proxy), str(ProxyFailed(proxy, ProxyFault.FAILED, "failed"))):
            assert "secret" not in text
            assert "ann" not in text


class TestChoice:
    HUB = "https://hub.example:8443"

    @pytest.mark.parametrize(
        ("environ", "chosen"),
        [
            ({}, None),
            ({"HTTP_PROXY": "http://p:1"}, None),
            ({"HTTPS_PROXY": "http://p:1"}, "HTTPS_PROXY"),
            ({"ALL_PROXY": "http://p:1"}, "ALL_PROXY"),
            ({"https_proxy": "http://p:1", "ALL_PROXY": "http://q:1"}, "HTTPS_PROXY"),
            ({"https_proxy": "", "HTTPS_PROXY": "http://q:1"}, None),
            ({"all_proxy": "http://p:1", "NO_PROXY": "other.example"}, "ALL_PROXY"),
            ({"all_proxy": "http://p:1", "no_proxy": "", "NO_PROXY": "*"}, "ALL_PROXY"),
            ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "hub.example"}, None),
        ],
    )
    def test_the_environment_decides(self, environ: dict[str, str], chosen: str | None) -> None:
        route = route_to(self.HUB, None, environ)
        assert route.proxy == (None if chosen is None else Proxy("http", "p", 1))
        assert chosen in (route.why, None)

    def test_the_agents_own_setting_wins(self) -> None:
        environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}
        assert route_to(self.HUB, "socks5://q", environ).proxy == Proxy("socks5", "q", 1080)
        assert route_to(self.HUB, DIRECT, environ).proxy is None

    def test_a_bad_setting_names_where_it_stands(self) -> None:
        with pytest.raises(BadProxy, match=r"^agent\.json: "):
            route_to(self.HUB, "gopher://p", {})
        with pytest.raises(BadProxy, match=r"^ALL_PROXY: "):
            route_to(self.HUB, None, {"all_proxy": "gopher://p"})

    @pytest.mark.parametrize(
        ("no_proxy", "host", "exempt"),
        [
            ("*", "anything.example", True),
            ("hub.example", "hub.example", True),
            ("HUB.example", "hub.EXAMPLE.", True),
            ("example", "hub.example", True),
            ("ample", "hub.example", False),
            (".example", "hub.example", True),
            (".hub.example", "hub.example", False),
            ("*.example", "hub.example", True),
            ("*.hub.example", "hub.example", False),
            ("hub.example:8443", "hub.example", True),
            ("hub.example:443", "hub.example", False),
            ("hub.example:x", "hub.example", False),
            ("a, b\thub.example", "hub.example", True),
            (",, ,", "hub.example", False),
            ("10.1.2.3", "10.1.2.3", True),
            ("10.1.2.3:8443", "10.1.2.3", True),
            ("10.1.2.3:1", "10.1.2.3", False),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.0.0.1/8", "10.1.2.3", True),
            ("10.0.0.0/33", "10.1.2.3", False),
            ("11.0.0.0/8", "10.1.2.3", False),
            ("10.0.0.0/8", "::ffff:10.1.2.3", True),
            ("10.0.0.0/8", "hub.example", False),
            ("1.2.3", "0.1.2.3", False),
            ("fd00::/8", "fd12::1", True),
            ("fd12:0::1", "fd12::1", True),
            ("[fd12::1]:8443", "fd12::1", True),
            ("[fd12::1]:1", "fd12::1", False),
            ("fd12::2", "fd12::1", False),
        ],
    )
    def test_no_proxy_names_hosts_domains_addresses_and_networks(
        self, no_proxy: str, host: str, exempt: bool
    ) -> None:
        assert (exempting(no_proxy, host, 8443) is not None) is exempt


@asynccontextmanager
async def greeter() -> AsyncIterator[int]:
    """A server that speaks first, so that a proxy's answer and its greeting may come at once."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def greeting(connected: socket.socket) -> bytes:
    loop, text = asyncio.get_running_loop(), b""
    with connected:
        while piece := await loop.sock_recv(connected, 100):
            text += piece
    return text


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A proxy's certificate for `localhost`, by a CA that this process trusts."""
    own = Authority.open(tmp_path / "proxy-ca", time.time())
    files, _ = keep_current(tmp_path / "proxy", Role.PAGES, own, ["localhost"], time.time())
    root = tmp_path / "proxy-root.pem"
    root.write_bytes(own.root_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.chain, files.key)
    return context


@pytest.mark.parametrize("login", [None, LOGIN])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_connects_and_not_a_byte_is_lost(
    kind: str, login: tuple[str, str] | None
) -> None:
    async with greeter() as port, ProxyServer(kind, login).open() as server:
        connected = await connect_through(parse_proxy(server.url), "127.0.0.1", port)
        assert await greeting(connected) == b"hello"
        assert server.targets == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_proxy_resolves_the_name(kind: str) -> None:
    names = {"hub.behind": "127.0.0.1"}
    async with greeter() as port, ProxyServer(kind, names=names).open() as server:
        connected = await connect_through(parse_proxy(server.url), "hub.behind", port)
        assert await greeting(connected) == b"hello"
        assert server.targets == [f"hub.behind:{port}"]


async def test_an_ipv6_target_is_bracketed_for_http_and_packed_for_socks() -> None:
    for kind in KINDS:
        async with ProxyServer(kind, names={"fd00::1": "127.0.0.1"}).open() as server:
            async with greeter() as port:
                connected = await connect_through(parse_proxy(server.url), "fd00::1", port)
                assert await greeting(connected) == b"hello"
            assert [head.split()[1] for head in server.heads] in ([], [b"[fd00::1]:%d" % port])


async def test_an_https_proxy_is_spoken_to_by_tls(tls: ssl.SSLContext) -> None:
    async with greeter() as port, ProxyServer("http", LOGIN, tls).open() as server:
        assert server.url.startswith("https://")
        connected = await connect_through(parse_proxy(server.url), "127.0.0.1", port)
        assert await greeting(connected) == b"hello"


async def test_an_https_proxy_carries_much_both_ways_and_the_end(tls: ssl.SSLContext) -> None:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()
        ended.set()

    block = os.urandom(4_000_000)
    async with (
        await asyncio.start_server(echo, "127.0.0.1", 0) as far,
        ProxyServer("http", None, tls).open() as server,
    ):
        port = far.sockets[0].getsockname()[1]
        connected = await connect_through(parse_proxy(server.url), "127.0.0.1", port)
        reader, writer = await asyncio.open_connection(sock=connected)
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(reader.readexactly(len(block)))
            writer.write(block)
        assert reading.result() == block
        writer.close()
        await ended.wait()


async def test_an_https_proxy_of_an_unknown_ca_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    async with ProxyServer("http", None, tls).open() as server:
        error = await fault_of(server.url)
    assert error.fault is ProxyFault.TLS
    assert "certificate" in str(error)


async def fault_of(url: str, port: int = 9) -> ProxyFailed:
    with pytest.raises(ProxyFailed) as caught:
        await connect_through(parse_proxy(url), "127.0.0.1", port)
    assert "p:w" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_is_missing_or_wrong_is_told_apart(kind: str) -> None:
    async with ProxyServer(kind, LOGIN).open() as server:
        missing = await fault_of(server.url_of(None))
        wrong = await fault_of(server.url_of("ann lee", "p:w"))
    assert missing.fault is ProxyFault.NEEDS_PASSWORD
    assert "USER:PASSWORD@" in str(missing)
    assert wrong.fault is ProxyFault.WRONG_PASSWORD
    assert "percent-encoded" in str(wrong)


async def test_a_login_we_cannot_do_is_named() -> None:
    says = b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nproxy-authenticate: Negotiate a\r\n\r\n"
    async with ProxyServer("http", says=says).open() as server:
        error = await fault_of(server.url)
    assert error.fault is ProxyFault.OTHER_LOGIN
    assert "NTLM or Negotiate" in str(error)


async def test_a_socks_proxy_that_takes_no_password_is_told() -> None:
    async with ProxyServer("socks5").open() as server:
        error = await fault_of(server.url_of("ann lee", "p:w"))
    assert error.fault is ProxyFault.OTHER_LOGIN
    assert "leave them out" in str(error)


async def test_a_login_longer_than_socks_can_say_is_refused() -> None:
    async with ProxyServer("socks5", LOGIN).open() as server:
        error = await fault_of(server.url_of("ann", "x" * 256))
    assert error.fault is ProxyFault.WRONG_PASSWORD


@pytest.mark.parametrize(
    ("kind", "reply", "fault"),
    [
        ("http", 403, ProxyFault.FORBIDDEN),
        ("http", 502, ProxyFault.HUB_UNREACHABLE),
        ("http", 503, ProxyFault.HUB_UNREACHABLE),
        ("http", 405, ProxyFault.NOT_A_PROXY),
        ("http", 429, ProxyFault.FAILED),
        ("socks5", 1, ProxyFault.FAILED),
        ("socks5", 2, ProxyFault.FORBIDDEN),
        ("socks5", 4, ProxyFault.HUB_UNREACHABLE),
        ("socks5", 5, ProxyFault.HUB_UNREACHABLE),
        ("socks5", 77, ProxyFault.FAILED),
    ],
)
async def test_a_refusal_is_named(kind: str, reply: int, fault: ProxyFault) -> None:
    async with ProxyServer(kind, reply=reply).open() as server:
        error = await fault_of(server.url)
    assert error.fault is fault
    assert str(reply) in str(error)
    assert "127.0.0.1:9" in str(error) or fault is ProxyFault.NOT_A_PROXY


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05",
        b"HTTP/1.1 200",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 ok\r\nx: " + b"x" * HEAD_LIMIT_BYTES + b"\r\n\r\n",
    ],
    ids=["nothing", "ssh", "half", "cut", "no status", "too long"],
)
async def test_what_is_no_proxy_is_named(kind: str, says: bytes) -> None:
    async with ProxyServer(kind, says=says).open() as server:
        assert (await fault_of(server.url)).fault is ProxyFault.NOT_A_PROXY


async def test_a_proxy_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = await fault_of(f"http://127.0.0.1:{port}")
    assert error.fault is ProxyFault.UNREACHABLE
    assert "refused" in str(error)
    assert (await fault_of("http://proxy.invalid:1")).fault is ProxyFault.UNREACHABLE


@pytest.mark.parametrize("kind", KINDS)
async def test_a_proxy_that_says_nothing_is_given_up(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{kind}://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ProxyFailed) as caught:
            await connect_through(parse_proxy(url), "127.0.0.1", 9, timeout_s=0.05)
    assert caught.value.fault is ProxyFault.HUB_UNREACHABLE


class TestJoining:
    @pytest.fixture
    async def hub(self, tmp_path: Path) -> AsyncIterator[JoinHub]:
        async with join_hub(tmp_path / "hub") as hub:
            yield hub

    @staticmethod
    async def join_behind(hub: JoinHub, folder: Path, proxy: str | None) -> AgentConfig:
        """Join a hub whose name resolves nowhere but at the proxy."""
        token = decode_token(await hub.token())
        port = hub.url.rpartition(":")[2]
        behind = JoinToken(hubs=(f"https://hub.behind:{port}",), pin=token.pin, secret=token.secret)
        text, state = encode_token(behind), StateDir(folder)
        return await asyncio.to_thread(lambda: join(text, state, proxy=proxy))

    @pytest.mark.parametrize("kind", [*KINDS, "https"])
    async def test_a_node_joins_through_every_kind_of_proxy(
        self, hub: JoinHub, tmp_path: Path, tls: ssl.SSLContext, kind: str
    ) -> None:
        server = ProxyServer(kind, LOGIN, names={"hub.behind": "127.0.0.1"})
        if kind == "https":
            server.kind, server.tls = "http", tls
        async with server.open():
            config = await self.join_behind(hub, tmp_path / "agent", server.url)
        assert len(server.targets) == 2
        assert {target.partition(":")[0] for target in server.targets} == {"hub.behind"}
        assert config.proxy == server.url
        assert load_config(StateDir(tmp_path / "agent")) == config
        assert StateDir(tmp_path / "agent").config.stat().st_mode & 0o777 == 0o600

    async def test_a_proxys_refusal_is_the_joins(self, hub: JoinHub, tmp_path: Path) -> None:
        async with ProxyServer("http", LOGIN).open() as server:
            with pytest.raises(JoinFailed, match=r"wants a user and password") as caught:
                await self.join_behind(hub, tmp_path / "agent", server.url_of(None))
        assert caught.value.reason is Reason.PROXY

    async def test_a_setting_that_is_no_proxy_is_refused(
        self, hub: JoinHub, tmp_path: Path
    ) -> None:
        with pytest.raises(JoinFailed) as caught:
            await self.join_behind(hub, tmp_path / "agent", "gopher://p")
        assert caught.value.reason is Reason.PROXY
