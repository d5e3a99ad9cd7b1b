"""A table's digest changes when its rows do; the older kind is the one the docstring names."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.sources import sqlite_digest
from backup_admin.sources.sqlite import SqliteSource, inspect_copy
from backup_admin.sources.sqlite_digest import digest_tables, encode_row

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.sources.sqlite import SqliteCopy


def capture(path: Path) -> SqliteCopy:
    return SqliteSource("app", path).capture(path.parent)


def values_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the digests of the older kind."""
    with closing(sqlite3.connect(path)) as connection:
        return {table["name"]: table for table in digest_tables(connection, [])}


def make(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


ALL = (
    "CREATE TABLE plain(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b)",
    "INSERT INTO plain(a, b) VALUES (NULL, 1), (-9223372036854775808, 9223372036854775807)",
    "INSERT INTO plain(a, b) VALUES (2147483648, -2147483649), (9e999, -9e999), (-0.0, 0.1)",
    "INSERT INTO plain(a, b) VALUES ('', x''), ('1', 1), (x'31', 1.0), ('a' || char(0) || 'b', 'é📷')",
    "INSERT INTO plain(a, b) VALUES (CAST(x'ff41fe' AS TEXT), x'ff41fe')",
    "CREATE TABLE no_rowid(k TEXT, j INT, v, PRIMARY KEY(k DESC, j)) WITHOUT ROWID",
    "CREATE INDEX covers ON no_rowid(v, j, k)",
    "INSERT INTO no_rowid VALUES ('b', 1, 2), ('a', 2, 1), ('a', 1, 3), ('B', 1, 0)",
    "CREATE TABLE exact(a INT, b TEXT, c ANY) STRICT",
    "INSERT INTO exact VALUES (1, '2', x'03')",
    "CREATE TABLE computed(a INT, twice INT AS (a * 2), kept INT AS (a * 3) STORED)",
    "INSERT INTO computed(a) VALUES (5), (6)",
    'CREATE TABLE shadowed(rowid TEXT, _rowid_ TEXT, oid TEXT, "quo""te" INT)',
    "INSERT INTO shadowed VALUES ('z', 'y', 'x', 1), ('a', 'b', 'c', 2)",
    "CREATE TABLE keyed(name TEXT PRIMARY KEY, v)",
    "CREATE INDEX cover_keyed ON keyed(v, name)",
    "INSERT INTO keyed VALUES ('z', 1), ('a', 2)",
    "CREATE VIRTUAL TABLE search USING fts5(body)",
    "INSERT INTO search VALUES ('the quick brown fox')",
    "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1)",
    "INSERT INTO boxes VALUES (1, 0.5, 1.5)",
    "CREATE TABLE empty(a)",
    "CREATE VIEW seen AS SELECT * FROM plain",
    "ANALYZE",
)
TABLES = {
    "boxes_node",
    "boxes_parent",
    "boxes_rowid",
    "computed",
    "empty",
    "exact",
    "keyed",
    "no_rowid",
    "plain",
    "search_config",
    "search_content",
    "search_data",
    "search_docsize",
    "search_idx",
    "shadowed",
    "sqlite_sequence",
}


def test_every_table_that_stores_rows_is_taken_in(tmp_path: Path) -> None:
    copy = capture(make(tmp_path / "app.db", *ALL))

    assert [table.name for table in copy.tables] == sorted(TABLES)
    rows = {table.name: table.rows for table in copy.tables}
    assert (rows["plain"], rows["empty"], rows["sqlite_sequence"]) == (10, 0, 1)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_a_vacuumed_copy_has_the_same_digests(tmp_path: Path, encoding: str) -> None:
    path = make(tmp_path / "app.db", f"PRAGMA encoding='{encoding}'", *ALL)
    make(path, "PRAGMA page_size=8192", f"VACUUM INTO '{tmp_path / 'other.db'}'")

    first, second = capture(path), inspect_copy(tmp_path / "other.db")

    assert first.encoding == encoding
    assert (first.page_size, second.page_size) == (4096, 8192)
    assert (first.tables, first.schema) == (second.tables, second.schema)


def test_the_algorithm_is_the_one_in_the_docstring(tmp_path: Path) -> None:
    path = make(
        tmp_path / "app.db",
        "CREATE TABLE t(a, b)",
        "INSERT INTO t VALUES (NULL, 1), (-5000000000, 1.5), ('é', x'00ff')",
    )
    header = b"(\2\0\0\0" + b"u\1\0\0\0a" + b"u\1\0\0\0b"
    digits = [5000000000 >> shift & 0x7FFF for shift in (0, 15, 30)]
    rows = [
        b"(\2\0\0\0" + b"N" + b"i\1\0\0\0",
        b"(\2\0\0\0" + b"l" + struct.pack("<i3H", -3, *digits) + b"g" + struct.pack("<d", 1.5),
        b"(\2\0\0\0" + b"u\2\0\0\0\xc3\xa9" + b"s\2\0\0\0\x00\xff",
    ]

    table = values_of(path)["t"]

    assert table["checksum"] == f"sha256:{hashlib.sha256(header + b''.join(rows)).hexdigest()}"
    assert (table["rows"], table["size"]) == (3, len(b"".join(rows)))


def test_virtual_generated_columns_are_left_out_and_stored_ones_are_not(tmp_path: Path) -> None:
    path = make(
        tmp_path / "app.db",
        "CREATE TABLE t(a INT, twice INT AS (a * 2), kept INT AS (a * 3) STORED)",
        "INSERT INTO t(a) VALUES (5)",
    )
    expected = encode_row(["a", "kept"], (True, True)) + encode_row([5, 15], (False, False))

    assert values_of(path)["t"]["checksum"] == f"sha256:{hashlib.sha256(expected).hexdigest()}"


def test_marshal_and_the_encoding_by_hand_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "app.db", *ALL)
    assert sqlite_digest._marshal_is_exact()
    with closing(sqlite3.connect(path)) as connection:
        fast = list(digest_tables(connection, []))
        monkeypatch.setattr(sqlite_digest, "_marshal_is_exact", lambda: False)

        assert list(digest_tables(connection, [])) == fast


