"""Databases of all engines for the tests of merges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.services.small_gallery import Database, PostgresDatabase, SqliteDatabase, fill

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["sqlite", "debian_postgres", "newest_postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database on each engine, owned by a plain user."""
    if request.param == "sqlite":
        found = SqliteDatabase(tmp_path / "app.db")
        found.run("PRAGMA journal_mode=WAL")
        return found
    server = request.getfixturevalue(request.param)
    return PostgresDatabase(server, server.new_database())


@pytest.fixture
def gallery(database: Database) -> Database:
    """A filled gallery that was captured."""
    fill(database)
    database.capture()
    return database
