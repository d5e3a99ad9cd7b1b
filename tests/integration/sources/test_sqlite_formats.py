"""A SQLite database as JSON Lines, as a script and compact: the same to programs that are not ours."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.errors import Busy, Damaged, RestoreRefused, SourceError, SourceInvalid
from backup_admin.core.progress import QuietReporter
from backup_admin.operations.database_export import ExportFormat, ExportRequest, export_sqlite
from backup_admin.sources.formats.imported import ImportOptions
from backup_admin.sources.formats.worker import import_into_sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.database_export import ExportReport
    from backup_admin.sources.formats.imported import ImportReport

SCHEMA = """
CREATE TABLE plain (id INTEGER PRIMARY KEY AUTOINCREMENT, t TEXT, r REAL, x, body TEXT,
  doubled AS (id * 2) STORED, tripled AS (id * 3));
CREATE TABLE keyed (k TEXT COLLATE NOCASE, n INT, v, PRIMARY KEY (n, k)) WITHOUT ROWID;
CREATE TABLE strict (i INT, t TEXT, b BLOB, a ANY) STRICT;
CREATE TABLE "-odd ""q""; DROP TABLE plain; -- '
x" ("c'ol; DROP" int, "-l
" text, "rowid_" int);
CREATE TABLE taken (rowid TEXT, oid INT, _rowid_ INT);
CREATE TABLE descending (id INTEGER PRIMARY KEY DESC, v);
CREATE VIRTUAL TABLE found USING fts5(body, content='plain', content_rowid='id');
CREATE VIRTUAL TABLE free USING fts5(words);
CREATE VIRTUAL TABLE old USING fts4(words);
CREATE VIRTUAL TABLE boxes USING rtree(id, low, high);
CREATE TABLE parent (id INTEGER PRIMARY KEY, child_id INT REFERENCES child (id),
  self_id INT REFERENCES parent (id));
CREATE TABLE child (id INTEGER PRIMARY KEY, parent_id INT NOT NULL REFERENCES parent (id));
CREATE TABLE log (what TEXT);
CREATE TRIGGER track AFTER INSERT ON plain BEGIN
  INSERT INTO log VALUES ('plain ' || new.id); INSERT INTO found (rowid, body) VALUES (new.id, new.body); END;
CREATE VIEW seen AS SELECT * FROM plain; -- a view
CREATE TRIGGER instead INSTEAD OF INSERT ON seen BEGIN SELECT 1; END;
CREATE INDEX by_text ON plain (t) WHERE r > 1;
PRAGMA user_version = 7;
PRAGMA application_id = 99;
"""
PLAIN = [
    (1, "x", float("inf"), 2**60, "hello world"),
    (2, "a\r\nb\\r'\"\\N", 0.1, b"\0\xff", "more words"),
    (5, "n\0ul", float("-inf"), "12", None),
    (6, "ü😀\u2028", 5e-324, 1.0, ""),
    (7, "", 1.7976931348623157e308, -(2**63), None),
    (8, None, 0.30000000000000004, 2**53 + 1, None),
]


def make(path: Path, *scripts: str, encoding: str = "UTF-8") -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA encoding = '{encoding}'")
        for script in scripts:
            database.executescript(script)
    return path


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany("INSERT INTO plain (id, t, r, x, body) VALUES (?, ?, ?, ?, ?)", PLAIN)
        if database.execute("PRAGMA encoding").fetchone() == ("UTF-8",):
            database.execute("INSERT INTO plain (id, t) VALUES (9, CAST(X'ff4100' AS TEXT))")
        database.execute("INSERT INTO plain (id) VALUES (90)")
        database.execute("DELETE FROM plain WHERE id = 90")
        database.execute("INSERT INTO keyed VALUES ('a', 2, 1.5), ('B', 1, NULL)")
        database.execute("INSERT INTO strict VALUES (1, 'j', X'00', 2.0), (NULL, NULL, NULL, X'')")
        odd = '"-odd ""q""; DROP TABLE plain; -- \'\nx"'
        database.execute(f'INSERT INTO {odd} (rowid, "c\'ol; DROP") VALUES (7, 1), (3, NULL)')
        database.execute("INSERT INTO taken VALUES ('r', 1, 2)")
        database.execute("INSERT INTO descending VALUES (6, 'six'), (5, 'five'), (4, 'four')")
        database.execute("DELETE FROM descending WHERE id = 6")
        database.execute("INSERT INTO free VALUES ('free text'), ('other text')")
        database.execute("INSERT INTO old VALUES ('fourth text')")
        database.execute("INSERT INTO boxes VALUES (1, 0.5, 2), (9, -1, 7)")
        database.execute("INSERT INTO parent VALUES (1, 2, 3), (3, NULL, 1)")
        database.execute("INSERT INTO child VALUES (2, 1)")


@pytest.fixture(params=["UTF-8", "UTF-16le", "UTF-16be"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = make(tmp_path / "app.db", SCHEMA, encoding=request.param)
    fill(path)
    return path


def export(path: Path, kind: str) -> tuple[Path, ExportReport]:
    target = path.with_name(f"{path.name}.{kind}")
    report = export_sqlite(path, ExportRequest(ExportFormat(kind), target), reporter=QuietReporter())
    return target, report


def load(folder: Path, live: Path, **options: bool) -> ImportReport:
    return import_into_sqlite(folder, live, ImportOptions(**options), deadline_seconds=1)


def shell(path: Path, command: str) -> str:
    done = subprocess.run(["sqlite3", path, command], check=True, capture_output=True)
    return done.stdout.decode("utf-8", "backslashreplace")


def content(path: Path) -> dict[str, Any]:
    """Return everything in a database, by queries of the test's own: with rowids and storage classes."""
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(path)) as database:
        database.text_factory = bytes
        names = database.execute("SELECT name, sql FROM sqlite_master WHERE rootpage > 0 AND type = 'table'")
        for raw, statement in names.fetchall():
            name = '"' + raw.decode().replace('"', '""') + '"'
            rowid = "" if b"WITHOUT ROWID" in (statement or b"") or b"taken" in raw else "rowid, "
            columns = [row[1].decode() for row in database.execute(f"PRAGMA table_xinfo({name})")]
            listed = ", ".join(
                f'"{column}", typeof("{column}")' for column in (one.replace('"', '""') for one in columns)
            )
            rows = database.execute(f"SELECT {rowid}{listed} FROM {name}").fetchall()
            found[raw.decode()] = sorted(map(repr, rows))
        found["schema"] = sorted(map(repr, database.execute("SELECT type, name, sql FROM sqlite_master")))
        for pragma in ("user_version", "application_id", "encoding"):
            found[f"PRAGMA {pragma}"] = database.execute(f"PRAGMA {pragma}").fetchone()
    return found


