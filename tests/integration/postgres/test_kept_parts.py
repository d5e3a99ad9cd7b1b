"""What is kept of a live database before everything in it is dropped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.restoring import LiveDatabase, Way
from backup_admin.sources.postgres.server import names_of
from backup_admin.sources.postgres.source import PostgresSource

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


def test_every_file_and_folder_is_on_disk_before_anything_is_dropped(
    newest_postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = newest_postgres.new_database()
    with psycopg.connect(newest_postgres.address(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE one AS SELECT 1 AS id")
    synced: set[int] = set()
    sync = os.fsync

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    source = PostgresSource("app", parse_postgres_address(newest_postgres.address(name)))

    LiveDatabase(source, names_of(name, "x"), Way.IN_PLACE).keep_old(tmp_path / "old")

    kept = [tmp_path, tmp_path / "old", *(tmp_path / "old").rglob("*")]
    assert [path.name for path in kept if path.stat().st_ino not in synced] == []
