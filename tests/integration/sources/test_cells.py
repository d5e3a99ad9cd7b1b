"""The digest of a table is that of its cells, written here by hand from what SQLite says its rows are."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backup_admin.core.errors import SourceInvalid
from backup_admin.sources.sidecars import COUNTERS
from backup_admin.sources.sqlite import SqliteSource, inspect_copy
from backup_admin.sources.sqlite_btree import PageFile
from backup_admin.sources.sqlite_digest import digest_cells, digest_tables, encode_row
from backup_admin.sources.sqlite_open import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[3]
VECTOR = ("CREATE TABLE t(", "INSERT INTO t ")
_MAKE_PAGES = (
    "PRAGMA synchronous=OFF; PRAGMA journal_mode=MEMORY; "
    "PRAGMA page_size={size}; PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={vacuum};"
)
_CODECS = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}
_TABLES = """
CREATE TABLE plain(a, b, c);
CREATE TABLE numbered(id INTEGER PRIMARY KEY, a, b);
CREATE TABLE keyed(a, k, l, PRIMARY KEY (k, l)) WITHOUT ROWID;
"""
# In the order of the record: a number that is the rowid is stored as NULL, a key comes first.
_STORED = {
    "plain": ("rowid", ("a", "b", "c")),
    "numbered": ("rowid", ("NULL", "a", "b")),
    "keyed": ("", ("k", "l", "a")),
}
_COLUMNS = {"plain": "abc", "numbered": ("id", "a", "b"), "keyed": "akl"}

_SPECIAL_INTEGERS = [(1 << bits) + add for bits in (*range(0, 57, 7), 15, 23, 31, 47) for add in (-1, 0, 1)]
_INTEGERS = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from(_SPECIAL_INTEGERS + [-value for value in _SPECIAL_INTEGERS]),
)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_VALUES = st.one_of(
    st.none(),
    _INTEGERS,
    st.floats(allow_nan=False),
    _TEXTS,
    st.binary(max_size=40),
    st.integers(0, 5_000).map(lambda size: bytes(range(256)) * (size // 256) + bytes(size % 256)),
    st.integers(0, 5_000).map(lambda size: "é" * size),
)
_ROWS = st.lists(st.tuples(_VALUES, _VALUES, _VALUES), max_size=40)
_LAYOUTS = st.tuples(
    st.sampled_from([512, 1024, 4096, 65_536]), st.sampled_from(sorted(_CODECS)), st.integers(0, 2)
)


def by_hand(connection: sqlite3.Connection, table: str) -> dict[str, Any]:
    """Return what the digest of a table has to be, from its rows and the file format of SQLite."""
    rowid, stored = _STORED[table]
    columns = ", ".join((rowid or "NULL", *stored))
    order = "rowid DESC" if rowid else "k DESC, l DESC"
    codec = _CODECS[connection.execute("PRAGMA encoding").fetchone()[0]]
    cells = []
    for number, *values in connection.execute(f"SELECT {columns} FROM {table} ORDER BY {order}"):
        payload = record(values, codec)
        cells.append(varint(len(payload)) + (varint(number) if rowid else b"") + payload)
    names = list(_COLUMNS[table])
    data = encode_row(names, (True,) * len(names)) + b"".join(cells)
    checksum = f"sha256/2:{hashlib.sha256(data).hexdigest()}"
    return {"name": table, "rows": len(cells), "size": sum(map(len, cells)), "checksum": checksum}


def record(values: Sequence[Any], codec: str) -> bytes:
    types, body = zip(*(stored_value(value, codec) for value in values), strict=True)
    head = b"".join(map(varint, types))
    size = len(head) + 1
    size += len(varint(size)) - 1
    return varint(size) + head + b"".join(body)


def stored_value(value: Any, codec: str) -> tuple[int, bytes]:
    """Return the number of its type, and its bytes."""
    if value is None:
        return 0, b""
    if isinstance(value, float):
        return 7, struct.pack(">d", value)
    if isinstance(value, int):
        if value in (0, 1):
            return 8 + value, b""
        sizes = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
        kind = next(kind for kind, size in sizes.items() if -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1)
        return kind, value.to_bytes(sizes[kind], "big", signed=True)
    if isinstance(value, str):
        data = value.encode(codec)
        return 13 + 2 * len(data), data
    return 12 + 2 * len(value), value


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    if value >= 1 << 56:
        return bytes(0x80 | value >> shift & 0x7F for shift in range(57, 7, -7)) + bytes([value & 0xFF])
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(0x80 | value & 0x7F)
    return bytes(reversed(parts))


@dataclass
class Place:
    """A folder with room for one database after the other."""

    path: Path

    def make(self, layout: tuple[int, str, int], *statements: str) -> sqlite3.Connection:
        for old in self.path.iterdir():
            old.unlink()
        connection = sqlite3.connect(self.path / "app.db", isolation_level=None)
        size, encoding, vacuum = layout
        connection.executescript(_MAKE_PAGES.format(size=size, encoding=encoding, vacuum=vacuum))
        for statement in statements:
            connection.executescript(statement)
        return connection

    def digests(self, name: str = "app.db", **known: str) -> dict[str, dict[str, Any]]:
        path = self.path / name
        with closing(sqlite3.connect(path)) as copy, path.open("rb", buffering=0) as file:
            found = digest_cells(copy, [], PageFile(file, str(path)), known)
            return {table["name"]: table for table in found}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("cells"))


@given(layout=_LAYOUTS, rows=_ROWS, numbers=st.sets(_INTEGERS, max_size=40), dropped=st.integers(1, 5))
def test_a_digest_is_that_of_the_cells_written_by_hand(
    place: Place, layout: tuple[int, str, int], rows: list[Any], numbers: set[int], dropped: int
) -> None:
    with closing(place.make(layout, _TABLES)) as connection:
        connection.executemany("INSERT INTO plain VALUES (?, ?, ?)", rows)
        pairs = zip(sorted(numbers), rows, strict=False)
        connection.executemany(
            "INSERT INTO numbered VALUES (?, ?, ?)", [(number, *row[:2]) for number, row in pairs]
        )
        connection.executemany(
            "INSERT OR IGNORE INTO keyed VALUES (?, ifnull(?, 0), ifnull(?, 0))", [row[::-1] for row in rows]
        )
        connection.execute(f"DELETE FROM plain WHERE rowid % {dropped} = 1")
        connection.execute(f"UPDATE numbered SET a = 'other', b = b WHERE id % {dropped + 1} = 1")
        connection.execute("VACUUM INTO ?", (str(place.path / "vacuumed.db"),))

        expected = {table: by_hand(connection, table) for table in _STORED}

    assert place.digests() == expected
    assert place.digests("vacuumed.db") == expected


@pytest.mark.parametrize("page_size", [512, 4096, 65_536])
@pytest.mark.parametrize("order", ["i", "-i", "(i * 7919) % 20011"])
def test_a_table_of_many_pages_is_read_to_its_last_row(place: Place, page_size: int, order: str) -> None:
    numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    with closing(place.make((page_size, "UTF-8", 0), _TABLES)) as connection:
        connection.execute(f"INSERT INTO numbered {numbers} SELECT {order}, hex(i), i * 0.7 FROM n")
        connection.execute(f"INSERT INTO keyed {numbers} SELECT i, {order}, NULLIF(i % 3, 5) FROM n")
        connection.execute(f"INSERT INTO plain {numbers} SELECT i, zeroblob(i % 900), NULL FROM n")
        connection.execute("DELETE FROM plain WHERE rowid % 1000 > 990")
        connection.execute("DELETE FROM keyed WHERE a % 1000 > 990")
        connection.execute("UPDATE numbered SET a = 'changed' WHERE id % 100 = 3")

        expected = {table: by_hand(connection, table) for table in _STORED}

    assert place.digests() == expected


@pytest.mark.parametrize("page_size", [512, 4096])
def test_rows_that_lie_on_scattered_overflow_pages_are_put_together(place: Place, page_size: int) -> None:
    with closing(place.make((page_size, "UTF-8", 0), _TABLES, "BEGIN")) as connection:
        for turn in range(3):
            for row in range(60):
                connection.execute(
                    "INSERT OR REPLACE INTO numbered VALUES (?, ?, ?)",
                    (row, bytes([row]) * (row * 997 * (turn + 1) % 60_000), "x" * row),
                )
            connection.execute("DELETE FROM numbered WHERE id % 3 = ?", (turn,))
        connection.execute("INSERT INTO keyed VALUES (zeroblob(200000), 'big', 'row')")
        connection.execute("COMMIT")

        expected = {table: by_hand(connection, table) for table in _STORED}

    assert place.digests() == expected


def test_short_cells_are_told_from_what_fills_them_up(place: Place) -> None:
    with closing(place.make((4096, "UTF-8", 0))) as connection:
        connection.execute("CREATE TABLE bits(k PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO bits VALUES (0), (1)")

    cells = bytes([2, 2, 9]) + bytes([2, 2, 8])
    data = encode_row(["k"], (True,)) + cells
    assert place.digests()["bits"]["checksum"] == f"sha256/2:{hashlib.sha256(data).hexdigest()}"


def test_a_column_that_was_added_leaves_the_rows_as_they_are(place: Place) -> None:
    with closing(
        place.make((4096, "UTF-8", 0), "CREATE TABLE t(a)", "INSERT INTO t VALUES (7)")
    ) as connection:
        connection.execute("ALTER TABLE t ADD COLUMN b DEFAULT 5")
        connection.execute("VACUUM INTO ?", (str(place.path / "vacuumed.db"),))

    data = encode_row(["a", "b"], (True, True)) + bytes([3, 1, 2, 1, 7])
    expected = f"sha256/2:{hashlib.sha256(data).hexdigest()}"
    assert place.digests()["t"]["checksum"] == expected
    assert place.digests("vacuumed.db")["t"]["checksum"] == expected


def test_a_table_keeps_the_older_kind_of_digest_until_it_changes(place: Place) -> None:
    with closing(place.make((4096, "UTF-8", 0), _TABLES)) as connection:
        connection.execute("INSERT INTO plain VALUES (1, 2, 3)")
        connection.execute("INSERT INTO numbered VALUES (1, 2, 3)")
        old = {table["name"]: table for table in digest_tables(connection, [])}
        connection.execute("UPDATE numbered SET a = 9")
        changed = by_hand(connection, "numbered")

    found = place.digests(**{name: table["checksum"] for name, table in old.items()})

    assert found == {"plain": old["plain"], "keyed": old["keyed"], "numbered": changed}


def test_what_our_triggers_counted_has_the_digest_that_a_live_database_gives(place: Place) -> None:
    with closing(place.make((4096, "UTF-8", 0), f"CREATE TABLE {COUNTERS}(name, changes)")) as connection:
        expected = list(digest_tables(connection, []))

    assert list(place.digests().values()) == expected


def test_a_backup_after_an_update_of_the_product_calls_no_table_changed(tmp_path: Path) -> None:
    live = tmp_path / "app.db"
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        connection.executescript(_TABLES)
        connection.execute("INSERT INTO plain VALUES (1, 2, 3)")
        known = {table["name"]: table["checksum"] for table in digest_tables(connection, [])}
    source = SqliteSource("app", live)

    at_once = source.capture(tmp_path, known=known)
    with source.describing(source.copy(tmp_path), known) as described:
        meanwhile = described()
    thorough = inspect_copy(at_once.path, thorough=True, known=known)

    for copy in (at_once, meanwhile, thorough):
        assert {table.name: table.checksum for table in copy.tables} == known


# --- pages that lie --------------------------------------------------------


def _tampered(place: Place, change: str) -> None:
    with closing(place.make((512, "UTF-8", 0), _TABLES)) as connection:
        numbers = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        connection.execute(f"INSERT INTO numbered {numbers} SELECT i, hex(i), NULL FROM n")
        connection.execute("INSERT INTO plain VALUES (zeroblob(5000), 1, 2)")
        connection.execute("INSERT INTO keyed VALUES (1, 2, 3)")
        tables = {
            name: (root - 1) * 512
            for name, root in connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage")
        }
    path = place.path / "app.db"
    data = bytearray(path.read_bytes())
    tree, long = tables["numbered"], tables["plain"]
    cell = long + int.from_bytes(data[long + 8 : long + 10], "big")
    overflow = data[long + 508 : long + 512]
    assert data[tree] == 5
    size = (data[cell] & 0x7F) << 7 | data[cell + 1]
    short = tables["keyed"] + int.from_bytes(data[tables["keyed"] + 8 : tables["keyed"] + 10], "big")
    circle = (int.from_bytes(overflow, "big") - 1) * 512
    changes = {
        "circle": {tree + 8: (tree // 512 + 1).to_bytes(4, "big")},
        "child": {tree + 8: b"\xff\xff\xff\xff"},
        "zero": {tree + 8: bytes(4)},
        "kind": {tree: b"\7"},
        "count": {tree + 3: b"\xff\xff"},
        "place": {tree + 12: b"\xff\xff"},
        "size": {cell: b"\xff" * 9},
        # Where bytes lie scattered, cells are looked at one by one.
        "beyond its page": {short: b"\x64", tables["keyed"] + 7: b"\1"},
        "overflow": {long + 508: b"\xff\xff\xff\xff"},
        # Three thousand pages longer; the size takes one byte more, and one less lies beside it.
        "overflow in a circle": {circle: overflow, cell: varint(size - 1 + 508 * 3000)},
        "end": {},
    }
    for at, changed in changes[change].items():
        data[at : at + len(changed)] = changed
    if change == "end":
        del data[-1024:]
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        "circle",
        "child",
        "zero",
        "kind",
        "count",
        "place",
        "size",
        "beyond its page",
        "overflow",
        "overflow in a circle",
        "end",
    ],
)
def test_pages_that_lie_are_damage_and_no_endless_work(place: Place, change: str) -> None:
    _tampered(place, change)

    with pytest.raises((Failure, sqlite3.DatabaseError)):
        place.digests()
    with pytest.raises(SourceInvalid):
        inspect_copy(place.path / "app.db")


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=30))
def test_any_damage_ends_in_an_answer(place: Place, changes: list[tuple[float, int]]) -> None:
    with closing(place.make((512, "UTF-8", 0), _TABLES)) as connection:
        connection.execute("INSERT INTO plain VALUES (zeroblob(3000), 1, 2), (1, zeroblob(300), 2)")
        connection.executemany("INSERT INTO numbered VALUES (?, 'text', 1)", [(n,) for n in range(200)])
        connection.executemany("INSERT INTO keyed VALUES (?, 'text', ?)", [(n, n) for n in range(200)])
        roots = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage").fetchall()
    path = place.path / "app.db"
    data = bytearray(path.read_bytes())
    for where, value in changes:
        data[512 + int(where * (len(data) - 512))] = value
    path.write_bytes(data)

    assert {name for name, _ in roots} >= set(_STORED)
    try:
        found = place.digests()
    except (Failure, sqlite3.DatabaseError):
        return
    assert set(found) == set(_STORED)


def test_the_page_about_the_format_has_these_digests(place: Place) -> None:
    page = (ROOT / "docs/format.md").read_text()
    create, insert = (line.strip(" ;") for line in page.splitlines() if line.strip().startswith(VECTOR))
    with closing(place.make((4096, "UTF-8", 0), create, insert)) as connection:
        (values,) = digest_tables(connection, [])

    cells = place.digests()["t"]

    assert f"{values['checksum']}  size {values['size']}\n" in page
    assert f"{cells['checksum']}  size {cells['size']}\n" in page
