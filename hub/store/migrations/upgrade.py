"""Runs Alembic inside the program.

There is no ini file and the location is this package, so it works from a wheel. Alembic keeps its
context in the module, so one upgrade at a time runs in a process.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

_one_at_a_time = Lock()


def upgrade(connection: Connection) -> None:
    """Bring the database to the newest revision; a failure leaves it as it was."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _one_at_a_time:
        command.upgrade(config, "head")
