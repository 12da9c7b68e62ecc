"""Which headers pass between a browser and a published service, and in which form."""

from __future__ import annotations

import pytest

from hub.published.headers import Place, to_browser, to_service

HOST_MODE = Place("app.test:8443", "", "127.0.0.1:80", "http://127.0.0.1:80", "olga", "192.0.2.1")
PATH_MODE = Place(
    "hub.test", "/published/app/~KEY", "127.0.0.1:80", "http://127.0.0.1:80", "olga", "192.0.2.1"
)
both_modes = pytest.mark.parametrize("place", [HOST_MODE, PATH_MODE], ids=["host", "path"])


def sent(place: Place, *headers: tuple[str, str]) -> list[tuple[str, str]]:
    """What the service gets of a browser's headers."""
    passed = to_service([(n.encode(), v.encode()) for n, v in headers], place)
    return [(name.decode(), value.decode()) for name, value in passed]


def shown(place: Place, *headers: tuple[str, str]) -> list[tuple[str, str]]:
    """What the browser gets of a service's headers."""
    passed = to_browser([(n.encode(), v.encode()) for n, v in headers], place)
    return [(name.decode(), value.decode()) for name, value in passed]


@both_modes
def test_the_service_is_told_who_asks_and_cannot_be_lied_to(place: Place) -> None:
    lies = ["X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Prefix",
            "X-Forwarded-User", "X-Mooring-User", "X_Mooring_User", "X_Forwarded-For",
            "X-Real-IP", "Forwarded", "Host"]  # fmt: skip
    passed = sent(place, *((name, "lie") for name in lies))
    assert "lie" not in [value for _, value in passed]
    told = dict(passed)
    assert told["x-mooring-user"] == "olga"
    assert (told["x-forwarded-for"], told["x-forwarded-proto"]) == ("192.0.2.1", "https")
    assert (told["x-forwarded-host"], told["host"]) == (place.host, "127.0.0.1:80")
    assert told.get("x-forwarded-prefix", "") == place.prefix


@both_modes
def test_hop_by_hop_headers_pass_neither_way(place: Place) -> None:
    headers = [("Connection", "close, X-Named"), ("X-Named", "1"), ("Keep-Alive", "1"),
               ("TE", "1"), ("Trailer", "1"), ("Transfer-Encoding", "chunked"), ("Upgrade", "x"),
               ("Proxy-Authorization", "1"), ("Proxy-Authenticate", "1"),
               ("Expect", "1")]  # fmt: skip
    assert set(dict(sent(place, *headers))) == set(dict(sent(place)))
    assert shown(place, *headers) == shown(place)


@both_modes
def test_a_length_is_no_hop_by_hop_header_whoever_says_so(place: Place) -> None:
    headers = [("Connection", "content-length"), ("Content-Length", "5")]
    assert dict(sent(place, *headers))["content-length"] == "5"
    assert dict(shown(place, *headers))["content-length"] == "5"


def test_the_hubs_credentials_never_reach_a_service() -> None:
    cookies = "a=1; __Host-mooring=x; __host-Mooring-published=y; b=2; __Host-own=3"
    headers = [("Cookie", cookies), ("Authorization", "Bearer moor_abc")]
    passed = dict(sent(HOST_MODE, *headers))
    assert passed["cookie"] == "a=1; b=2; __Host-own=3"
    assert "authorization" not in passed
    own = dict(sent(HOST_MODE, ("Authorization", "Basic eDp5")))
    assert own["authorization"] == "Basic eDp5"


def test_below_the_hub_no_cookie_credential_or_address_passes() -> None:
    headers = [("Cookie", "a=1"), ("Authorization", "Basic eDp5"), ("Sec-Fetch-Site", "none"),
               ("Referer", "https://hub.test/published/app/~KEY/")]  # fmt: skip
    assert set(dict(sent(PATH_MODE, *headers))) == set(dict(sent(PATH_MODE)))
    answer = [("Set-Cookie", "a=1"), ("WWW-Authenticate", "Basic realm=Mooring")]
    assert shown(PATH_MODE, *answer) == shown(PATH_MODE)


