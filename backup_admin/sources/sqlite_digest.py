"""Check a copy of a SQLite database and take a digest of each table.

Part of the worker (`sqlite_worker`). The copy may come from anywhere: nothing
in its schema gets to run code (`trusted_schema` is off, no extension is loaded).
"""

from __future__ import annotations

import hashlib
import marshal
import sqlite3
import struct
from functools import cache
from typing import TYPE_CHECKING, Any

from backup_admin.core.shown import agree, count_of
from backup_admin.sources.sidecars import COUNTERS
from backup_admin.sources.sqlite_btree import CellReader, PageFile
from backup_admin.sources.sqlite_open import CORRUPT, Failure, error_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_BY_VALUES, _BY_CELLS = "sha256:", "sha256/2:"
_HASH_BYTES = 1 << 17
_SHOWN_LINES = 5
_STORED = (0, 3)  # of table_xinfo's `hidden`: ordinary and stored generated columns
_Value = int | float | str | bytes | None


def check_pages(copy: sqlite3.Connection, *, thorough: bool, warnings: list[str]) -> list[str]:
    """Let SQLite check the file; returns the name of the check that passed."""
    name = "integrity_check" if thorough else "quick_check"
    try:
        lines = [line for (text,) in copy.execute(f"PRAGMA {name}") for line in str(text).splitlines()]
    except sqlite3.OperationalError as error:
        # Collations and functions that only the app knows.
        warnings.append(f"{name} could not run: {error}.")
        return []
    except sqlite3.DatabaseError as error:
        raise Failure("invalid", f"{name} failed: {error}.") from error
    if lines != ["ok"]:
        listed = "; ".join(lines[:_SHOWN_LINES])
        raise Failure("invalid", f"{name} found faults: {listed}.")
    return [name]


def check_keys(copy: sqlite3.Connection, warnings: list[str]) -> list[str]:
    """Look for rows whose parent is missing: the app's fault, so a warning."""
    orphans: dict[tuple[str, str], int] = {}
    try:
        for table, _rowid, parent, _key in copy.execute("PRAGMA foreign_key_check"):
            orphans[table, parent] = orphans.get((table, parent), 0) + 1
    except sqlite3.OperationalError as error:
        warnings.append(f"foreign_key_check could not run: {error}.")
        return []
    for (table, parent), count in sorted(orphans.items()):
        warnings.append(
            f"{count_of(count, 'row')} of {table} {agree(count, 'refers', 'refer')} to missing "
            f"rows of {parent}."
        )
    return [] if orphans else ["foreign_key_check"]


def foreign_collations(copy: sqlite3.Connection) -> list[str]:
    """Name the collations in indexes that only the app has.

    Without them SQLite reads no table that is stored by such an order. Any will
    do instead, since rows are only listed; but it must be there before the
    connection reads the schema (`stand_in`).
    """
    names = copy.execute(
        "SELECT DISTINCT i.coll FROM sqlite_master AS m, pragma_index_xinfo(m.name) AS i "
        "WHERE i.coll IS NOT NULL AND upper(i.coll) NOT IN ('BINARY', 'NOCASE', 'RTRIM')"
    )
    return [name for (name,) in names]


def stand_in(first: str, second: str) -> int:
    """Compare text in the place of a collation that only the app has."""
    return (first > second) - (first < second)


def digest_schema(copy: sqlite3.Connection) -> str:
    """Hash the definitions of all tables, indexes, views and triggers.

    The rows (type, name, tbl_name, sql) of the schema in order of type and name,
    encoded as `digest_tables` says.
    """
    copy.text_factory = bytes
    rows = copy.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master "
        "WHERE tbl_name NOT LIKE 'sqlite@_stat%' ESCAPE '@' ORDER BY type, name"
    )
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(encode_row(row, (True,) * len(row)))
    return f"sha256:{hasher.hexdigest()}"


