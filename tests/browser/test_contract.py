"""The pages' types are made from the hub's own OpenAPI document."""

from __future__ import annotations

import json
import ssl
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

COMMITTED = Path(__file__).parents[2] / "ui" / "openapi.json"
HOW = "in ui/: curl -k $MOORING_URL/schema/openapi.json > openapi.json && npm run types"


def test_the_committed_document_is_the_hubs(url: str) -> None:
    anyone = ssl._create_unverified_context()
    with urllib.request.urlopen(f"{url}/schema/openapi.json", context=anyone) as answer:
        served = json.load(answer)
    committed = json.loads(COMMITTED.read_text())
    assert committed["paths"] == served["paths"], HOW
    assert committed["components"] == served["components"], HOW
