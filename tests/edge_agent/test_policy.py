from pathlib import Path

import pytest

from edge_agent.forward_rules import parse_address
from edge_agent.policy import Policy, PolicyFile, Refused, default_policy, own_addresses
from tests.edge_agent.conftest import write_policy


def forwards(*rules: str) -> Policy:
    return Policy(verbs=["forward"], users=[], forward=list(rules))


def test_by_default_everything_but_forwards_elsewhere_is_allowed() -> None:
    policy = default_policy()
    policy.allow_exec("root")
    policy.allow_shell("daemon")
    policy.allow_deploy()
    policy.allow_forward("localhost", "127.0.0.1", 22)
    policy.allow_forward("::1", "::1", 22)
    policy.allow_forward("0.0.0.0", "0.0.0.0", 22)
    with pytest.raises(Refused, match="forward"):
        policy.allow_forward("example.org", "192.0.2.99", 80)


def test_the_nodes_own_addresses_are_the_node() -> None:
    for address in own_addresses():
        if not address.startswith(("fe80", "169.254")):
            default_policy().allow_forward(address, address, 443)


def test_a_verb_that_is_not_listed_is_refused_by_name() -> None:
    policy = Policy(verbs=["forward"], users=["*"], forward=[])
    with pytest.raises(Refused, match='"exec"'):
        policy.allow_exec("root")
    with pytest.raises(Refused, match='"shell"'):
        policy.allow_shell("root")
    with pytest.raises(Refused, match='"deploy"'):
        policy.allow_deploy()


def test_a_user_that_is_not_listed_is_refused_by_name() -> None:
    policy = Policy(verbs=["exec", "shell"], users=["www-data"], forward=[])
    policy.allow_exec("www-data")
    with pytest.raises(Refused, match="'root'"):
        policy.allow_shell("root")


@pytest.mark.parametrize(
    ("rule", "host", "address", "port"),
    [
        ("node:22", "127.0.0.1", "127.0.0.1", 22),
        ("10.0.0.0/8:8000-8999", "10.1.2.3", "10.1.2.3", 8500),
        ("10.1.2.3", "db", "10.1.2.3", 1),
        ("db.internal:5432", "DB.internal.", "192.0.2.1", 5432),
        ("[fd00::/8]:443", "x", "fd00::5", 443),
        ("fd00::5", "x", "fd00::5", 443),
        ("*:443", "x", "203.0.113.1", 443),
        ("10.0.0.0/8", "x", "::ffff:10.0.0.1", 80),
        ("169.254.169.254:80", "x", "169.254.169.254", 80),
        ("169.254.0.0/16", "x", "169.254.1.1", 80),
    ],
)
def test_a_rule_covers_its_targets(rule: str, host: str, address: str, port: int) -> None:
    forwards(rule).allow_forward(host, address, port)


@pytest.mark.parametrize(
    ("rule", "host", "address", "port"),
    [
        ("node:22", "127.0.0.1", "127.0.0.1", 23),
        ("10.0.0.0/8:8000-8999", "10.1.2.3", "10.1.2.3", 9000),
        ("10.0.0.0/8", "x", "11.0.0.1", 80),
        ("db.internal", "db.internal.evil.example", "192.0.2.1", 80),
        ("*", "x", "169.254.169.254", 80),
        ("*", "x", "::ffff:169.254.169.254", 80),
        ("0.0.0.0/0", "x", "169.254.169.254", 80),
        ("::/0", "x", "fe80::1%eth0", 80),
        ("*", "x", "100.100.100.200", 80),
        ("metadata", "metadata", "169.254.169.254", 80),
        ("node", "x", "192.0.2.99", 80),
    ],
)
def test_a_rule_covers_nothing_else(rule: str, host: str, address: str, port: int) -> None:
    with pytest.raises(Refused):
        forwards(rule).allow_forward(host, address, port)


@pytest.mark.parametrize(
    "rule",
    ["", "10.0.0.0/33", "10.0.0.1/8", "node:0", "node:70000", "node:9-2", "node:x", "[::1", "a b"],
)
def test_a_wrong_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="forward rule"):
        forwards(rule)


def test_a_change_of_the_file_counts_at_the_next_check(tmp_path: Path) -> None:
    file = write_policy(tmp_path / "policy.json", default_policy())
    file.current().allow_exec("root")
    write_policy(tmp_path / "policy.json", Policy(verbs=[], users=[], forward=[]))
    with pytest.raises(Refused):
        file.current().allow_exec("root")
    assert file.verbs() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"verbs":["exec"],"users":["*"]}',
        '{"verbs":["fly"],"users":["*"],"forward":[]}',
        '{"verbs":["exec"],"users":["*"],"forward":[],"extra":1}',
        '{"verbs":["exec"],"users":["*"],"forward":["10.0.0.0/99"]}',
    ],
)
def test_a_wrong_file_denies_everything_and_says_where(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(Refused, match=r"policy\.json"):
        PolicyFile(path).current()
    assert PolicyFile(path).verbs() == []


def test_a_missing_file_denies_everything(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="missing"):
        PolicyFile(tmp_path / "policy.json").current()


def test_a_file_that_others_can_write_denies_everything(tmp_path: Path) -> None:
    file = write_policy(tmp_path / "policy.json", default_policy())
    file.current()
    (tmp_path / "policy.json").chmod(0o666)
    with pytest.raises(Refused, match="chmod 600"):
        file.current()


def listens(*rules: str) -> Policy:
    return Policy(verbs=["forward"], users=[], forward=[], listen=list(rules))


@pytest.mark.parametrize(
    ("rule", "address", "port"),
    [
        ("127.0.0.1:1024-65535", "127.0.0.1", 8080),
        ("[::1]:8080", "::1", 8080),
        ("10.0.0.0/8:8000-8999", "10.1.2.3", 8000),
        ("0.0.0.0:443", "0.0.0.0", 443),
        ("*:443", "0.0.0.0", 443),
        ("*", "::", 1),
    ],
)
def test_a_listen_rule_covers(rule: str, address: str, port: int) -> None:
    listens(rule).allow_listen(parse_address(address), port)


@pytest.mark.parametrize(
    ("rule", "address", "port"),
    [
        ("127.0.0.1:1024-65535", "127.0.0.1", 80),
        ("127.0.0.1", "0.0.0.0", 8080),
        ("127.0.0.0/8", "::1", 8080),
        ("10.0.0.0/8", "0.0.0.0", 8080),
        ("*:443", "127.0.0.1", 80),
    ],
)
def test_a_listen_rule_covers_nothing_else(rule: str, address: str, port: int) -> None:
    with pytest.raises(Refused, match="listen"):
        listens(rule).allow_listen(parse_address(address), port)


def test_a_policy_without_listen_opens_no_port(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"verbs": ["forward"], "users": [], "forward": ["node"]}')
    path.chmod(0o600)
    with pytest.raises(Refused, match=r'add "127\.0\.0\.1:8080"'):
        PolicyFile(path).current().allow_listen(parse_address("127.0.0.1"), 8080)


def test_listening_needs_the_verb_forward() -> None:
    policy = Policy(verbs=["exec"], users=[], forward=[], listen=["*"])
    with pytest.raises(Refused, match='"forward" under "verbs"'):
        policy.allow_listen(parse_address("127.0.0.1"), 8080)


@pytest.mark.parametrize("rule", ["node:80", "web-1:80", "127.0.0.1:0", "", "10.0.0.0/33"])
def test_a_listen_rule_that_is_none_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="rule"):
        listens(rule)