def test_what_is_exported_as_json_is_imported_as_it_was(database: Path, tmp_path: Path) -> None:
    before = content(database)
    folder, exported = export(database, "json")
    target = make(tmp_path / "new.db", SCHEMA, encoding=str(before["PRAGMA encoding"][0].decode()))

    report = load(folder, target)

    assert report.committed
    assert report.refused == ()
    assert content(target) == before
    assert exported.rows == sum(table.rows for table in report.tables)
    assert shell(target, "PRAGMA integrity_check; PRAGMA foreign_key_check") == "ok\n"
    assert shell(target, "SELECT rowid FROM found('hello'); SELECT rowid FROM free('other')") == "1\n2\n"
    assert (
        shell(target, "SELECT rowid FROM old WHERE old MATCH 'fourth'; SELECT id FROM boxes WHERE low < 0")
        == "1\n9\n"
    )
    # The next id is one that was never given out, and the triggers are on again.
    assert shell(target, "INSERT INTO plain (body) VALUES ('new'); SELECT max(id) FROM plain") == "91\n"
    assert shell(target, "SELECT rowid FROM found('new')") == "91\n"


def test_a_script_makes_the_same_database(database: Path, tmp_path: Path) -> None:
    before = content(database)

    script, report = export(database, "sql")

    target = tmp_path / "new.db"
    with script.open("rb") as file:
        subprocess.run(["sqlite3", "-bail", target], stdin=file, check=True, capture_output=True)
    assert report.problems == ()
    assert content(target) == before
    assert shell(target, "PRAGMA integrity_check") == "ok\n"
    assert shell(target, "SELECT rowid FROM found('hello')") == "1\n"
    with closing(sqlite3.connect(":memory:")) as python:
        python.executescript(script.read_bytes().decode("utf-8"))
        assert python.execute("SELECT count(*) FROM plain").fetchone() == (len(before["plain"]),)