def digest_cells(
    copy: sqlite3.Connection, warnings: list[str], file: PageFile, known: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """Hash each table of a copy that nobody writes to as it is stored, in order of name.

    The checksum of a table is `sha256/2:` and the SHA-256 of, one after the other,

    1. the header that `digest_tables` begins with;
    2. every cell of the table's b-tree, the last first: by falling rowid, or where the table has none in the
       reverse of the order of its key. Of what the file format of SQLite calls a cell these are the bytes
       from the size of the payload on, without the number of a left child or of an overflow page, and with
       the part of the payload that lies on overflow pages in its place.

    Where SQLite copies a row it copies its cell: in a backup, and when VACUUM INTO builds a database anew.
    `size` is the number of bytes of all cells.

    `known` has checksums that are on record. Where one is of the kind that `digest_tables` takes, and still
    that of the table, the table keeps it: so a table is of another kind only when it is another one.
    Our own counters always have that kind, since they are looked at in a live database as well.
    """
    for name, root in _tables(copy, warnings):
        noted = known.get(name, "")
        if name == COUNTERS or noted.startswith(_BY_VALUES):
            found = digest_table(copy, name)
            if name == COUNTERS or found["checksum"] == noted:
                yield found
                continue
        yield _digest_cells_of(copy, name, root, file)


def _digest_cells_of(copy: sqlite3.Connection, name: str, root: int, file: PageFile) -> dict[str, Any]:
    hasher = hashlib.sha256(_header(copy, name))
    reader = CellReader(file, hasher.update)
    reader.read_tree(root)
    checksum = f"{_BY_CELLS}{hasher.hexdigest()}"
    return {"name": name, "rows": reader.cells, "size": reader.size, "checksum": checksum}


def digest_tables(copy: sqlite3.Connection, warnings: list[str]) -> Iterator[dict[str, Any]]:
    """Hash the values of each table, in order of name: the same for all databases with the same content.

    Taken in: every table that stores rows, also `sqlite_sequence` and the shadow
    tables of FTS and rtree; virtual tables store nothing themselves. Left out:
    `sqlite_stat*`, which SQLite makes again.

    The checksum is the SHA-256 of, one after the other,

    1. a header, encoded as one row: the names of the columns as text, in the
       order of the table, without virtual generated columns (they are computed);
    2. every row, in the order of the rowid, or of the columns of the primary key
       compared as bytes (COLLATE BINARY) where the table has no rowid; the rowid
       itself is only in it where a column is it.

    A row is `(`, the number of values (4 bytes) and the values. A value is a
    letter for its storage class and its bytes; all numbers are little endian:

        NULL              N
        INTEGER, 32 bits  i  4 bytes, two's complement
        INTEGER, larger   l  count of 15-bit digits (4 bytes, negative when the
                             number is), then the digits, 2 bytes each, the least
                             first
        REAL              g  8 bytes, IEEE 754
        TEXT              u  length in bytes (4 bytes), then UTF-8 as stored
        BLOB              s  length in bytes (4 bytes), then the bytes

    Python's `marshal` writes version 2 of its form exactly so, at C speed;
    `encode_row` writes it by hand: for text that is not UTF-8, and as the truth
    that `marshal` is compared with before it is trusted. `size` is the number of
    bytes that the encoded rows have.
    """
    for name, _root in _tables(copy, warnings):
        yield digest_table(copy, name)


def _tables(copy: sqlite3.Connection, warnings: list[str]) -> Iterator[tuple[str, int]]:
    """Give the name and the root page of each table that stores rows."""
    copy.text_factory = bytes
    rows = copy.execute(
        "SELECT name, rootpage FROM sqlite_master WHERE type = 'table' AND rootpage > 0 "
        "AND name NOT LIKE 'sqlite@_stat%' ESCAPE '@' ORDER BY name"
    ).fetchall()
    for raw, root in rows:
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            warnings.append(f"The table {raw!r} has a name that is not UTF-8.")
            continue
        yield name, root


def encode_row(values: Sequence[_Value], is_text: Sequence[bool]) -> bytes:
    """Encode a row as `digest_tables` says; `bytes` marked as text are text."""
    parts = [b"(", struct.pack("<i", len(values))]
    for value, text in zip(values, is_text, strict=True):
        parts.append(_encode_value(value, is_text=text))
    return b"".join(parts)


def _encode_value(value: _Value, *, is_text: bool) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, int):
        return _encode_integer(value)
    if isinstance(value, float):
        return b"g" + struct.pack("<d", value)
    if isinstance(value, str):
        value, is_text = value.encode("utf-8"), True
    return (b"u" if is_text else b"s") + struct.pack("<i", len(value)) + value


def _encode_integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"i" + struct.pack("<i", value)
    digits = []
    rest = abs(value)
    while rest:
        digits.append(rest & 0x7FFF)
        rest >>= 15
    count = len(digits) if value > 0 else -len(digits)
    return b"l" + struct.pack(f"<i{len(digits)}H", count, *digits)


