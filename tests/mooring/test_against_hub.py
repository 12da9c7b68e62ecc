"""The SDK and the command line against a real hub without nodes."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from mooring.sdk import AsyncClient, Client, Identity, TaskSpec, calls
from mooring.sdk import errors as e
from mooring.sdk.login import fetch_ca, fingerprint
from protocol.aio import StreamReset
from protocol.messages import ClientForward
from tests.mooring.conftest import Hub, Run


class TestSdk:
    def test_it_says_what_it_is(self, client: Client) -> None:
        assert client.call(calls.about()).name == "mooring"

    def test_lists_are_read_page_by_page(self, client: Client) -> None:
        for number in range(5):
            client.call(calls.create_api_token(f"page {number}", "viewer"))
        listing = calls.api_tokens()
        assert client.count(listing) >= 6
        assert len(list(client.each(listing, limit=3))) == 3
        whole = list(client.each(listing))
        cursor, paged = None, []
        while True:
            page = client.call(listing.page(cursor, 2))
            paged += page.items
            if (cursor := page.next_cursor) is None:
                break
        assert [token.id for token in paged] == [token.id for token in whole]

    def test_errors_are_told_apart_by_class(self, client: Client, hub: Hub) -> None:
        with pytest.raises(e.NotFound):
            client.call(calls.node("nosuch"))
        with pytest.raises(e.InvalidTarget):
            client.call(calls.run(TaskSpec(target="and and", argv=["true"])))
        with pytest.raises(e.NothingMatches):
            client.call(calls.run(TaskSpec(target="all", argv=["true"])))
        with Client(Identity(url=hub.who.url, ca_pem=hub.who.ca_pem)) as nobody:
            with pytest.raises(e.NotSignedIn):
                nobody.call(calls.task("x"))

    def test_a_hub_of_an_unknown_ca_is_not_trusted(self, hub: Hub) -> None:
        with Client(Identity(url=hub.who.url)) as stranger, pytest.raises(e.HubNotTrusted):
            stranger.call(calls.about())

    async def test_the_asynchronous_client_does_the_same(self, hub: Hub) -> None:
        async with AsyncClient(hub.who) as client:
            assert (await client.call(calls.about())).name == "mooring"
            users = [user.name async for user in client.each(calls.users())]
            assert "admin" in users
            with pytest.raises(e.NotFound):
                await client.call(calls.task("nosuch"))

    async def test_the_tunnel_opens_and_refuses_an_unknown_node(self, hub: Hub) -> None:
        async with AsyncClient(hub.who) as client, client.tunnel() as tunnel:
            stream = await tunnel.open(ClientForward(node="nosuch", host="localhost", port=1))
            with pytest.raises(StreamReset, match="nosuch"):
                await stream.read()

    async def test_the_tunnel_needs_a_token(self, hub: Hub) -> None:
        who = Identity(url=hub.who.url, ca_pem=hub.who.ca_pem, token="wrong")
        async with AsyncClient(who) as client:
            with pytest.raises(e.NotSignedIn):
                async with client.tunnel() as tunnel:
                    stream = await tunnel.open(ClientForward(node="n", host="h", port=1))
                    await stream.read()

    async def test_what_the_tunnels_user_raises_comes_out_as_it_is(self, hub: Hub) -> None:
        async with AsyncClient(hub.who) as client:
            with pytest.raises(ZeroDivisionError):
                async with client.tunnel():
                    raise ZeroDivisionError


class TestCommands:
    @pytest.mark.parametrize(
        ("words", "code"),
        [
            (("nodes",), 0),
            (("nodes", "status==online"), 4),
            (("nodes", "("), 2),
            (("nodes", "show", "nosuch"), 4),
            (("tasks", "list"), 0),
            (("tasks", "show", "nosuch"), 4),
            (("tasks", "watch", "nosuch"), 4),
            (("exec", "all", "--", "true"), 4),
            (("groups", "list"), 0),
            (("groups", "delete", "nosuch"), 4),
            (("sessions", "list"), 0),
            (("sessions", "kill", "nosuch"), 4),
            (("packages", "list"), 0),
            (("packages", "show", "nosuch@1"), 4),
            (("deploy", "nosuch", "all"), 4),
            (("metrics", "nosuch"), 4),
            (("users", "list"), 0),
            (("api-tokens", "list"), 0),
            (("token", "list"), 0),
            (("audit", "--limit", "5"), 0),
            (("shell", "nosuch"), 4),
            (("forward", "nosuch", "0:localhost:80"), 4),
            (("forward", "nosuch", "-R", "0:localhost:80"), 4),
            (("forward", "nosuch"), 2),
            (("forward", "nosuch", "80"), 2),
            (("socks", "nosuch", "0"), 4),
            (("socks", "nosuch", "x"), 2),
            (("forwards",), 0),
            (("forwards", "show", "nosuch"), 4),
            (("forwards", "close", "nosuch"), 4),
            (("links", "list"), 0),
            (("links", "add", "db", "--from", "nosuch:1", "--to", "nosuch:2"), 4),
            (("links", "add", "db", "--from", "nosuch", "--to", "nosuch:2"), 2),
            (("links", "add", "db", "--from", "nosuch:db:1", "--to", "nosuch:2"), 2),
            (("links", "add", "db"), 2),
            (("links", "show", "nosuch"), 4),
            (("links", "disable", "nosuch"), 4),
            (("links", "remove", "nosuch"), 4),
            (("publish", "nosuch", "80", "--name", "site"), 4),
            (("publish", "nosuch", "0", "--name", "site"), 2),
            (("publish", "nosuch", "80"), 2),
            (("publish", "nosuch", "80", "--name", "site", "--scheme", "ftp"), 2),
            (("published", "list"), 0),
            (("published", "show", "nosuch"), 4),
            (("published", "remove", "nosuch"), 4),
        ],
    )
    def test_exit_codes(self, mooring: Run, words: tuple[str, ...], code: int) -> None:
        done = mooring(*words)
        assert done.code == code, done.err
        assert bool(done.err) == (code != 0)

    def test_a_join_token_is_alone_on_stdout(self, mooring: Run) -> None:
        done = mooring("token", "create", "--uses", "2", "--ttl", "5m", "--label", "site=berlin")
        assert done.out.startswith("moor1.")
        assert len(done.out.split()) == 1
        made = json.loads(mooring("token", "create", "--json").out)
        assert made["token"].startswith("moor1.")

    def test_groups(self, mooring: Run) -> None:
        assert mooring("groups", "create", "web", "--description", "the front").code == 0
        assert mooring("groups", "create", "web").code == 1
        assert [g["name"] for g in json.loads(mooring("--json", "groups", "list").out)] == ["web"]
        assert mooring("groups", "add", "web", "nosuch").code == 4
        assert mooring("groups", "delete", "web", "--yes").code == 0

    def test_users_and_their_rights(self, mooring: Run, run: Run, hub: Hub) -> None:
        password = "correct horse battery"
        assert mooring("users", "create", "eve", "--role", "viewer", stdin=password).code == 0
        ca = str(hub.state / "ca.pem")
        login = ("login", hub.who.url, "--user", "eve", "--ca", ca)
        for name in hub.env:
            run("nodes", env={name: ""})
        assert run(*login, stdin="wrong").code == 3
        assert run(*login, stdin=password).code == 0
        assert run("nodes").code == 0
        done = run("users", "list")
        assert done.code == 3
        assert mooring("users", "remove", "eve").code == 0

    def test_login_keeps_a_token_for_its_owner_only(
        self, run: Run, hub: Hub, tmp_path: Path
    ) -> None:
        ca_pem = fetch_ca(hub.who.url)
        password = (hub.state / "admin-password").read_text()
        login = ("login", hub.who.url, "--user", "admin")
        done = run(*login, stdin=password)
        assert done.code == 5
        assert fingerprint(ca_pem) in done.err
        assert run(*login, "--fingerprint", "0" * 64, stdin=password).code == 5
        done = run(*login, "--fingerprint", f"sha256:{fingerprint(ca_pem)}", stdin=password)
        assert done.code == 0, done.err
        path = tmp_path / ".config" / "mooring" / "config.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert run("users", "list").code == 0

    def test_a_package_is_pushed_shown_and_removed(self, mooring: Run, tmp_path: Path) -> None:
        import tarfile

        path = tmp_path / "site-1.0.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(__file__, "content")
        done = mooring("--json", "packages", "push", str(path), "--description", "first")
        assert done.code == 0, done.err
        assert json.loads(done.out)["version"] == "1.0"
        assert "first" in mooring("packages", "show", "site@1.0").out
        assert mooring("packages", "remove", "site@1.0").code == 0
        assert mooring("packages", "show", "site@1.0").code == 4