@pytest.mark.parametrize(
    "more",
    [
        "INSERT INTO b VALUES (1); INSERT INTO a VALUES (1)",
        "INSERT INTO b VALUES (1); INSERT INTO a VALUES (1); DELETE FROM sqlite_sequence WHERE name = 'b'",
        "INSERT INTO a VALUES (1); DELETE FROM sqlite_sequence",
        "INSERT INTO a VALUES (1); INSERT INTO sqlite_sequence VALUES ('gone', NULL), ('it''s', 'seven')",
    ],
)
def test_a_script_counts_ids_as_the_database_does_in_whatever_order_its_tables_were_used(
    more: str, tmp_path: Path
) -> None:
    schema = "CREATE TABLE {} (id INTEGER PRIMARY KEY AUTOINCREMENT);"
    source = make(tmp_path / "app.db", schema.format("b") + schema.format("a") + more)

    script, report = export(source, "sql")

    target = tmp_path / "new.db"
    with script.open("rb") as file:
        subprocess.run(["sqlite3", "-bail", target], stdin=file, check=True, capture_output=True)
    assert report.problems == ()
    counted = "SELECT name, typeof(seq), seq FROM sqlite_sequence"
    assert shell(target, counted) == shell(source, counted)


def test_a_compact_copy_is_the_same_database_and_smaller(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany("INSERT INTO log VALUES (hex(randomblob(500)))", [()] * 2000)
    shell(database, "DELETE FROM log WHERE rowid % 7")
    before = content(database)

    compact, report = export(database, "compact")

    assert content(compact) == before
    assert compact.stat().st_size < database.stat().st_size / 3
    assert report.bytes == compact.stat().st_size
    assert shell(compact, "PRAGMA integrity_check") == "ok\n"


def test_every_line_is_json_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", SCHEMA)
    fill(path)

    folder, _ = export(path, "json")

    (table,) = [
        row for row in json.loads((folder / "export.json").read_text())["tables"] if row["name"] == "plain"
    ]
    lines = (folder / table["file"]).read_text().split("\n")[:-1]
    head, *rows = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert (head["table"], head["columns"]) == ("plain", ["id", "t", "r", "x", "body"])
    assert (head["types"], head["pk"]) == (["INTEGER", "TEXT", "REAL", "", "TEXT"], ["id"])
    assert rows[:3] == [
        [1, "x", {"real": "inf"}, {"int": str(2**60)}, "hello world"],
        [2, "a\r\nb\\r'\"\\N", 0.1, {"b64": "AP8="}, "more words"],
        [5, {"text_b64": "bgB1bA=="}, {"real": "-inf"}, "12", None],
    ]
    assert rows[-1] == [9, {"text_b64": "/0EA"}, None, None, None]


def test_a_database_in_use_is_exported_as_one_state(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "PRAGMA journal_mode = WAL; CREATE TABLE a (x)")
    with closing(sqlite3.connect(path, isolation_level=None)) as app:
        app.execute("INSERT INTO a VALUES (1)")
        app.execute("BEGIN IMMEDIATE")
        app.execute("INSERT INTO a VALUES (2)")

        folder, report = export(path, "json")

        app.execute("COMMIT")
    assert report.rows == 1
    assert [path.name for path in tmp_path.iterdir() if "export" in path.name] == []
    assert (folder / "export.json").is_file()


def test_refused_rows_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    rows = "WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) "
    source = make(
        tmp_path / "app.db",
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v INT); CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INT);",
        rows + "INSERT INTO a SELECT i, i FROM n",
        "UPDATE a SET v = 7 WHERE id IN (1500, 2999)",
        "INSERT INTO b VALUES (1, 1), (2, 1500), (3, NULL), (4, 9999)",
    )
    schema = (
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v INT UNIQUE);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INT REFERENCES a (id))"
    )
    target, partial = make(tmp_path / "new.db", schema), make(tmp_path / "partial.db", schema)
    folder, _ = export(source, "json")
    before = target.read_bytes()

    report = load(folder, target)
    left = load(folder, partial, partial=True)

    found = [(one.table, one.row, one.reason) for one in report.refused]
    assert (report.committed, report.refused_rows) == (False, 4)
    assert found[:2] == [("a", row, "UNIQUE constraint failed: a.v") for row in (1500, 2999)]
    assert found[2:] == [("b", 0, "it refers to a row of a that is not there")] * 2
    assert target.read_bytes() == before
    assert left.committed
    assert {(one.table, one.rows, one.refused) for one in left.tables} == {("a", 2998, 2), ("b", 2, 2)}
    assert shell(partial, "SELECT count(*), sum(id) FROM a; SELECT id FROM b; PRAGMA foreign_key_check") == (
        f"2998|{3000 * 3001 // 2 - 4499}\n1\n3\n"
    )


RING = """
CREATE TABLE event (id INTEGER PRIMARY KEY, name {}, hero_id INT REFERENCES photo (id) ON DELETE SET NULL);
CREATE TABLE photo (id INT, event_id INT REFERENCES event (id) ON DELETE CASCADE, PRIMARY KEY (id)) {};
CREATE TABLE mark (rowid INT, _rowid_ INT, oid INT, photo_id INT REFERENCES photo);
"""


