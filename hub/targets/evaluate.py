"""Which nodes an expression matches.

The rule it guards: a typing error is never silently an empty answer. A name, id or group that does
not exist raises `NothingMatches` wherever it stands; anything else may match none, and whoever acts
on the answer raises the same for an empty list (`Nodes.select` does).

An expression is turned into one predicate, so that thousands of nodes cost a call each.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from typing import Any, assert_never

import msgspec

from hub.errors import InvalidTarget, NothingMatches
from hub.nodeview import NodeView
from hub.targets import syntax
from hub.targets.regexes import compile_regex
from hub.targets.versions import version_key

Predicate = Callable[[NodeView], bool]

REGEX_BUDGET_S = 0.25
"""What all regex searches of one evaluation may take: it holds up the hub's loop."""

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def evaluate(
    expression: syntax.Expression,
    nodes: Iterable[NodeView],
    groups: Collection[str] | None = None,
) -> list[NodeView]:
    """Return the nodes that match, in the order given.

    `groups` are all groups there are, the empty ones too; without it, those of the nodes.

    Raises:
        NothingMatches: a name, id or group in the expression does not exist.
        InvalidTarget: its regexes take too long on so many nodes.
    """
    candidates = nodes if isinstance(nodes, Collection) else list(nodes)
    if groups is None:
        groups = {group for node in candidates for group in node.groups}
    _check_references(expression, candidates, groups)
    matches = _predicate(expression, time.monotonic() + REGEX_BUDGET_S)
    return [node for node in candidates if matches(node)]


def _check_references(
    expression: syntax.Expression, nodes: Collection[NodeView], groups: Collection[str]
) -> None:
    leaves = list(_leaves(expression))
    names = {leaf.pattern for leaf in leaves if isinstance(leaf, syntax.Name) and not leaf.is_glob}
    ids = {leaf.id for leaf in leaves if isinstance(leaf, syntax.Id)}
    if names:
        names -= {node.name for node in nodes}
    if ids:
        ids -= {node.id for node in nodes}
    missing_groups = {leaf.name for leaf in leaves if isinstance(leaf, syntax.Group)} - set(groups)
    unknown = [*names, *map("id:{}".format, ids), *map("group:{}".format, missing_groups)]
    if unknown:
        raise NothingMatches(min(unknown))


def _leaves(expression: syntax.Expression) -> Iterator[syntax.Expression]:
    parts = syntax.parts_of(expression)
    if not parts:
        yield expression
    for part in parts:
        yield from _leaves(part)


def _predicate(expression: syntax.Expression, deadline: float) -> Predicate:
    match expression:
        case syntax.And(parts):
            every = [_predicate(part, deadline) for part in parts]
            return lambda node: all(matches(node) for matches in every)
        case syntax.Or(parts):
            some = [_predicate(part, deadline) for part in parts]
            return lambda node: any(matches(node) for matches in some)
        case syntax.Not(part):
            matches = _predicate(part, deadline)
            return lambda node: not matches(node)
        case _:
            return _leaf(expression, deadline)


def _leaf(leaf: syntax.Leaf, deadline: float) -> Predicate:
    match leaf:
        case syntax.All():
            return lambda node: True
        case syntax.Name(pattern) if leaf.is_glob:
            glob = _glob(pattern)
            return lambda node: glob.match(node.name) is not None
        case syntax.Name(name):
            return lambda node: node.name == name
        case syntax.Group(name):
            return lambda node: name in node.groups
        case syntax.Id(id):
            return lambda node: node.id == id
        case syntax.Regex(pattern):
            return _searcher(pattern, deadline)
        case syntax.HasStatus(sign, value):
            return lambda node: (node.status == value) is (sign == "==")
        case syntax.Label(key, sign, value):
            return lambda node: (node.labels.get(key) == value) is (sign == "==")
        case syntax.Fact():
            return _fact(leaf)
        case syntax.Package():
            return _package(leaf)
        case _:
            assert_never(leaf)


@lru_cache(maxsize=1024)
def _glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob; `translate` makes each star atomic, so no backtracking runs away."""
    return re.compile(translate(pattern))


def _searcher(pattern: str, deadline: float) -> Predicate:
    search = compile_regex(pattern).search

    def matches(node: NodeView) -> bool:
        if time.monotonic() > deadline:
            raise InvalidTarget("the regexes take too long on so many nodes; use globs", 1)
        return search(node.name) is not None

    return matches


def _package(leaf: syntax.Package) -> Predicate:
    compare, wanted = _COMPARE[leaf.operator], version_key(leaf.version)
    if leaf.operator == "!=":
        is_equal = _package(syntax.Package(leaf.name, "==", leaf.version))
        return lambda node: not is_equal(node)
    return lambda node: any(
        package.name == leaf.name and compare(version_key(package.version), wanted)
        for package in node.packages
    )


def _fact(leaf: syntax.Fact) -> Predicate:
    if leaf.operator == "!=":
        is_equal = _fact(syntax.Fact(leaf.key, "==", leaf.value))
        return lambda node: not is_equal(node)
    compare, path = _COMPARE[leaf.operator], tuple(leaf.key.split("."))
    number, version = _number(leaf.value), version_key(leaf.value)

    def holds(fact: Fact) -> bool:
        if isinstance(fact, int) and number is not None:
            return compare(fact, number)
        if leaf.operator == "==":
            return str(fact) == leaf.value
        return compare(version_key(str(fact)), version)

    return lambda node: any(holds(fact) for fact in _resolve(node.facts, path))


Fact = str | int


def _resolve(value: object, path: tuple[str, ...]) -> Iterator[Fact]:
    """Walk a dotted path; a list stands for its elements unless the next key is an index."""
    match value:
        case list() if path and path[0].isdecimal():
            yield from _resolve(value[int(path[0])], path[1:]) if int(path[0]) < len(value) else ()
        case list():
            for element in value:
                yield from _resolve(element, path)
        case msgspec.Struct() if path and path[0] in value.__struct_fields__:
            yield from _resolve(getattr(value, path[0]), path[1:])
        case str() | int() if not path and value != "":
            yield value
        case _:
            return


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
