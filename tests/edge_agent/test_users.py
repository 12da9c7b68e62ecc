import os
import pwd

import pytest

from edge_agent.users import CannotBecome, UnknownUser, environment, find_account, own_name


async def test_without_a_name_it_is_the_agents_own_account() -> None:
    account = await find_account(None)
    assert account.uid == os.geteuid()
    assert account.is_own
    assert account.name == own_name()


async def test_an_unknown_user_is_refused_by_name() -> None:
    with pytest.raises(UnknownUser, match="no-such-user"):
        await find_account("no-such-user")
    with pytest.raises(UnknownUser):
        await find_account("nul\0name")


async def test_a_plain_agent_refuses_to_become_somebody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = pwd.getpwnam("daemon")
    monkeypatch.setattr(os, "geteuid", lambda: plain.pw_uid)
    with pytest.raises(CannotBecome) as refused:
        await find_account("root")
    assert str(refused.value) == "this agent runs as daemon and cannot become root"
    assert (await find_account("daemon")).is_own


async def test_the_environment_is_clean_except_for_what_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MOORING_SECRET", "x")
    env = environment(await find_account(None), {"A": "1", "TERM": "vt100"}, term="dumb")
    assert "MOORING_SECRET" not in env
    assert env["A"] == "1"
    assert env["TERM"] == "vt100"
    assert env["HOME"] == (await find_account(None)).home