@pytest.mark.parametrize("kind", ["", "WITHOUT ROWID"])
def test_rows_that_refer_to_one_left_out_are_left_out_too_in_a_circle(kind: str, tmp_path: Path) -> None:
    # Event 2 is refused, and so its photos, event 3 whose hero is one of them, its photo, and their marks.
    source = make(
        tmp_path / "app.db",
        RING.format("TEXT", kind),
        "INSERT INTO event VALUES (1, 'a', 10), (2, 'a', 21), (3, 'c', 20), (4, 'd', NULL);"
        "INSERT INTO photo VALUES (10, 1), (20, 2), (21, 2), (30, 3), (40, 4);"
        "INSERT INTO mark VALUES (7, 7, 7, 30), (7, 7, 7, 30), (7, 7, 7, 40), (7, 7, 7, NULL)",
    )
    schema = RING.format("TEXT UNIQUE", kind)
    target, partial = make(tmp_path / "new.db", schema), make(tmp_path / "partial.db", schema)
    folder, _ = export(source, "json")
    before = target.read_bytes()

    tried, whole = load(folder, target, dry_run=True), load(folder, target)
    left = load(folder, partial, partial=True)

    counts = [("event", 2, 2), ("mark", 2, 2), ("photo", 2, 3)]
    for report, committed in ((tried, False), (whole, False), (left, True)):
        assert (report.committed, report.refused_rows) == (committed, 7)
        assert [(one.table, one.rows, one.refused) for one in report.tables] == counts
    assert target.read_bytes() == before
    found = shell(partial, "SELECT * FROM event; SELECT * FROM photo ORDER BY 1; SELECT photo_id FROM mark")
    assert found == "1|a|10\n4|d|\n10|1\n40|4\n40\n\n"
    assert shell(partial, "PRAGMA foreign_key_check; PRAGMA integrity_check") == "ok\n"


def test_a_broken_key_of_a_table_that_is_not_loaded_is_named_once_and_left_alone(tmp_path: Path) -> None:
    source = make(tmp_path / "app.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)", "INSERT INTO a VALUES (1)")
    more = "CREATE TABLE b (a_id INT REFERENCES a (id)); INSERT INTO b VALUES (1), (2)"
    target = make(tmp_path / "new.db", "CREATE TABLE a (id INTEGER PRIMARY KEY)", more)
    folder, _ = export(source, "json")

    report = load(folder, target, partial=True)

    assert report.committed
    assert [(one.table, one.row) for one in report.refused] == [("b", 0)]
    assert shell(target, "SELECT * FROM a; SELECT * FROM b") == "1\n1\n2\n"


def test_a_dry_run_changes_nothing(database: Path, tmp_path: Path) -> None:
    folder, _ = export(database, "json")
    target = make(tmp_path / "new.db", SCHEMA, encoding=content(database)["PRAGMA encoding"][0].decode())
    before = content(target)

    report = load(folder, target, dry_run=True)

    assert (report.committed, report.refused_rows) == (False, 0)
    assert content(target) == before


def test_a_table_with_other_rows_stops_the_import_and_one_with_the_same_does_not(tmp_path: Path) -> None:
    schema = "CREATE TABLE version (v TEXT); INSERT INTO version VALUES ('abc'); CREATE TABLE a (x);"
    source = make(tmp_path / "app.db", schema, "INSERT INTO a VALUES (1)")
    same, other = make(tmp_path / "same.db", schema), make(tmp_path / "other.db", schema)
    shell(other, "UPDATE version SET v = 'abd'")
    folder, _ = export(source, "json")

    report = load(folder, same)

    assert [(one.table, one.already) for one in report.tables] == [("a", False), ("version", True)]
    with pytest.raises(RestoreRefused, match=r"version \(1 row\)"):
        load(folder, other)
    assert shell(other, "SELECT count(*) FROM a") == "0\n"


def test_a_full_text_index_in_use_is_not_written_over(tmp_path: Path) -> None:
    schema = "CREATE VIRTUAL TABLE free USING fts5(words);"
    source = make(tmp_path / "app.db", schema, "INSERT INTO free VALUES ('theirs')")
    target = make(tmp_path / "new.db", schema, "INSERT INTO free VALUES ('ours')")
    folder, _ = export(source, "json")

    with pytest.raises(RestoreRefused, match="hold other rows"):
        load(folder, target)

    assert shell(target, "SELECT * FROM free('ours')") == "ours\n"


