"""The configuration: what cannot work is refused with the option to change."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import logs
from hub.config import HubConfig
from hub.errors import BadRequest
from hub.telemetry import Counter, Telemetry


def test_defaults_are_a_hub_on_loopback(tmp_path: Path) -> None:
    config = HubConfig(state_dir=tmp_path)
    assert (config.bind, config.port, config.tunnel_port) == ("127.0.0.1", 8443, None)
    assert config.store_url == f"sqlite+aiosqlite:///{tmp_path}/hub.db"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bind": "hub.example.org"}, "--bind"),
        ({"port": 65536}, "--port"),
        ({"tunnel_port": -1}, "--tunnel-port"),
        ({"port": 1, "tunnel_port": 1}, "--tunnel-port"),
        ({"public_urls": ("http://hub.example.org",)}, "--public-url"),
        ({"public_urls": ("https://hub.example.org/path",)}, "--public-url"),
        ({"public_urls": ("https://hub.example.org:x",)}, "--public-url"),
        ({"public_urls": ("https://user@hub.example.org",)}, "--public-url"),
        ({"public_urls": ("hub.example.org",)}, "--public-url"),
        ({"tls_cert": Path("/nowhere")}, "--tls-key"),
        ({"tls_cert": Path("/nowhere"), "tls_key": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_what_cannot_work_names_the_option(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadRequest, match=says):
        HubConfig(state_dir=tmp_path, **options)


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("as_json", [True, False])
def test_logs_are_lines_of_text_or_json(root_logger: logging.Logger, as_json: bool) -> None:
    out = io.StringIO()
    logs.configure(as_json, to=out)
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("hub.test").warning("node %s", "web-1", exc_info=True)
    first = out.getvalue().splitlines()[0]
    if as_json:
        line = json.loads(first)
        assert (line["level"], line["logger"], line["message"]) == (
            "warning", "hub.test", "node web-1",
        )  # fmt: skip
        assert "ValueError: broken" in line["error"]
    else:
        assert first.endswith("Z WARNING hub.test: node web-1")


def test_a_metric_is_registered_once_and_read_when_asked() -> None:
    telemetry, counter = Telemetry(), Counter()
    telemetry.counter("mooring_things_total", "Things.", counter)
    counter.add(3)
    assert "# TYPE mooring_things_total counter\nmooring_things_total 3\n" in telemetry.exposition()
    with pytest.raises(ValueError, match="twice"):
        telemetry.gauge("mooring_things_total", "Again.", lambda: 0)