@cache
def _marshal_is_exact() -> bool:
    numbers = (0, -1, 2**31 - 1, -(2**31), 2**31, -(2**63), 2**63 - 1, 0.1, -0.0, float("inf"))
    sample: tuple[_Value, ...] = (None, *numbers, "", "a", "hé\0", "\U0001f4f7", b"", b"\0\xff")
    return marshal.dumps(sample, 2) == encode_row(sample, (False,) * len(sample))


def _header(copy: sqlite3.Connection, name: str) -> bytes:
    copy.text_factory = str
    columns = _columns(copy, name)
    return encode_row(columns, (True,) * len(columns))


def digest_table(copy: sqlite3.Connection, name: str) -> dict[str, Any]:
    """Hash the rows of one table as `digest_tables` does."""
    header = _header(copy, name)
    columns = _columns(copy, name)
    tail = f" FROM {_quoted(name)}{_order(copy, name, columns)}"
    hasher = _RowHasher(header)
    listed = [_quoted(column) for column in columns]
    try:
        _hash_rows(copy, f"SELECT {', '.join(listed)}{tail}", hasher)
    except (sqlite3.OperationalError, UnicodeDecodeError) as error:
        if error_code(error) in CORRUPT:
            raise
        # Some text is not UTF-8: ask for the storage classes and take it raw.
        hasher = _RowHasher(header)
        listed += [f"typeof({column}) = 'text'" for column in listed]
        copy.text_factory = bytes
        query = f"SELECT {', '.join(listed)}{tail}"
        _hash_any_rows(copy, query, hasher)
    return {"name": name, **hasher.result()}


class _RowHasher:
    """Takes encoded rows, counts them, and hashes them in larger pieces."""

    def __init__(self, header: bytes) -> None:
        self._hasher = hashlib.sha256(header)
        self._pending = bytearray()
        self._rows = 0
        self._size = 0

    def take(self, rows: Iterator[bytes]) -> None:
        pending = self._pending
        for number, row in enumerate(rows, 1):
            pending += row
            if len(pending) > _HASH_BYTES:
                self._flush()
            self._rows = number
        self._flush()

    def result(self) -> dict[str, Any]:
        checksum = f"{_BY_VALUES}{self._hasher.hexdigest()}"
        return {"rows": self._rows, "size": self._size, "checksum": checksum}

    def _flush(self) -> None:
        self._hasher.update(self._pending)
        self._size += len(self._pending)
        self._pending.clear()


def _hash_rows(copy: sqlite3.Connection, query: str, hasher: _RowHasher) -> None:
    encode: Callable[[tuple[_Value, ...]], bytes] = _encode_plain
    if _marshal_is_exact():
        encode = _encode_fast
    hasher.take(map(encode, copy.execute(query)))


def _hash_any_rows(copy: sqlite3.Connection, query: str, hasher: _RowHasher) -> None:
    cursor = copy.execute(query)
    half = len(cursor.description) // 2
    hasher.take(encode_row(row[:half], row[half:]) for row in cursor)


def _encode_fast(row: tuple[_Value, ...]) -> bytes:
    return marshal.dumps(row, 2)


def _encode_plain(row: tuple[_Value, ...]) -> bytes:
    return encode_row(row, (False,) * len(row))


def _columns(copy: sqlite3.Connection, table: str) -> list[str]:
    rows = copy.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
    return [row[1] for row in rows if row[6] in _STORED]


def _order(copy: sqlite3.Connection, table: str, columns: Sequence[str]) -> str:
    taken = {column.lower() for column in columns}
    free = (name for name in ("rowid", "_rowid_", "oid") if name not in taken)
    rowid = next(free, "")
    if not rowid:  # the app took all three names; a plain scan has that order
        return " NOT INDEXED"
    try:
        copy.execute(f"SELECT {rowid} FROM {_quoted(table)} LIMIT 0")  # noqa: S608
    except sqlite3.OperationalError:
        return f" ORDER BY {_primary_key(copy, table)}"
    return f" NOT INDEXED ORDER BY {rowid}"


def _primary_key(copy: sqlite3.Connection, table: str) -> str:
    rows = copy.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
    keys = sorted((row[5], row[1]) for row in rows if row[5] > 0)
    # What is unique by some collation is unique by bytes too.
    return ", ".join(f"{_quoted(name)} COLLATE BINARY" for _, name in keys)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
