"""A database without tables is asked about, and one that lost them makes a snapshot degraded."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.backup import back_up
from backup_admin.operations.results import BackupOptions, DatabaseCount, Outcome, SourceSet
from backup_admin.sources.sqlite import SqliteSource
from tests.factories import CLOCK, make_storage, open_test_repository

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.results import BackupResult

ASKED = ("app: has no tables: is this the right database?",)


class App:
    """An app with one database, and its repository."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.db"
        self.sources = SourceSet(databases=(SqliteSource("app", self.path),))
        self.state = StateFolder(folder / "state")
        self.repository = open_test_repository(make_storage(), folder / "state")
        self.run("PRAGMA user_version = 3")

    def run(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    def back_up(self, kind: str = "manual") -> BackupResult:
        return back_up(
            self.repository,
            self.sources,
            options=BackupOptions(kind=kind),
            state=self.state,
            reporter=QuietReporter(),
            clock=CLOCK,
        )


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


def test_a_database_that_never_had_a_table_is_asked_about(app: App) -> None:
    made = [app.back_up(), app.back_up()]

    assert [(one.outcome, one.warnings, one.notices) for one in made] == [(Outcome.COMPLETED, (), ASKED)] * 2
    assert made[0].databases == (DatabaseCount("app", 0, 0),)


def test_a_database_that_lost_its_tables_is_missing_until_it_has_some_again(app: App) -> None:
    app.run("CREATE TABLE a (x INTEGER PRIMARY KEY AUTOINCREMENT); CREATE TABLE b (x)")
    app.run("INSERT INTO a VALUES (1), (2)")
    whole = app.back_up()
    app.run("DROP TABLE a; DROP TABLE b")  # sqlite_sequence stays
    lost = [app.back_up(), app.back_up()]
    app.run("CREATE TABLE c (x)")
    again = app.back_up()

    assert (whole.outcome, whole.notices) == (Outcome.COMPLETED, ())
    assert [one.outcome for one in lost] == [Outcome.DEGRADED] * 2
    for one in lost:
        (warning,) = one.warnings
        assert f"app has no tables, and had 2 in an earlier snapshot: is {app.path} the right" in warning
    assert (again.outcome, again.notices, again.warnings) == (Outcome.COMPLETED, (), ())


def test_the_safety_backup_of_an_emptied_database_lacks_nothing_and_the_next_one_does(app: App) -> None:
    app.run("CREATE TABLE a (x)")
    app.back_up()
    app.run("DROP TABLE a")

    safety, after = app.back_up("safety"), app.back_up()

    assert (safety.outcome, after.outcome) == (Outcome.COMPLETED, Outcome.DEGRADED)
