"""The `json` export on disk: a folder with `export.json` and one file of JSON Lines for each table.

The first line of a table's file says what the rows are, each other line is one row as an array.
`export.json` comes last: a folder without it is no export.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from backup_admin.core.durable import sync_folder, write_new
from backup_admin.core.errors import Damaged, NewerVersion, RestoreRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT = 1
EXPORT = "export.json"
TABLES = "tables"
SQLITE, POSTGRES = "sqlite", "postgresql"
_SUM_BYTES = 32
_BITS = 63
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TableHead:
    """What the first line of a table's file says; `rowid` names the first value where it is SQLite's own."""

    engine: str
    schema: str
    table: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    key: tuple[str, ...]
    settings: Mapping[str, str]
    rowid: str = ""

    def line(self) -> bytes:
        """Return the head as it stands in the file."""
        value = {
            "table": self.table,
            "columns": self.columns,
            "types": self.types,
            "pk": self.key,
            "engine": self.engine,
            "schema": self.schema,
            "rowid": self.rowid,
            "settings": dict(self.settings),
        }
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"

    @property
    def width(self) -> int:
        """Return how many values a row has."""
        return len(self.columns) + bool(self.rowid)


@dataclass(frozen=True, slots=True)
class ExportedTable:
    """A table of an export; its `kind` is `table`, or `shadow` for what a virtual table keeps its data in."""

    schema: str
    name: str
    file: str
    rows: int
    bytes: int
    sha256: str
    kind: str = "table"

    @property
    def shown(self) -> str:
        """Return the name as people write it."""
        return self.name if self.schema in ("public", "main") else f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class ExportedSequence:
    """A sequence and where it stands; of SQLite the highest id that an AUTOINCREMENT table gave out."""

    schema: str
    name: str
    last_value: int
    is_called: bool


@dataclass(frozen=True, slots=True)
class Export:
    """What `export.json` says; `left_out` are sentences about what the export does not hold."""

    engine: str
    engine_version: str
    database: str
    tables: tuple[ExportedTable, ...]
    sequences: tuple[ExportedSequence, ...]
    left_out: tuple[str, ...]


def file_name(schema: str, name: str) -> str:
    """Return the file of a table, of plain letters whatever the name is, the same each time."""
    readable = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)
    digest = hashlib.sha256(f"{len(schema)} {schema} {name}".encode("utf-8", "surrogateescape")).hexdigest()
    return f"{TABLES}/{readable.strip('-')[:80]}-{digest[:8]}.jsonl"


def write_export(folder: Path, export: Export) -> None:
    """Write `export.json`, after everything else is durable."""
    sync_folder(folder / TABLES)
    text = json.dumps({"format": FORMAT, **asdict(export)}, ensure_ascii=False, indent=1)
    write_new(folder / EXPORT, (text.encode(),))


def read_export(folder: Path) -> Export:
    """Read `export.json`; raise `RestoreRefused`, `NewerVersion` or `Damaged`."""
    try:
        value = json.loads((folder / EXPORT).read_bytes())
        if value["format"] != FORMAT:
            raise NewerVersion(f"{folder / EXPORT} was written by a newer version. Nothing was imported.")
        tables = tuple(ExportedTable(**row) for row in value["tables"])
        for table in tables:
            if not (folder / table.file).resolve().is_relative_to(folder.resolve()):
                raise ValueError("a table outside of its folder")
            if not (folder / table.file).is_file():
                raise ValueError(f"{table.file} is no file")
        return Export(
            str(value["engine"]),
            str(value["engine_version"]),
            str(value["database"]),
            tables,
            tuple(_sequence(row) for row in value["sequences"]),
            tuple(map(str, value["left_out"])),
        )
    except NotADirectoryError as error:
        raise RestoreRefused(
            f"{folder} is a file, not a json export, which is a folder. Nothing was imported. A script of "
            "SQL is carried out by sqlite3 or psql; a SQLite database needs no import."
        ) from error
    except FileNotFoundError as error:
        raise RestoreRefused(
            f"{folder} holds no json export: {EXPORT} is missing. Nothing was imported. Name a folder that "
            "`export --format json` wrote; what `restore --to` wrote of PostgreSQL is for `load`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / EXPORT} cannot be read: {error}. Nothing was imported.") from error


def _sequence(row: dict[str, Any]) -> ExportedSequence:
    """Read where a sequence stands: a number that both engines know."""
    found = ExportedSequence(**row)
    if type(found.last_value) is not int or found.last_value.bit_length() > _BITS:
        raise ValueError(f"the sequence {found.name} stands at no number")
    return found


class TableFile:
    """A file of a table that is written (mode 0600): a head, then rows."""

    def __init__(self, folder: Path, head: TableHead, kind: str = "table") -> None:
        self._head = head
        self._kind = kind
        self._name = file_name(head.schema, head.table)
        self._file = (folder / self._name).open("xb", buffering=_BUFFER_BYTES)
        self._digest = hashlib.sha256()
        self._bytes = 0
        self.rows = 0
        self.write(head.line())

    def write(self, data: bytes) -> None:
        """Append bytes; the caller counts rows."""
        self._digest.update(data)
        self._bytes += len(data)
        self._file.write(data)

    def result(self) -> ExportedTable:
        """Return what was written, when the block ended."""
        head = self._head
        names = (head.schema, head.table, self._name)
        return ExportedTable(*names, self.rows, self._bytes, self._digest.hexdigest(), self._kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_details: object) -> None:
        with self._file:
            if raised is None:
                self._file.flush()
                os.fsync(self._file.fileno())


def make_tables_folder(folder: Path) -> None:
    """Make the folder that the files of tables are written to."""
    (folder / TABLES).mkdir(mode=0o700)


def read_head(folder: Path, table: ExportedTable) -> TableHead:
    """Read the first line of a table's file; raise `Damaged`."""
    try:
        with (folder / table.file).open("rb") as file:
            value = json.loads(file.readline())
        types = tuple(map(str, value["types"]))
        head = TableHead(
            str(value["engine"]),
            str(value["schema"]),
            str(value["table"]),
            tuple(map(str, value["columns"])),
            types,
            tuple(map(str, value["pk"])),
            {str(key): str(found) for key, found in value["settings"].items()},
            str(value["rowid"]),
        )
        if (head.schema, head.table) != (table.schema, table.name):
            raise ValueError(f"it is of table {head.table}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{table.file} cannot be read: {error}. Nothing was imported.") from error
    return head


