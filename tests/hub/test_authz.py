"""Roles and verbs: the table is what docs/design/api.md says."""

from __future__ import annotations

import pytest

from hub.authz import VERBS, Role, Subject, Verb, allows, authorize
from hub.errors import Forbidden
from hub.store.schema import ROLES


def subject(role: Role) -> Subject:
    return Subject("ann", role, "u1", "token", "t1")


def test_roles_are_those_of_the_schema_in_ascending_order() -> None:
    assert tuple(Role) == ROLES
    assert [role.rank for role in Role] == [0, 1, 2, 3]
    for lower, higher in zip(tuple(Role), tuple(Role)[1:], strict=False):
        assert VERBS[lower] < VERBS[higher]


def test_every_verb_belongs_to_the_lowest_role_that_api_md_names() -> None:
    lowest = {verb: min(role.rank for role in Role if verb in VERBS[role]) for verb in Verb}
    assert {verb for verb, rank in lowest.items() if rank == 0} == {Verb.VIEW, Verb.METRICS}
    assert {verb for verb, rank in lowest.items() if rank == 2} == {Verb.DEPLOY}
    assert {verb for verb, rank in lowest.items() if rank == 3} == {Verb.ADMIN}


def test_a_refusal_names_the_verb_and_the_node() -> None:
    with pytest.raises(Forbidden, match=r"does not allow shell on web-1") as caught:
        authorize(subject(Role.VIEWER), Verb.SHELL, "web-1")
    assert (caught.value.verb, caught.value.node) == ("shell", "web-1")
    authorize(subject(Role.OPERATOR), Verb.SHELL, "web-1")
    assert not allows(subject(Role.DEPLOYER), Verb.ADMIN)


def test_capped_is_the_lower_role() -> None:
    assert Role.ADMIN.capped(Role.VIEWER) == Role.VIEWER.capped(Role.ADMIN) == Role.VIEWER
