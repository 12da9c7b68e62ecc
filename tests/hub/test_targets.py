"""The target language: what parses, what is refused and where, what matches."""

from __future__ import annotations

import string
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import InvalidTarget, NothingMatches
from hub.nodeview import NodeDisk, NodeFacts, NodePackage, NodeView, Status
from hub.targets import evaluate, parse, syntax
from hub.targets.regexes import NAME_LIMIT, RefusedRegex, compile_regex
from hub.targets.versions import version_key

WEB_1 = NodeView(
    id="8f14e45f-ceea-467f-9575-6c0a1b2c3d4e",
    name="web-1",
    status=Status.ONLINE,
    status_since=1.0,
    created_at=0.0,
    labels={"env": "prod", "rack": "r 7"},
    groups=("eu", "web"),
    facts=NodeFacts(
        hostname="web-1",
        os_id="debian",
        os_version="3.18",
        cpus=16,
        memory_bytes=8 * 2**30,
        addresses=["10.0.0.1", "10.0.0.2"],
        disks=[NodeDisk(mount="/", size_bytes=100), NodeDisk(mount="/data", size_bytes=2000)],
    ),
    packages=(NodePackage(name="shop", version="1.10.0"),),
)
WEB_2 = NodeView(
    id="c9f0f895-fb98-4b91-99f5-1fd02a3b4c5d",
    name="web-2",
    status=Status.OFFLINE,
    status_since=1.0,
    created_at=0.0,
    labels={"env": "test"},
    groups=("web",),
    facts=NodeFacts(hostname="web-2", os_id="alpine", os_version="3.9", cpus=2),
    packages=(NodePackage(name="shop", version="1.9.3"),),
)
DB_1 = NodeView(
    id="45c48cce-2e2d-4fbd-aa1a-fc51c7c6ad26",
    name="db-1",
    status=Status.NEVER,
    status_since=1.0,
    created_at=0.0,
)
NODES = [DB_1, WEB_1, WEB_2]


def names(target: str) -> str:
    return " ".join(node.name for node in evaluate(parse(target), NODES, {"web", "eu", "empty"}))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("all", "db-1 web-1 web-2"),
        ("web-1", "web-1"),
        ("web-*", "web-1 web-2"),
        ("*-[!2]", "db-1 web-1"),
        ("group:web", "web-1 web-2"),
        ("group:empty", ""),
        ("id:8F14E45F-CEEA-467F-9575-6C0A1B2C3D4E", "web-1"),
        ("label.env==prod", "web-1"),
        ('label.rack == "r 7"', "web-1"),
        ("label.env!=prod", "db-1 web-2"),
        ("fact.os_id==debian", "web-1"),
        ("fact.cpus>2", "web-1"),
        ("fact.cpus<10", "db-1 web-2"),
        ("fact.cpus<=2.0", "db-1 web-2"),
        ("fact.memory_bytes>=8589934592", "web-1"),
        ("fact.os_version>3.10", "web-1"),
        ("fact.addresses==10.0.0.2", "web-1"),
        ("fact.addresses!=10.0.0.2", "db-1 web-2"),
        ("fact.disks.1.mount==/data", "web-1"),
        ("fact.disks.size_bytes>1000", "web-1"),
        ("fact.disks.9.mount==/", ""),
        ("fact.hostname.x==web-1", ""),
        ("pkg.shop==1.10", "web-1"),
        ("pkg.shop<1.10", "web-2"),
        ("pkg.shop!=1.9.3", "db-1 web-1"),
        ("status==online", "web-1"),
        ("status!=online", "db-1 web-2"),
        ("~^w.*1$", "web-1"),
        ("~eb", "web-1 web-2"),
        ("(~^(web|db)-1$) and status==never", "db-1"),
        ("not web-1 and not db-1", "web-2"),
        ("web-1 or db-1 and web-*", "web-1"),
        ("(web-1 or db-1) and not group:web", "db-1"),
    ],
)
def test_matches(target: str, expected: str) -> None:
    assert names(target) == expected


@pytest.mark.parametrize("target", ["web-9", "all or web-9", "group:nope", "id:00", "not web-9"])
def test_a_name_group_or_id_that_does_not_exist_is_an_error_wherever_it_stands(target: str) -> None:
    with pytest.raises(NothingMatches):
        names(target)


@pytest.mark.parametrize(
    ("target", "column", "says"),
    [
        ("", 1, "a name"),
        ("web andfoo", 5, "'and'"),
        ("web web", 5, "'or', 'and', the end"),
        ("label.env=prod", 10, "== or !="),
        ("label.env<3", 10, "== or !="),
        ("status==gone", 9, "quarantined"),
        ("all and fact.colour==red", 14, "facts are"),
        ("(web", 5, "')'"),
        ("web)", 4, "the end"),
        ("and", 1, "a name"),
        ("not", 4, "a name"),
        ("web or\n @", 9, "a name"),
        ("~(a+)+", 2, "too many ways"),
        ('web and ~"(?=a)"', 12, "'?='"),
        ("~[z-a]", 3, "bad character range"),
        ("web" + "\x1e" * 20 + "x", 4, "found 'x'"),
    ],
)
def test_an_error_points_at_its_column(target: str, column: int, says: str) -> None:
    with pytest.raises(InvalidTarget) as caught:
        parse(target)
    assert caught.value.column == column
    assert says in str(caught.value)


