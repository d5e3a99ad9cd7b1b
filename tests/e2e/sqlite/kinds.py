"""Databases of every kind that SQLite knows, each made by itself and with a way to spoil it."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Rows with holes between their rowids, an index, and enough of them for a tree of some depth.
PLAIN = (
    "CREATE TABLE guest(name TEXT, note TEXT)",
    "CREATE INDEX by_note ON guest(note)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
    "INSERT INTO guest SELECT 'guest ' || i || ' ä שלום', hex(randomblob(30)) FROM n",
    "DELETE FROM guest WHERE rowid % 7 = 0",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of database: the pragmas it begins with, and the statements that fill it.

    What `ends` says comes last of all. `knows` says that the app has a collation and a function
    which nobody else has; `reserved` bytes are left free at the end of each page.
    """

    statements: tuple[str, ...] = PLAIN
    pragmas: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    journal: str = "delete"
    file_name: str = ""
    knows: bool = False
    reserved: int = 0


def connect(path: Path, *, knows: bool = False) -> sqlite3.Connection:
    """Connect as the app does; with `knows` it has a collation and a function of its own."""
    connection = sqlite3.connect(path, isolation_level=None)
    if knows:
        connection.create_collation("ours", lambda first, second: (first < second) - (first > second))
        connection.create_function("double_of", 1, lambda value: 2 * value, deterministic=True)
    return connection


