from __future__ import annotations

import pytest
import typer

from mooring.cli.places import Place, Route, check_bind, listening, on_node, route, target


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8080:localhost:80", Route(Place("127.0.0.1", 8080), Place("localhost", 80))),
        ("0:10.0.0.7:5432", Route(Place("127.0.0.1", 0), Place("10.0.0.7", 5432))),
        ("0.0.0.0:8080:db:5432", Route(Place("0.0.0.0", 8080), Place("db", 5432))),
        ("[::1]:8080:[fe80::1]:22", Route(Place("::1", 8080), Place("fe80::1", 22))),
    ],
)
def test_a_forward_is_written_like_in_ssh(text: str, wanted: Route) -> None:
    assert route(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "80", "80:web", "a:b:c", "80:web:0", "70000:web:80", "80:web:80:x", "::1:1:a:1", "", ":::",
        "8080:[::1:80", "8080:we b:80", f"{'9' * 5000}:web:80", "-1:web:80", "８０:web:80",
    ],
)  # fmt: skip
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        route(text)


def test_a_place_to_listen_on_is_loopback_unless_it_says_otherwise() -> None:
    assert listening("1080") == Place("127.0.0.1", 1080)
    assert listening("0") == Place("127.0.0.1", 0)
    assert listening("[::]:1080") == Place("::", 1080)
    for text in ("", "x", "1080:", "::1:1080", "65536"):
        with pytest.raises(typer.BadParameter):
            listening(text)


def test_nobody_connects_to_port_0() -> None:
    assert target("db:1") == Place("db", 1)
    with pytest.raises(typer.BadParameter):
        target("db:0")


def test_a_place_on_a_node_begins_with_its_name() -> None:
    assert on_node("web-1:8080") == ("web-1", Place("127.0.0.1", 8080))
    assert on_node("web-1:[::1]:80") == ("web-1", Place("::1", 80))
    assert on_node("db.x_1:db.internal:5432") == ("db.x_1", Place("db.internal", 5432))
    for text in ("web-1", "8080", "web-1:", "web-1:a:b:1", ":80", "web-1:0"):
        with pytest.raises(typer.BadParameter):
            on_node(text)


def test_a_node_listens_on_addresses_only() -> None:
    for host in ("127.0.0.1", "0.0.0.0", "::", "localhost", "*"):
        assert check_bind(Place(host, 1)) == Place(host, 1)
    with pytest.raises(typer.BadParameter):
        check_bind(Place("web-1", 1))


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    assert [str(Place("::1", 80)), str(Place("db", 80))] == ["[::1]:80", "db:80"]
