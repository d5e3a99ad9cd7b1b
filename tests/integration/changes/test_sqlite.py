"""A SQLite database that changed in any way is backed up, and one that did not is not."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from backup_admin.operations import look_for_changes
from backup_admin.operations.changes import ChangeOptions
from backup_admin.operations.results import SourceSet
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.sqlite_signals import are_equal, read_signals
from tests.services.changes import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

SCHEMA = """
CREATE TABLE photos (id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT, likes INT);
CREATE TABLE sessions (token TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE loose (x);
CREATE INDEX photos_path ON photos (path);
INSERT INTO photos (path, likes) WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
  SELECT 'p' || i, i FROM n;
INSERT INTO loose VALUES (1), ('two'), (x'03');
"""
UNTIL_SETTLED = 2.2


class Site:
    """A database that an app has open, backed up."""

    def __init__(self, folder: Path, mode: str, options: ChangeOptions | None = None) -> None:
        self.path = folder / "app.db"
        self.app = sqlite3.connect(self.path, isolation_level=None)
        self.app.execute(f"PRAGMA journal_mode={mode}")
        self.app.executescript(SCHEMA)
        source = SqliteSource("app", self.path)
        self.watched = Watched(SourceSet(databases=(source,)), folder / "state", options or ChangeOptions())
        self.watched.back_up()

    def dump(self) -> str:
        """Return what the shell of SQLite writes, with what it does not write by itself."""
        more = "PRAGMA user_version; PRAGMA application_id;"
        command = ["sqlite3", f"file:{self.path}?mode=ro", ".dump", more]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return "\n".join(
            line for line in text.split("\n") if "sqlite_stat1" not in line and line[:8] != "ANALYZE "
        )


@pytest.fixture(params=["wal", "delete", "truncate", "persist"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, request.param)
    yield made
    made.app.close()


CHANGES = {
    "update": "UPDATE photos SET path = 'another' WHERE id = 1",
    "insert": "INSERT INTO loose VALUES (NULL)",
    "delete": "DELETE FROM photos WHERE id = 7",
    "delete all": "DELETE FROM sessions; DELETE FROM loose",
    "other type": "UPDATE loose SET x = '1' WHERE x = 1",
    "order": "UPDATE loose SET rowid = 900 WHERE x = 1",
    "alter": "ALTER TABLE photos ADD COLUMN more TEXT",
    "rename": "ALTER TABLE loose RENAME TO free",
    "new table": "CREATE TABLE fresh (id)",
    "index": "CREATE INDEX more ON photos (likes)",
    "view": "CREATE VIEW few AS SELECT 1",
    "trigger": "CREATE TRIGGER t AFTER INSERT ON loose BEGIN SELECT 1; END",
    "drop": "DROP TABLE sessions",
    "counter": "UPDATE sqlite_sequence SET seq = 9000",
    "version": "PRAGMA user_version = 7",
    "application": "PRAGMA application_id = 7",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_seen(tmp_path: Path, change: str) -> None:
    site = Site(tmp_path, "wal")
    before = site.dump()
    site.app.executescript(change)
    assert site.dump() != before

    site.watched.says_run()
    site.app.close()


def test_a_change_is_seen_in_every_journal_mode(site: Site) -> None:
    site.watched.says_skip()
    site.app.execute("UPDATE photos SET likes = likes + 1 WHERE id = 3")

    assert "photos changed" in site.watched.says_run()


def test_a_change_that_is_in_the_log_alone_is_seen(tmp_path: Path) -> None:
    site = Site(tmp_path, "wal")
    site.app.execute("PRAGMA wal_autocheckpoint = 0")
    site.app.execute("UPDATE photos SET likes = 7 WHERE id = 1")
    site.watched.back_up()
    before = site.path.stat()
    site.app.execute("UPDATE photos SET likes = 8 WHERE id = 1")
    assert site.path.stat() == before

    assert "photos changed" in site.watched.says_run()
    site.app.close()


def test_what_did_not_change_is_not_copied_to_know_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(UNTIL_SETTLED)
    site.watched.back_up()
    monkeypatch.setattr(SqliteSource, "capture", never)

    site.watched.says_skip()
    site.watched.says_skip()


def never(*_arguments: object, **_more: object) -> None:
    raise AssertionError("this was not to be done")


def test_times_that_had_not_settled_prove_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, "wal")
    signals = read_signals(site.watched.sources.databases[0])
    settle_ns = 2_000_000_000

    assert not are_equal(signals, signals, settle_ns)
    assert are_equal({**signals, "read_ns": signals["read_ns"] + settle_ns}, signals, settle_ns)
    site.app.close()


def test_after_a_look_that_had_to_copy_the_next_needs_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.app.execute("UPDATE photos SET likes = likes")
    time.sleep(UNTIL_SETTLED)
    site.watched.says_skip()
    monkeypatch.setattr(SqliteSource, "capture", never)

    site.watched.says_skip()


HARMLESS = {
    "reading": "SELECT count(*) FROM photos",
    "rolled back": "BEGIN; UPDATE photos SET likes = 0; ROLLBACK",
    "the same value": "UPDATE photos SET likes = likes",
    "no row": "DELETE FROM photos WHERE id = -1",
    "vacuum": "VACUUM",
    "analyze": "ANALYZE",
    "reindex": "REINDEX",
    "checkpoint": "PRAGMA wal_checkpoint(TRUNCATE)",
    "temporary": "CREATE TEMP TABLE mine (x); INSERT INTO mine VALUES (1)",
    "there and back": "UPDATE photos SET likes = likes + 1; UPDATE photos SET likes = likes - 1",
}


@pytest.mark.parametrize("harmless", HARMLESS.values(), ids=HARMLESS.keys())
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_what_changes_nothing_makes_no_backup(tmp_path: Path, mode: str, harmless: str) -> None:
    site = Site(tmp_path, mode)
    for statement in harmless.split("; "):
        site.app.execute(statement).fetchall()

    site.watched.says_skip()
    site.app.close()


def test_tables_that_are_ignored_make_no_backup_and_are_in_it(tmp_path: Path) -> None:
    site = Site(tmp_path, "wal", ChangeOptions(ignored=("app.sess*",)))
    for name in ("backup_runs", "backup_manifests", "backup_schedules"):
        site.app.execute(f"CREATE TABLE {name} (id)")
    made = site.watched.back_up()
    site.app.execute("INSERT INTO sessions VALUES ('new')")
    site.app.execute("INSERT INTO backup_runs VALUES (1)")
    site.watched.says_skip()
    (entry,) = site.watched.repository.manifest(made.snapshot.id).databases
    assert {"sessions", "backup_runs"} <= {table.name for table in entry.tables}
    site.app.execute("DELETE FROM loose")

    assert "loose changed" in site.watched.says_run()
    site.app.close()


def test_a_table_of_the_app_with_a_name_of_ours_is_seen(tmp_path: Path) -> None:
    site = Site(tmp_path, "wal")
    site.app.execute("CREATE TABLE backup_settings (id)")
    site.watched.back_up()
    site.app.execute("INSERT INTO backup_settings VALUES (1)")

    assert "backup_settings changed" in site.watched.says_run()
    site.app.close()


def test_a_file_put_in_the_place_of_the_database_is_seen(tmp_path: Path) -> None:
    site = Site(tmp_path, "delete")
    site.app.close()
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript(SCHEMA + "DELETE FROM loose;")
    other.close()
    (tmp_path / "other.db").replace(site.path)

    assert "loose changed" in site.watched.says_run()


def test_a_database_that_is_gone_is_a_reason_to_run(tmp_path: Path) -> None:
    site = Site(tmp_path, "delete")
    site.app.close()
    site.path.unlink()

    assert "cannot be compared" in site.watched.says_run()


def test_another_process_looks_at_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path, "wal")
    opened = []
    real = open

    def watch(path: object, *arguments: object, **more: object) -> object:
        opened.append(str(path))
        return real(path, *arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", watch)
    site.watched.says_skip()

    assert not [path for path in opened if "app.db" in path]
    site.app.close()


STATEMENTS = (
    "INSERT INTO photos (path, likes) VALUES ('{n}', {d})",
    "UPDATE photos SET likes = likes WHERE id % 5 = {d}",
    "UPDATE photos SET likes = {n} WHERE id % 97 = {d}",
    "DELETE FROM photos WHERE id % 101 = {d}",
    "REPLACE INTO sessions VALUES ('{d}')",
    "DELETE FROM sessions",
    "INSERT INTO loose VALUES ({d})",
    "UPDATE loose SET x = x || ''",
    "DELETE FROM loose WHERE x = {d}",
    "UPDATE loose SET rowid = rowid + 1000 WHERE x = {d}",
    "BEGIN; UPDATE photos SET likes = 0; ROLLBACK",
    "BEGIN; DELETE FROM loose; SAVEPOINT p; DELETE FROM photos; ROLLBACK TO p; COMMIT",
    "CREATE TABLE IF NOT EXISTS t{d} (i)",
    "DROP TABLE IF EXISTS t{d}",
    "CREATE INDEX IF NOT EXISTS i{d} ON photos (likes)",
    "DROP INDEX IF EXISTS i{d}",
    "PRAGMA user_version = {d}",
    "UPDATE sqlite_sequence SET seq = seq + {d}",
    "VACUUM",
    "ANALYZE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_checkpoint",
    "SELECT count(*) FROM photos",
)


@pytest.mark.parametrize("count", [80, pytest.param(800, marks=pytest.mark.long(minutes=5))])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_no_random_change_is_missed(
    tmp_path: Path, mode: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the text of a dump is another one, a backup has to be made; times count at once, too."""
    monkeypatch.setattr(look_for_changes, "SETTLE_NS", 20_000_000)
    site = Site(tmp_path, mode)
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    sessions = [sqlite3.connect(site.path, isolation_level=None) for _ in range(2)]
    before = site.dump()
    counts = {"changed": 0, "skipped": 0}
    for number in range(count):
        text = chance.choice(STATEMENTS).format(n=number, d=chance.randrange(1, 6))
        session = chance.choice(sessions)
        for statement in text.split("; "):
            session.execute(statement).fetchall()
        if chance.random() < 0.1:
            sessions[0].close()
            sessions[0] = sqlite3.connect(site.path, isolation_level=None)
        after = site.dump()
        decision = site.watched.look()
        assert decision.run or after == before, (seed, number, text, decision)
        counts["changed"] += after != before
        counts["skipped"] += not decision.run
        if decision.run:
            site.watched.back_up()
            before = after
    for session in (*sessions, site.app):
        session.close()
    assert counts["changed"] > 10
    assert counts["skipped"] > 10, counts
