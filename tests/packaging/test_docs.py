"""The documents say what the code does: routes, roles, links, pictures."""

from __future__ import annotations

import re
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from hub.authz import VERBS, Role, Verb
from tests.hub.test_api_routes import DECLARED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "protocol" / "SPEC.md",
    *sorted(DOCS.rglob("*.md")),
]
IMAGE_LIMIT_BYTES = 200 * 1024
PREFIX = "/api/v1"
ROUTE = re.compile(r"([A-Z]+(?:\\\|[A-Z]+)*) (/[a-z-]+(?:/(?:\{\w+\}|[a-z-]+))*)")
VERB_OF_WORD = {"–": "public", "the": "public"} | {verb.value: verb.value for verb in Verb}


def rows(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table after `heading`, without its head."""
    lines = page.read_text().split(heading, 1)[1].splitlines()
    rest = dropwhile(lambda line: not line.startswith("|"), lines)
    table = takewhile(lambda line: line.startswith("|"), rest)
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    return [[cell.strip() for cell in row] for row in cells[2:]]


def nameless(route: str) -> str:
    return re.sub(r"\{\w+\}", "{}", route)


def documented_routes() -> dict[str, str]:
    found: dict[str, str] = {}
    for cells in rows(DOCS / "design" / "api.md", "## Routes"):
        routes = ROUTE.findall(cells[0])
        words = [part.strip().split()[0].rstrip(",") for part in cells[1].split("·")]
        words = words * len(routes) if len(words) == 1 else words
        assert len(words) == len(routes), cells
        for (methods, path), word in zip(routes, words, strict=True):
            for method in methods.split("\\|"):
                found[nameless(f"{method} {path}")] = VERB_OF_WORD.get(word, word)
    return found


def test_api_md_lists_every_route_with_its_verb() -> None:
    declared = {
        nameless(name.replace(PREFIX, "", 1)): str(verb)
        for name, verb in DECLARED.items()
        if name.split()[1].startswith(PREFIX)
        and name.split()[0] in ("GET", "POST", "PUT", "PATCH", "DELETE")
    }
    assert documented_routes() == declared


def test_the_roles_of_security_md_are_those_of_the_code() -> None:
    written = {
        cells[0].strip("`"): dict(zip(Role, (cell == "yes" for cell in cells[1:]), strict=True))
        for cells in rows(DOCS / "security.md", "<!-- roles:")
    }
    assert written == {
        verb.value: {role: verb in verbs for role, verbs in VERBS.items()} for verb in Verb
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    relative = [target for target in targets if not target.startswith(("http:", "https:"))]
    assert [target for target in relative if not (page.parent / target).exists()] == []


def test_pictures_are_small() -> None:
    pictures = list((DOCS / "images").iterdir())
    assert pictures
    assert [path.name for path in pictures if path.stat().st_size > IMAGE_LIMIT_BYTES] == []
