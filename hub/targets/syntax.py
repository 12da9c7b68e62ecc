"""Expressions of the target language as values; `str(expression)` is text that parses to it again.

An expression is frozen and hashable. `And` and `Or` hold two parts or more; nesting is at most
`parse.DEPTH_LIMIT` deep, so that walking it by recursion is safe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, assert_never

Equality: TypeAlias = Literal["==", "!="]
Operator: TypeAlias = Literal["==", "!=", "<", "<=", ">", ">="]

_WORD = re.compile(r"[A-Za-z0-9_.:/@+~%*-]+")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class All:
    """Every node."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True, slots=True)
class Name:
    """A node's name, or a glob over names."""

    pattern: str

    @property
    def is_glob(self) -> bool:
        """Whether it may match more than one name."""
        return _GLOB.search(self.pattern) is not None

    def __str__(self) -> str:
        return self.pattern


@dataclass(frozen=True, slots=True)
class Group:
    """The members of a group."""

    name: str

    def __str__(self) -> str:
        return f"group:{self.name}"


@dataclass(frozen=True, slots=True)
class Id:
    """The node with this UUID, in lower case."""

    id: str

    def __str__(self) -> str:
        return f"id:{self.id}"


@dataclass(frozen=True, slots=True)
class Regex:
    """Nodes in whose name the pattern is found."""

    pattern: str

    def __str__(self) -> str:
        return f"~{_quote(self.pattern)}"


@dataclass(frozen=True, slots=True)
class HasStatus:
    """Nodes with this status."""

    operator: Equality
    value: str

    def __str__(self) -> str:
        return f"status{self.operator}{self.value}"


@dataclass(frozen=True, slots=True)
class Label:
    """Nodes whose label has this value; `!=` is the opposite of `==`, so it includes unlabelled."""

    key: str
    operator: Equality
    value: str

    def __str__(self) -> str:
        return f"label.{self.key}{self.operator}{_value(self.value)}"


@dataclass(frozen=True, slots=True)
class Fact:
    """Nodes whose fact compares so; of a list any element may."""

    key: str
    """Dotted path into `Facts`: os_id, disks.0.size_bytes, disks.mount."""
    operator: Operator
    value: str

    def __str__(self) -> str:
        return f"fact.{self.key}{self.operator}{_value(self.value)}"


@dataclass(frozen=True, slots=True)
class Package:
    """Nodes on which the package is installed in such a version."""

    name: str
    operator: Operator
    version: str

    def __str__(self) -> str:
        return f"pkg.{self.name}{self.operator}{_value(self.version)}"


@dataclass(frozen=True, slots=True)
class Not:
    """Nodes that the part does not match."""

    part: Expression

    def __str__(self) -> str:
        return f"not {_operand(self.part)}"


@dataclass(frozen=True, slots=True)
class And:
    """Nodes that every part matches; two parts or more."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " and ".join(map(_operand, self.parts))


@dataclass(frozen=True, slots=True)
class Or:
    """Nodes that some part matches; two parts or more."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        return " or ".join(map(_operand, self.parts))


Leaf: TypeAlias = All | Name | Group | Id | Regex | HasStatus | Label | Fact | Package
Expression: TypeAlias = Leaf | Not | And | Or


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    """Return the expressions directly inside this one."""
    match expression:
        case And(parts) | Or(parts):
            return parts
        case Not(part):
            return (part,)
        case All() | Name() | Group() | Id() | Regex() | HasStatus() | Label() | Fact() | Package():
            return ()
        case _:
            assert_never(expression)


def _operand(expression: Expression) -> str:
    return f"({expression})" if isinstance(expression, And | Or) else str(expression)


def _value(text: str) -> str:
    return text if _WORD.fullmatch(text) else _quote(text)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquote(text: str) -> str:
    r"""Undo the quotes around `text`: `\"` is a quote and `\\` a backslash."""
    return re.sub(r"\\([\"\\])", r"\1", text[1:-1])
