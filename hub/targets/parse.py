"""From text to an `Expression`, with errors that point at a column and say what was expected.

The rule it guards: whatever the text, the answer is an expression within the limits or
`InvalidTarget`; the text is bounded before it is lexed, and nesting after.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

import msgspec
from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from hub.errors import InvalidTarget
from hub.nodeview import Status
from hub.targets import syntax
from hub.targets.regexes import RefusedRegex, compile_regex
from protocol.messages import Facts

LENGTH_LIMIT = 2048
DEPTH_LIMIT = 64

_FACTS = sorted(field.name for field in msgspec.structs.fields(Facts))
_WORDS = {
    "_OPEN": "'('", "_CLOSE": "')'", "_OR": "'or'", "_AND": "'and'", "_NOT": "'not'",
    "ALL": "'all'",
    "NAME": "a name", "GROUP": "group:NAME", "ID": "id:UUID", "REGEX": "~REGEX",
    "STATUS": "status==…", "LABEL": "label.KEY==…", "FACT": "fact.KEY==…", "PACKAGE": "pkg.NAME==…",
    "EQUALITY": "== or !=", "ORDER": "<, <=, > or >=", "WORD": "a value", "$END": "the end",
}  # fmt: skip
"""How terminals are called in errors; one that is not here needs no mention."""


@lru_cache(maxsize=1024)
def parse(text: str) -> syntax.Expression:
    """Parse a target.

    Raises:
        InvalidTarget: it is empty, too long, too deep or malformed; `column` is 1-based.
    """
    if len(text) > LENGTH_LIMIT:
        message = f"a target has at most {LENGTH_LIMIT} characters, not {len(text)}"
        raise InvalidTarget(message, LENGTH_LIMIT + 1)
    try:
        expression = cast(syntax.Expression, _PARSER.parse(text))
    except UnexpectedInput as error:
        raise _explain(text, error) from error
    except VisitError as error:
        raise error.orig_exc from error
    if not _within(expression, DEPTH_LIMIT):
        raise InvalidTarget(f"the target is nested deeper than {DEPTH_LIMIT}", 1)
    return expression


def _within(expression: syntax.Expression, depth: int) -> bool:
    return depth > 0 and all(_within(part, depth - 1) for part in syntax.parts_of(expression))


def _explain(text: str, error: UnexpectedInput) -> InvalidTarget:
    at, expected = len(text), set[str]()
    if isinstance(error, UnexpectedToken):
        expected = set(error.accepts or error.expected)
        if error.token.type != "$END":
            at = error.token.start_pos or 0
    elif isinstance(error, UnexpectedCharacters):
        expected = set(error.allowed or ())
        at = cast(int, error.pos_in_stream)
    words = text[at:].split(maxsplit=1)
    found = repr(words[0][:16]) if words else "the end"
    wanted = ", ".join(word for name, word in _WORDS.items() if name in expected)
    return InvalidTarget(f"column {at + 1}: found {found}, expected {wanted}", at + 1)


@v_args(inline=True)
class _Build(Transformer[Token, syntax.Expression]):
    """Makes an expression at each reduction of the parser."""

    def everything(self, _token: Token) -> syntax.All:
        return syntax.All()

    def name(self, token: Token) -> syntax.Name:
        return syntax.Name(str(token))

    def group(self, token: Token) -> syntax.Group:
        return syntax.Group(token.removeprefix("group:"))

    def id(self, token: Token) -> syntax.Id:
        return syntax.Id(token.removeprefix("id:").lower())

    def regex(self, token: Token) -> syntax.Regex:
        text = token.removeprefix("~")
        pattern = syntax.unquote(text) if token.type == "QUOTED_REGEX" else text
        try:
            compile_regex(pattern)
        except RefusedRegex as error:
            column = _column(token) + 1 + error.offset + (token.type == "QUOTED_REGEX")
            raise InvalidTarget(f"column {column}: {error.reason}", column) from error
        return syntax.Regex(pattern)

    def status(self, token: Token, operator: Token, value: str) -> syntax.HasStatus:
        if value not in list(Status):
            names = ", ".join(Status)
            column = _column(operator) + len(operator)
            raise InvalidTarget(f"column {column}: a status is one of {names}", column)
        return syntax.HasStatus(cast(syntax.Equality, str(operator)), value)

    def label(self, token: Token, operator: Token, value: str) -> syntax.Label:
        key = token.removeprefix("label.")
        return syntax.Label(key, cast(syntax.Equality, str(operator)), value)

    def fact(self, token: Token, operator: Token, value: str) -> syntax.Fact:
        key = token.removeprefix("fact.")
        if key.split(".")[0] not in _FACTS:
            column = _column(token) + len("fact.")
            raise InvalidTarget(
                f"column {column}: there is no fact {key!r}; facts are {', '.join(_FACTS)}", column
            )
        return syntax.Fact(key, cast(syntax.Operator, str(operator)), value)

    def package(self, token: Token, operator: Token, value: str) -> syntax.Package:
        name = token.removeprefix("pkg.")
        return syntax.Package(name, cast(syntax.Operator, str(operator)), value)

    def value(self, token: Token) -> str:
        return syntax.unquote(token) if token.type == "STRING" else str(token)

    def negation(self, part: syntax.Expression) -> syntax.Not:
        return syntax.Not(part)

    def both(self, *parts: syntax.Expression) -> syntax.Expression:
        return syntax.And(parts) if len(parts) > 1 else parts[0]

    def either(self, *parts: syntax.Expression) -> syntax.Expression:
        return syntax.Or(parts) if len(parts) > 1 else parts[0]


def _column(token: Token) -> int:
    return (token.start_pos or 0) + 1


_PARSER = Lark(
    Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8"),
    parser="lalr",
    lexer="contextual",
    transformer=_Build(),
    maybe_placeholders=False,
)
