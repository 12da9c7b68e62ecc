r"""Regular expressions from outside, searched in names, bounded against catastrophic backtracking.

`re` tries every way in which a pattern can match; `(a+)+` has more ways than there is time. So the
pattern is limited to a plain subset, and its ways over a 64-character name are counted before it
is compiled: past `WAYS_LIMIT` it is refused. The subset: characters, `.`, classes, `^ $ \b \d \w
\s` and other escapes of one character, groups without extensions, `|`, and the quantifiers.
`evaluate` bounds by a clock what many searches may cost together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

LENGTH_LIMIT = 256
NAME_LIMIT = 64
"""Characters of a node's name, thus the repetitions that a quantifier can have."""
WAYS_LIMIT = 5_000
"""Two free quantifiers (65 * 65); a search then takes some milliseconds at worst."""
DEPTH_LIMIT = 16

_ATOM = re.compile(
    r"\\[^0-9A-Zxuk]|\\[BDSWAZ]"  # an escape: no back-reference, no code point
    r"|\[\^?\]?(?:(?!--|&&|\|\||~~)[^\[\]\\]|\\.)*\]"  # a class, without set operations
    r"|[^\\\[\](){}*+?|]",
    re.DOTALL,
)
_QUANTIFIER = re.compile(r"([*+?])|\{([0-9]{1,3})(,?)([0-9]{0,3})\}")
_RANGES = {"*": (0, NAME_LIMIT), "+": (1, NAME_LIMIT), "?": (0, 1)}


class RefusedRegex(Exception):
    """A pattern that cannot be taken; `offset` is where, from 0."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset


@lru_cache(maxsize=256)
def compile_regex(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that any search of a name ends soon with.

    Raises:
        RefusedRegex: too long, not in the subset, or too many ways to match.
    """
    if len(pattern) > LENGTH_LIMIT:
        raise RefusedRegex(f"the regex is longer than {LENGTH_LIMIT} characters", LENGTH_LIMIT)
    if not pattern:
        raise RefusedRegex("the regex is empty", 0)
    counter = _Counter(pattern)
    counter.alternatives(0)
    if counter.at < len(pattern):
        raise RefusedRegex("the regex has an unbalanced )", counter.at)
    try:
        return re.compile(pattern)
    except re.error as error:
        raise RefusedRegex(f"the regex is invalid: {error.msg}", error.pos or 0) from error


@dataclass(slots=True)
class _Counter:
    """Walks a pattern and counts in how many ways it can match; each method starts at `at`."""

    pattern: str
    at: int = 0

    def alternatives(self, depth: int) -> int:
        ways = self._sequence(depth)
        while self._next() == "|":
            self.at += 1
            ways += self._sequence(depth)
        return ways

    def _sequence(self, depth: int) -> int:
        ways = 1
        while self._next() not in ("", "|", ")"):
            start = self.at
            ways *= self._repeated(self._atom(depth))
            if ways > WAYS_LIMIT:
                raise RefusedRegex(
                    "the regex can match in too many ways: use fewer quantifiers, nest none", start
                )
        return ways

    def _atom(self, depth: int) -> int:
        """Pass one character, class or group; return its ways."""
        if self._next() == "(":
            return self._group(depth + 1)
        atom = _ATOM.match(self.pattern, self.at)
        if atom is None:
            raise RefusedRegex(
                f"the regex cannot have {self.pattern[self.at : self.at + 2]!r} here", self.at
            )
        self.at = atom.end()
        return 1

    def _group(self, depth: int) -> int:
        start = self.at
        self.at += 1
        if depth > DEPTH_LIMIT:
            raise RefusedRegex(f"the regex is nested deeper than {DEPTH_LIMIT}", start)
        if self.pattern.startswith("?:", self.at):
            self.at += 2
        ways = self.alternatives(depth)
        if self._next() != ")":
            raise RefusedRegex("the regex has an unbalanced (", start)
        self.at += 1
        return ways

    def _repeated(self, ways: int) -> int:
        """Pass the quantifiers, if any; return the ways of the atom repeated so."""
        quantifier = _QUANTIFIER.match(self.pattern, self.at)
        if quantifier is None:
            return ways
        self.at = quantifier.end()
        if self._next() == "?":
            self.at += 1  # lazy: another order of the same ways
        sign, least, comma, most = quantifier.groups()
        low, high = (
            _RANGES[sign]
            if sign
            else (int(least), int(most or NAME_LIMIT) if comma else int(least))
        )
        low, high = min(low, NAME_LIMIT), min(high, NAME_LIMIT)
        return sum(ways**times for times in range(low, high + 1))

    def _next(self) -> str:
        return self.pattern[self.at : self.at + 1]