def read_rows(folder: Path, table: ExportedTable) -> Iterator[tuple[list[Any], int]]:
    """Yield the rows of a table and how long each is in its file.

    Raises `Damaged` at the end when it is not the file that was exported: all must be read.
    """
    digest = hashlib.sha256()
    with (folder / table.file).open("rb", buffering=_BUFFER_BYTES) as file:
        head = file.readline()
        digest.update(head)
        width = len(json.loads(head)["columns"]) + bool(json.loads(head)["rowid"])
        for line in file:
            digest.update(line)
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Damaged(f"{table.file} has a row that is no JSON. Nothing was imported.") from error
            if not isinstance(row, list) or len(row) != width:
                raise Damaged(f"{table.file} has a row with another number of values. Nothing was imported.")
            yield row, len(line)
    if digest.hexdigest() != table.sha256:
        raise Damaged(f"{table.file} is not what was exported. Nothing was imported.")


class RowSum:
    """A number that is the same for the same rows in any order; equal rows count as often as they come."""

    __slots__ = ("rows", "total")

    def __init__(self) -> None:
        self.total = self.rows = 0

    def add(self, row: bytes) -> None:
        """Take a row in."""
        self.total += int.from_bytes(hashlib.blake2b(row, digest_size=_SUM_BYTES).digest(), "big")
        self.rows += 1

    def remove(self, row: bytes) -> None:
        """Take a row out again."""
        self.total -= int.from_bytes(hashlib.blake2b(row, digest_size=_SUM_BYTES).digest(), "big")
        self.rows -= 1

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RowSum):
            return NotImplemented
        modulus = 1 << 8 * _SUM_BYTES
        return self.rows == other.rows and self.total % modulus == other.total % modulus

    __hash__ = None  # type: ignore[assignment]  # it changes