@both_modes
def test_the_origin_fits_the_host_that_the_service_is_told(place: Place) -> None:
    assert dict(sent(place, ("Origin", place.origin)))["origin"] == "http://127.0.0.1:80"
    assert "origin" not in dict(sent(place))


@both_modes
def test_what_would_outlast_or_leave_the_service_is_dropped(place: Place) -> None:
    harmful = ["Strict-Transport-Security", "Alt-Svc", "Clear-Site-Data", "NEL", "Report-To",
               "Reporting-Endpoints", "Service-Worker-Allowed", "Public-Key-Pins", "Set-Cookie2",
               "X-Accel-Redirect", "X-Sendfile"]  # fmt: skip
    assert shown(place, *((name, "x") for name in harmful)) == shown(place)


def test_below_the_hub_only_known_headers_pass() -> None:
    headers = [("Content-Type", "text/html"), ("ETag", "1"), ("X-Total", "2"),
               ("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Credentials", "1"),
               ("Cross-Origin-Resource-Policy", "same-origin"), ("Accept-CH", "x"),
               ("Referrer-Policy", "unsafe-url"), ("Refresh", "0;url=/"),
               ("Link", "</a>")]  # fmt: skip
    passed = shown(PATH_MODE, *headers)
    assert passed[:3] == [("content-type", "text/html"), ("etag", "1"), ("x-total", "2")]
    assert passed[3:] == shown(PATH_MODE)


@pytest.mark.parametrize(
    ("cookie", "kept"),
    [
        ("a=1; Path=/x; Secure", "a=1; Path=/x; Secure"),
        ("a=1; Domain=test; HttpOnly", "a=1; HttpOnly"),
        ("a=1;DOMAIN = hub.test", "a=1"),
        ("__Host-mooring=x; Path=/; Secure", None),
        ("__HOST-Mooring-Published=x; Path=/; Secure", None),
        (" __Host-mooring=x", None),
        ("=__Host-mooring=x", None),
        ("__Host-mooring", None),
        ("", None),
    ],
)
def test_a_cookie_stays_on_its_host_and_takes_no_reserved_name(
    cookie: str, kept: str | None
) -> None:
    expected = [] if kept is None else [("set-cookie", kept)]
    assert shown(HOST_MODE, ("Set-Cookie", cookie)) == expected


@pytest.mark.parametrize(
    ("location", "at_host", "below_hub"),
    [
        ("/login?a=b", "/login?a=b", "/published/app/~KEY/login?a=b"),
        ("http://127.0.0.1:80/login", "/login", "/published/app/~KEY/login"),
        ("https://127.0.0.1:80", "/", "/published/app/~KEY/"),
        ("http://127.0.0.1:80?a", "/?a", "/published/app/~KEY/?a"),
        ("login", "login", "login"),
        ("/published/app/~KEY/a", "/published/app/~KEY/a", "/published/app/~KEY/a"),
        ("https://elsewhere.test/", "https://elsewhere.test/", "https://elsewhere.test/"),
        ("//elsewhere.test/", "//elsewhere.test/", "//elsewhere.test/"),
        ("http://127.0.0.1:80.evil.test/", "http://127.0.0.1:80.evil.test/",
         "http://127.0.0.1:80.evil.test/"),
    ],
)  # fmt: skip
def test_a_redirect_to_the_services_own_address_leads_to_where_it_is_published(
    location: str, at_host: str, below_hub: str
) -> None:
    for place, expected in ((HOST_MODE, at_host), (PATH_MODE, below_hub)):
        assert dict(shown(place, ("Location", location)))["location"] == expected


def test_a_length_beside_chunks_is_dropped() -> None:
    headers = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")]
    assert shown(HOST_MODE, *headers) == []