def make(kind: Kind, path: Path) -> Path:
    """Make a database of this kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind.reserved:
        commands = (f".filectrl reserve_bytes {kind.reserved}", "PRAGMA user_version=1")
        subprocess.run(["sqlite3", path, *commands], check=True, capture_output=True)
    with closing(connect(path, knows=kind.knows)) as db:
        journal = f"PRAGMA journal_mode={kind.journal}"
        for statement in (*kind.pragmas, journal, *kind.statements, *kind.ends):
            db.execute(statement).fetchall()
    return path


def spoil(kind: Kind, path: Path) -> None:
    """Lose half the rows of every table, leave another table behind and another version."""
    with closing(connect(path, knows=kind.knows)) as db:
        db.execute("PRAGMA recursive_triggers=OFF")
        db.execute("BEGIN")
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        for (table,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 "
            "AND name NOT LIKE 'sqlite_%' AND name NOT GLOB 'words*_*' AND name NOT GLOB 'places_*'"
        ).fetchall():
            quoted = table.replace('"', '""')
            db.execute(f'CREATE TABLE "kept {quoted}" AS SELECT * FROM "{quoted}" LIMIT 3')
            db.execute(f'DELETE FROM "{quoted}" WHERE random() % 2')
        db.execute("CREATE TABLE intruder(a)")
        db.execute("INSERT INTO intruder VALUES ('came after the backup')")
        db.execute("PRAGMA user_version=12345")
        db.execute("COMMIT")


def _many(count: int) -> str:
    return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) "


_DOCUMENTS = (
    "CREATE TABLE note(id INTEGER PRIMARY KEY, title TEXT, body TEXT)",
    _many(400) + "INSERT INTO note SELECT i * 3, 'title ' || i, 'the cake of guest ' || hex(i) FROM n",
)
_EXTREMES = (
    "CREATE TABLE value(id INTEGER PRIMARY KEY, what)",
    "INSERT INTO value(what) VALUES (9223372036854775807), (-9223372036854775807 - 1), (4294967296), (0), "
    "(-1), (9e999), (-9e999), (-0.0), (0.1), (1e-320), (1.7976931348623157e308), (3.0), (NULL), (''), (x''), "
    "(CAST(x'610062' AS TEXT)), (CAST(x'fffe80c3' AS TEXT)), (CAST(x'00' AS TEXT)), (x'00ff00'), "
    "(zeroblob(70000)), ('\U0001f389'), (x'c3a4'), (CAST(x'eda080' AS TEXT)), (1), (1.0), ('1')",
)

KINDS: dict[str, Kind] = {
    **{
        f"journal-{mode}": Kind(journal=mode)
        for mode in ("delete", "truncate", "persist", "memory", "off", "wal")
    },
    **{f"pages-of-{512 << n}": Kind(pragmas=(f"PRAGMA page_size={512 << n}",)) for n in range(8)},
    **{
        f"wal-pages-of-{size}": Kind(pragmas=(f"PRAGMA page_size={size}",), journal="wal")
        for size in (512, 65536)
    },
    **{
        f"auto-vacuum-{mode}": Kind(
            pragmas=(f"PRAGMA auto_vacuum={mode}",),
            ends=("DELETE FROM guest WHERE rowid > 1000", "PRAGMA incremental_vacuum(3)"),
        )
        for mode in ("none", "full", "incremental")
    },
    **{name: Kind(pragmas=(f"PRAGMA encoding='{name}'",)) for name in ("UTF-8", "UTF-16le", "UTF-16be")},
    "full-text": Kind(
        (
            *_DOCUMENTS,
            "CREATE VIRTUAL TABLE words USING fts5(title, body)",
            "INSERT INTO words SELECT title, body FROM note",
            "DELETE FROM words WHERE rowid % 5 = 0",
            "INSERT INTO words(words) VALUES ('optimize')",
        )
    ),
    "full-text-contentless": Kind(
        (
            *_DOCUMENTS,
            "CREATE VIRTUAL TABLE words USING fts5(title, body, content='', prefix='2 3')",
            "INSERT INTO words(rowid, title, body) SELECT id, title, body FROM note",
        )
    ),
    "full-text-external": Kind(
        (
            "CREATE TABLE note(title TEXT, body TEXT)",  # the rowid is all that ties both together
            _many(400) + "INSERT INTO note SELECT 'title ' || i, 'cake ' || hex(i) FROM n",
            "DELETE FROM note WHERE rowid % 3 = 0",
            "CREATE VIRTUAL TABLE words USING fts5(title, body, content='note')",
            "INSERT INTO words(words) VALUES ('rebuild')",
        )
    ),
    "full-text-4": Kind(
        (*_DOCUMENTS, "CREATE VIRTUAL TABLE words USING fts4(a)", "INSERT INTO words SELECT body FROM note")
    ),
    "rtree": Kind(
        (
            "CREATE VIRTUAL TABLE places USING rtree(id, x0, x1, y0, y1, +name TEXT)",
            _many(300) + "INSERT INTO places SELECT i, i, i + 1, -i, i, 'place ' || i FROM n",
        )
    ),
    "without-rowid": Kind(
        (
            "CREATE TABLE rating(event INT, guest TEXT COLLATE NOCASE, stars REAL, "
            "PRIMARY KEY (event DESC, guest)) WITHOUT ROWID",
            "CREATE INDEX by_stars ON rating(stars)",
            _many(800) + "INSERT INTO rating SELECT i % 40, 'Guest ' || i, i * 0.1 FROM n",
        )
    ),
    "generated": Kind(
        (
            "CREATE TABLE photo(path TEXT, name TEXT AS (substr(path, 8)) STORED, "
            "length INT AS (length(path)), twice INT AS (length * 2) VIRTUAL)",
            "CREATE INDEX by_length ON photo(length, name)",
            _many(300) + "INSERT INTO photo SELECT 'photos/' || i FROM n",
        )
    ),
    "strict": Kind(
        (
            "CREATE TABLE photo(id INTEGER PRIMARY KEY, size INT NOT NULL, hash BLOB, any_thing ANY) STRICT",
            _many(300)
            + "INSERT INTO photo SELECT i, i * 1000, randomblob(8), CASE i % 2 WHEN 1 THEN i END FROM n",
        )
    ),
    "indexes": Kind(
        (
            *PLAIN,
            "CREATE UNIQUE INDEX partial ON guest(name) WHERE note > '8'",
            "CREATE INDEX expression ON guest(lower(name) COLLATE NOCASE DESC, length(note))",
        )
    ),
    "views-and-triggers": Kind(
        (
            *_DOCUMENTS,
            "CREATE TABLE log(at TEXT, what TEXT)",
            "CREATE VIEW loud AS SELECT id, upper(title) AS title FROM note WHERE id > 10",
            "CREATE TRIGGER noted AFTER DELETE ON note BEGIN INSERT INTO log VALUES ('t', old.title); END",
            "CREATE TRIGGER loud_insert INSTEAD OF INSERT ON loud BEGIN "
            "INSERT INTO note(title, body) VALUES (new.title, ''); END",
            "INSERT INTO loud(title) VALUES ('through a view')",
            "DELETE FROM note WHERE id % 9 = 0",
        )
    ),
    "autoincrement": Kind(
        (
            "CREATE TABLE event(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT)",
            _many(50) + "INSERT INTO event(name) SELECT 'event ' || i FROM n",
            "DELETE FROM event WHERE id > 30",
        )
    ),
    "checks-and-collations": Kind(
        (
            "CREATE TABLE account(name TEXT COLLATE NOCASE UNIQUE, trimmed TEXT COLLATE RTRIM, "
            "money INT CHECK (money >= 0) DEFAULT (abs(-3)), UNIQUE (trimmed, money) ON CONFLICT REPLACE)",
            _many(100) + "INSERT INTO account SELECT 'Name ' || i, 'x  ', i FROM n",
        )
    ),
    "foreign-keys": Kind(
        (
            "CREATE TABLE event(id INTEGER PRIMARY KEY, "
            "hero INT REFERENCES photo(id) DEFERRABLE INITIALLY DEFERRED)",
            "CREATE TABLE photo(id INTEGER PRIMARY KEY, event INT REFERENCES event(id) ON DELETE CASCADE, "
            "copy_of INT REFERENCES photo(id))",
            "INSERT INTO event VALUES (1, 2), (2, NULL)",
            "INSERT INTO photo VALUES (1, 1, NULL), (2, 1, 1), (3, 2, 3)",
        )
    ),
    "extremes": Kind(_EXTREMES),
    "extremes-UTF-16": Kind(
        (
            _EXTREMES[0],
            "INSERT INTO value(what) VALUES ('\U0001f389'), (CAST(x'3dd8' AS TEXT)), (''), (9e999), (x'00')",
        ),
        pragmas=("PRAGMA encoding='UTF-16le'",),
    ),
    "odd-names": Kind(
        (
            'CREATE TABLE "select ""from"" a;b"("a b" TEXT, "" TEXT, "päth" TEXT, "x""y" INT)',
            "INSERT INTO \"select \"\"from\"\" a;b\" VALUES ('1', '2', '3', 4)",
            'CREATE TABLE ""(a)',
            'INSERT INTO "" VALUES (1)',
            'CREATE TABLE "rowids"(rowid TEXT, _rowid_ TEXT, oid TEXT)',
            "INSERT INTO rowids VALUES ('a', 'b', 'c')",
        ),
        file_name="a b?c=d#e%20'\"\n\U0001f389;$(x).db",
    ),
    "schema-only": Kind(("CREATE TABLE guest(a)", "CREATE INDEX i ON guest(a)", "CREATE VIEW v AS SELECT 1")),
    "nothing-at-all": Kind(("PRAGMA user_version=3",)),
    "numbers-of-the-app": Kind(ends=("PRAGMA user_version=-2147483648", "PRAGMA application_id=2147483647")),
    "reserved-bytes": Kind(reserved=40),
    "free-pages": Kind(ends=("DELETE FROM guest WHERE rowid < 1900",)),
    "rowids-with-holes": Kind(
        (
            "CREATE TABLE guest(name)",
            "INSERT INTO guest(rowid, name) VALUES (-5, 'a'), (7, 'b'), (9223372036854775807, 'c'), (0, 'd')",
        )
    ),
    "altered": Kind(
        (
            *PLAIN,
            "ALTER TABLE guest ADD COLUMN stars INT NOT NULL DEFAULT 5",
            "ALTER TABLE guest RENAME COLUMN note TO remark",
            "INSERT INTO guest VALUES ('new', 'x', 3)",
            "CREATE TABLE short(a, b, c)",
            "INSERT INTO short VALUES (1, 2, 3)",
            "ALTER TABLE short DROP COLUMN b",
        )
    ),
    "analyzed": Kind(ends=("ANALYZE",)),
    "many-tables": Kind(tuple(f"CREATE TABLE t{n}(a PRIMARY KEY, b)" for n in range(300))),
    "many-columns": Kind(
        (
            f"CREATE TABLE wide({', '.join(f'c{n}' for n in range(900))})",
            f"INSERT INTO wide VALUES ({', '.join(str(n) for n in range(900))})",
        )
    ),
    "large-values": Kind(
        (
            "CREATE TABLE film(id INTEGER PRIMARY KEY, body BLOB, script TEXT)",
            "INSERT INTO film VALUES (1, randomblob(3000000), replace(hex(zeroblob(1000000)), '00', 'ä'))",
            "INSERT INTO film VALUES (2, zeroblob(2000000), '')",
        )
    ),
    "what-only-the-app-knows": Kind(
        (
            "CREATE TABLE guest(name TEXT COLLATE ours PRIMARY KEY, age INT) WITHOUT ROWID",
            "CREATE TABLE account(age INT CHECK (double_of(age) > 0), twice INT AS (double_of(age)) STORED)",
            "CREATE INDEX by_double ON account(double_of(age))",
            _many(200) + "INSERT INTO guest SELECT 'guest ' || i, i FROM n",
            _many(200) + "INSERT INTO account SELECT i FROM n",
        ),
        knows=True,
    ),
}