def test_a_key_that_sqlite_cannot_follow_is_told_and_stops_nothing(tmp_path: Path) -> None:
    schema = "CREATE TABLE a (x); CREATE TABLE b (x REFERENCES a (x));"
    source, target = (
        make(tmp_path / "app.db", schema, "INSERT INTO b VALUES (1)"),
        make(tmp_path / "b", schema),
    )

    report = load(export(source, "json")[0], target)

    assert report.committed
    assert "could not be checked: foreign key mismatch" in report.notices[0]


def test_what_does_not_fit_is_told_before_anything_is_written(tmp_path: Path) -> None:
    source = make(tmp_path / "app.db", "CREATE TABLE a (x, y); CREATE TABLE b (x)")
    target = make(tmp_path / "new.db", "CREATE TABLE a (x)")
    folder, _ = export(source, "json")

    with pytest.raises(RestoreRefused, match="table a has no column y; there is no table b"):
        load(folder, target)


def test_a_file_that_was_changed_is_never_loaded(tmp_path: Path) -> None:
    schema = "CREATE TABLE a (x);"
    source, target = (
        make(tmp_path / "app.db", schema, "INSERT INTO a VALUES ('honest')"),
        make(tmp_path / "b", schema),
    )
    folder, _ = export(source, "json")
    (file,) = (folder / "tables").iterdir()
    file.write_bytes(file.read_bytes().replace(b"honest", b"forged"))

    with pytest.raises(Damaged, match="not what was exported"):
        load(folder, target)
    (folder / "export.json").unlink()
    with pytest.raises(RestoreRefused, match="no json export"):
        load(folder, target)

    assert shell(target, "SELECT count(*) FROM a") == "0\n"


def test_a_column_that_changes_what_it_is_given_fails_the_import(tmp_path: Path) -> None:
    source = make(tmp_path / "app.db", "CREATE TABLE a (x TEXT); INSERT INTO a VALUES ('007')")
    target = make(tmp_path / "new.db", "CREATE TABLE a (x INTEGER)")
    folder, _ = export(source, "json")

    with pytest.raises(Exception, match="does not hold what was exported"):
        load(folder, target)

    assert shell(target, "SELECT count(*) FROM a") == "0\n"


def test_a_database_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    schema = "CREATE TABLE a (x);"
    source, target = (
        make(tmp_path / "app.db", schema, "INSERT INTO a VALUES (1)"),
        make(tmp_path / "b", schema),
    )
    folder, _ = export(source, "json")
    with closing(sqlite3.connect(target, isolation_level=None)) as app:
        app.execute("BEGIN IMMEDIATE")

        with pytest.raises(Busy):
            load(folder, target)

        app.execute("INSERT INTO a VALUES (2)")
        app.execute("COMMIT")
    assert shell(target, "SELECT x FROM a") == "2\n"


def test_an_order_of_text_that_only_the_app_knows_stops_a_compact_copy_alone(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as app, app:
        app.create_collation("german", lambda a, b: (a > b) - (a < b))
        app.execute("CREATE TABLE a (x TEXT PRIMARY KEY COLLATE german) WITHOUT ROWID")
        app.execute("INSERT INTO a VALUES ('z'), ('ä')")

    _, as_json = export(path, "json")
    _, as_sql = export(path, "sql")

    assert (as_json.rows, as_sql.rows, as_sql.problems) == (2, 2, ())
    with pytest.raises(SourceError, match="only the app knows"):
        export(path, "compact")
    assert not (tmp_path / "app.db.compact").exists()


def test_a_script_that_cannot_be_tried_says_so(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as app, app:
        app.create_function("shout", 1, str.upper, deterministic=True)
        app.execute("CREATE TABLE a (x TEXT CHECK (shout(x) = x))")
        app.execute("INSERT INTO a VALUES ('A')")

    script, report = export(path, "sql")

    assert "could not be tried" in report.problems[0]
    assert "no such function" in report.problems[0]
    assert "INSERT INTO" in script.read_text()


def test_a_definition_that_brings_a_command_is_not_written_into_a_script(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "CREATE TABLE a (x DEFAULT ';')", "CREATE TABLE b (x)")
    export(path, "sql")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_master SET sql = sql || '; \n.shell id' WHERE name = 'b'")
    (tmp_path / "app.db.sql").unlink()

    with pytest.raises(SourceInvalid, match="definition of b holds more"):
        export(path, "sql")

    assert not (tmp_path / "app.db.sql").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", "CREATE TABLE a (x)")
    (tmp_path / "app.db.sql").write_text("mine")

    with pytest.raises(RestoreRefused, match="is there already"):
        export(path, "sql")

    assert (tmp_path / "app.db.sql").read_text() == "mine"
