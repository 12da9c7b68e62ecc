from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequest
from hub.node_names import check_name, name_from_hostname


@pytest.mark.parametrize("name", ["a", "web-1", "db.example.com", "A_1", "9", "x" * 64, "allow"])
def test_good_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "a\n", "ä", "x" * 65, "all", "NOT"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name)


@given(st.text(max_size=300))
def test_any_host_name_becomes_a_good_name(hostname: str) -> None:
    check_name(name_from_hostname(hostname))
