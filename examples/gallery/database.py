"""Open the gallery's database without the web app."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event

from examples.gallery.folders import Folders


@contextmanager
def open_database(data: Path) -> Iterator[Connection]:
    """Open one transaction on the gallery's database and leave no connection behind."""
    engine = create_engine(Folders(data).database_url)
    enforce_foreign_keys(engine)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def enforce_foreign_keys(engine: Engine) -> None:
    """Make SQLite keep the promises of this one engine's tables; it does not by itself."""

    def switch_on(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    event.listen(engine, "connect", switch_on)