def test_length_and_depth_are_bounded() -> None:
    with pytest.raises(InvalidTarget, match="2048"):
        parse("a" * 2049)
    with pytest.raises(InvalidTarget, match="deeper"):
        parse("not " * 70 + "a")
    assert parse("(" * 1000 + "a" + ")" * 1000) == syntax.Name("a")
    wide = parse(" or ".join(["a"] * 400))
    assert isinstance(wide, syntax.Or) and len(wide.parts) == 400


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*$",
        "a*a*a*b",
        "(a?){60}",
        r"(a)\1",
        "(?:a*)*",
        "a" * 257,
        "a**",
        "[[]",
        "x{9",
    ],
)
def test_dangerous_and_unknown_regexes_are_refused(pattern: str) -> None:
    with pytest.raises(RefusedRegex):
        compile_regex(pattern)


@pytest.mark.parametrize(
    "pattern", [r"^web-\d+\.(eu|us)$", "a.*b.*", "[^-]+x?", r"\bdb\b", "(?:a)?"]
)
def test_usual_regexes_are_taken(pattern: str) -> None:
    assert compile_regex(pattern).pattern == pattern


@given(st.text("ab(|)*+?{1,3}.[]^-\\d", max_size=24))
def test_what_is_taken_searches_soon(pattern: str) -> None:
    try:
        compiled = compile_regex(pattern)
    except RefusedRegex:
        return
    start = time.process_time()
    compiled.search("a" * (NAME_LIMIT - 1) + "!")
    assert time.process_time() - start < 1.0


def test_versions_are_ordered() -> None:
    ascending = [
        "", "0.9", "1.0-alpha", "1.0-alpha.1", "1.0-alpha.beta", "1.0-beta.2",
        "1.0-beta.11", "1.0-rc.1", "1.0", "1.0-1", "1.0.1", "1.9.3", "1.10", "v2", "1:0.1",
    ]  # fmt: skip
    assert sorted(sorted(ascending), key=version_key) == ascending
    assert version_key("1.0") == version_key("v1.0.0")
    assert version_key("1.0rc1") < version_key("1.0") < version_key("1.0+build.5")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_two_texts_are_comparable(one: str, other: str) -> None:
    left, right = version_key(one), version_key(other)
    assert (left < right) + (left == right) + (left > right) == 1


KEYS = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=12)
NAMES = st.text(string.ascii_letters + string.digits + "._-*?", min_size=1, max_size=12).filter(
    lambda name: name not in ("and", "or", "not", "all")
)
EQUALITY = st.sampled_from(["==", "!="])
OPERATORS = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
VALUES = st.text(max_size=12)
LEAVES = st.one_of(
    st.just(syntax.All()),
    st.builds(syntax.Name, NAMES),
    st.builds(syntax.Group, KEYS),
    st.builds(syntax.Id, st.uuids().map(str)),
    st.builds(syntax.Regex, st.sampled_from(["^a", "a b", 'x"y', r"\.\d+$", "(a|b)", "[)(]"])),
    st.builds(syntax.HasStatus, EQUALITY, st.sampled_from(list(Status)).map(str)),
    st.builds(syntax.Label, KEYS, EQUALITY, VALUES),
    st.builds(syntax.Fact, st.sampled_from(["os_id", "disks.0.mount"]), OPERATORS, VALUES),
    st.builds(syntax.Package, KEYS, OPERATORS, VALUES),
)


def _compound(parts: st.SearchStrategy[syntax.Expression]) -> st.SearchStrategy[syntax.Expression]:
    several = st.lists(parts, min_size=2, max_size=4).map(tuple)
    return st.one_of(
        st.builds(syntax.Not, parts), st.builds(syntax.And, several), st.builds(syntax.Or, several)
    )


@given(st.recursive(LEAVES, _compound, max_leaves=12))
def test_an_expression_printed_and_parsed_is_itself(expression: syntax.Expression) -> None:
    assert parse(str(expression)) == expression


PIECES = st.sampled_from(
    ["all", "and", "or", "not", "(", ")", "~", '"', "\\", "group:", "fact.cpus", "==", "<", "web-*",
     "label.a", " ", "[", "1.2", "status", "id:ab", "pkg.x", "\n", "é", "\x00"]
)  # fmt: skip


@given(st.text(max_size=60) | st.lists(PIECES, max_size=20).map("".join))
def test_any_text_gives_an_expression_or_invalid_target(text: str) -> None:
    try:
        expression = parse(text)
    except InvalidTarget as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert parse(str(expression)) == expression


def test_many_slow_regexes_end_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["hub.targets.evaluate"], "REGEX_BUDGET_S", -1.0)
    with pytest.raises(InvalidTarget, match="take too long"):
        names("~a")