def test_text_that_is_not_utf8_is_told_from_a_blob_of_the_same_bytes(tmp_path: Path) -> None:
    text = make(tmp_path / "a.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT)), ('é')")
    blob = make(tmp_path / "b.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES (x'ff'), ('é')")
    header = encode_row(["a"], (True,))
    rows = encode_row([b"\xff"], (True,)) + encode_row(["é"], (False,))

    first, second = values_of(text)["t"], values_of(blob)["t"]

    assert first["checksum"] == f"sha256:{hashlib.sha256(header + rows).hexdigest()}"
    assert first["checksum"] != second["checksum"]
    assert capture(text).tables != capture(blob).tables


@pytest.mark.parametrize(
    ("table", "statement"),
    [
        ("plain", "UPDATE plain SET a = CAST(a AS TEXT) WHERE id = 2"),
        ("plain", "UPDATE plain SET b = 1.0 WHERE id = 1"),
        ("plain", "UPDATE plain SET a = x'31' WHERE a = '1' AND typeof(a) = 'text'"),
        ("plain", "DELETE FROM plain WHERE id = 3"),
        ("no_rowid", "UPDATE no_rowid SET v = 9 WHERE k = 'B'"),
        ("computed", "UPDATE computed SET a = 7 WHERE a = 6"),
        ("shadowed", "UPDATE shadowed SET rowid = 'other' WHERE oid = 'x'"),
        ("search_content", "UPDATE search SET body = 'the quick brown dog'"),
        ("sqlite_sequence", "UPDATE sqlite_sequence SET seq = 1000"),
        ("empty", "ALTER TABLE empty ADD COLUMN more"),
    ],
)
def test_each_change_is_seen_in_its_table(tmp_path: Path, table: str, statement: str) -> None:
    path = make(tmp_path / "app.db", *ALL)
    before = {item.name: item for item in capture(path).tables}
    make(path, statement)

    after = {item.name: item for item in capture(path).tables}

    changed = {name for name in after if after[name] != before[name]}
    assert table in changed
    assert {name.partition("_")[0] for name in changed} == {table.partition("_")[0]}


@pytest.mark.parametrize(
    "statement",
    [
        "DROP VIEW seen",
        "DROP INDEX covers",
        "DROP INDEX cover_keyed",
        "CREATE TRIGGER t1 INSERT ON plain BEGIN SELECT 1; END",
    ],
)
def test_a_change_of_the_schema_alone_is_seen(tmp_path: Path, statement: str) -> None:
    path = make(tmp_path / "app.db", *ALL)
    before = capture(path)
    make(path, statement)

    after = capture(path)

    assert after.tables == before.tables
    assert after.schema != before.schema


def test_statistics_change_nothing(tmp_path: Path) -> None:
    path = make(tmp_path / "app.db", *ALL[:-1])
    before = capture(path)
    make(path, "ANALYZE")

    after = capture(path)

    assert (after.tables, after.schema) == (before.tables, before.schema)
