"""Who may do what: one table from role to verbs, asked by every route, socket and fan-out step.

The rule it guards: nothing is done for a subject without `authorize(subject, verb, node)`. Each
role includes the one before it. A node's own policy is asked again by its agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from hub.errors import Forbidden


class Verb(StrEnum):
    """What a subject may be allowed to do; the values appear in `forbidden` problems."""

    VIEW = "view"
    METRICS = "metrics"
    EXEC = "exec"
    EXEC_ROOT = "exec.root"
    SHELL = "shell"
    FORWARD = "forward"
    GROUPS = "groups"
    DEPLOY = "deploy"
    ADMIN = "admin"


class Role(StrEnum):
    """Roles in ascending order; each includes the verbs of those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    DEPLOYER = "deployer"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """Position in the ascending order, from 0."""
        return _RANKS[self]

    def capped(self, limit: Role) -> Role:
        """Return the lower of the two roles."""
        return self if self.rank <= limit.rank else limit


_RANKS = {role: rank for rank, role in enumerate(Role)}

_VIEWER = frozenset({Verb.VIEW, Verb.METRICS})
_OPERATOR = _VIEWER | {Verb.EXEC, Verb.EXEC_ROOT, Verb.SHELL, Verb.FORWARD, Verb.GROUPS}
_DEPLOYER = _OPERATOR | {Verb.DEPLOY}
_ADMIN = _DEPLOYER | {Verb.ADMIN}

VERBS: dict[Role, frozenset[Verb]] = {
    Role.VIEWER: _VIEWER,
    Role.OPERATOR: _OPERATOR,
    Role.DEPLOYER: _DEPLOYER,
    Role.ADMIN: _ADMIN,
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who calls: a user, with the role this credential gives."""

    name: str
    role: Role
    user_id: str
    via: Literal["session", "token", "link"]
    credential: str
    """The id of the API token, the stored hash of the browser session (never the secret), or the
    name of the link that acts for its declarer."""
    address: str = ""


def allows(subject: Subject, verb: Verb) -> bool:
    """Say whether the subject's role includes the verb."""
    return verb in VERBS[subject.role]


def authorize(subject: Subject, verb: Verb, node: str | None = None) -> None:
    """Check one act, on a node by name where it touches one.

    Raises:
        Forbidden: the subject's role does not include the verb.
    """
    if verb not in VERBS[subject.role]:
        raise Forbidden(verb.value, node)
