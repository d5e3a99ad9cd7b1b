"""The parts of a captured PostgreSQL database as JSON Lines, or as one script of SQL, without a server."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import Damaged, RestoreRefused, SourceError
from backup_admin.core.programs import run_program
from backup_admin.sources.formats.json_lines import (
    POSTGRES,
    Export,
    ExportedSequence,
    TableFile,
    TableHead,
    make_tables_folder,
    write_export,
)
from backup_admin.sources.postgres.capture import capturing
from backup_admin.sources.postgres.catalog import sequences_from_json, tables_from_json
from backup_admin.sources.postgres.clients import choose_for_restore, why
from backup_admin.sources.postgres.connect import PINNED
from backup_admin.sources.postgres.copy_text import JsonLines
from backup_admin.sources.postgres.driver import sql
from backup_admin.sources.postgres.parts import (
    CONTENTS,
    LARGE_OBJECTS,
    POST_DATA,
    PRE_DATA,
    TABLES,
    TablePart,
    file_of,
)
from backup_admin.sources.postgres.script import copy_script

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from backup_admin.sources.base import ReadInto
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.clients import ClientPrograms

_BLOCK_BYTES = 256 << 10
_HOURS = 24 * 3600.0
_HOW_VALUES_ARE_WRITTEN = (
    *("client_encoding", "datestyle", "intervalstyle", "timezone", "extra_float_digits"),
    *("bytea_output", "xmloption", "lc_monetary"),
)
# `pg_restore` of these and newer writes a key into scripts, and takes one.
_KEYED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
_NEWEST_KEYED = 18


@dataclass(frozen=True, slots=True)
class Written:
    """What was exported."""

    tables: int
    rows: int
    notices: tuple[str, ...]


def write_parts(address: PostgresAddress, clients: Sequence[ClientPrograms], folder: Path) -> None:
    """Capture a database in use into a folder that is there and empty, as a backup stores it."""
    (folder / TABLES).mkdir(mode=0o700)
    with capturing(address, clients) as captured:
        parts = []
        for table in captured.catalog.tables:
            file = file_of(table.schema, table.name)
            with captured.table(table) as reader:
                size, digest = _drain(reader.read_into, folder / file)
            parts.append(TablePart(table, file, reader.rows, size, digest))
        for name in captured.archives():
            with captured.archive(name) as read_into:
                _drain(read_into, folder / name)
        (folder / CONTENTS).write_bytes(captured.contents(parts))


def export_json(folder: Path, target: Path, database: str) -> Written:
    """Write the tables as JSON Lines into a folder that is there and empty; raise `Damaged`."""
    contents = _contents_of(folder)
    make_tables_folder(target)
    settings = {name: PINNED[name] for name in _HOW_VALUES_ARE_WRITTEN}
    written = []
    for table, row in zip(tables_from_json(contents["tables"]), contents["tables"], strict=True):
        head = TableHead(POSTGRES, table.schema, table.name, table.columns, table.types, table.key, settings)
        with TableFile(target, head) as file, _Part(folder, row) as part:
            lines = JsonLines(part.read_into, len(table.columns))
            for block in lines.blocks():
                file.write(block)
            file.rows = lines.rows
            part.compare(lines.rows)
        written.append(file.result())
    left_out = _left_out(contents)
    sequences = tuple(
        ExportedSequence(one.schema, one.name, one.last_value, one.is_called)
        for one in sequences_from_json(contents["sequences"])
    )
    version = str(contents["server_version"])
    write_export(target, Export(POSTGRES, version, database, tuple(written), sequences, left_out))
    return Written(len(written), sum(table.rows for table in written), left_out)


def export_script(folder: Path, target: Path, clients: Sequence[ClientPrograms]) -> Written:
    """Write all parts as one script for psql; raise `NoClient`, `Damaged` and `SourceError`.

    The key that psql is given, to keep names in the schema from being commands, comes from the content:
    who made the names cannot know it, and the same content makes the same script.
    """
    contents = _contents_of(folder)
    made_by, server = (
        int(str(contents[name]).partition(".")[0]) for name in ("client_version", "server_version")
    )
    client = choose_for_restore(clients, archive_major=made_by, server_major=server)
    script = _Script(folder, target, client.programs, _key_of(contents), server)
    rows = 0
    with target.open("xb") as file:
        script.append(file, PRE_DATA)
        file.write(b"SET client_encoding = 'UTF8';\n")
        tables = tables_from_json(contents["tables"])
        for table, row in zip(tables, contents["tables"], strict=True):
            file.write(f"\n{table.copy_in().as_string()};\n".encode())
            with _Part(folder, row) as part:
                part.copy_to(file.write)
                part.compare(int(row["rows"]))
            file.write(b"\\.\n")
            rows += int(row["rows"])
        for sequence in sequences_from_json(contents["sequences"]):
            name = sql.Literal(sql.Identifier(sequence.schema, sequence.name).as_string())
            values = (name, sql.Literal(sequence.last_value), sql.Literal(sequence.is_called))
            statement = sql.SQL("\nSELECT pg_catalog.setval({}, {}, {});\n").format(*values)
            file.write(statement.as_string().encode())
        if int(contents["large_objects"]):
            script.append(file, LARGE_OBJECTS)
        script.append(file, POST_DATA)
        file.flush()
        os.fsync(file.fileno())
    return Written(len(tables), rows, ())


def _key_of(contents: dict[str, Any]) -> str:
    # The room a table takes on the disk of its server is no content: a vacuum changes it.
    tables = [{name: value for name, value in row.items() if name != "size"} for row in contents["tables"]]
    return hashlib.sha256(json.dumps({**contents, "tables": tables}).encode()).hexdigest()


class _Part:
    """The text of a table, read once and compared with what is known of it."""

    def __init__(self, folder: Path, row: dict[str, Any]) -> None:
        self._row = row
        self._file = (folder / str(row["file"])).open("rb", buffering=0)
        self._digest = hashlib.sha256()

    def read_into(self, view: memoryview) -> int:
        count = self._file.readinto(view) or 0
        self._digest.update(view[:count])
        return count

    def copy_to(self, write: Callable[[memoryview], object]) -> None:
        view = memoryview(bytearray(_BLOCK_BYTES))
        while count := self.read_into(view):
            write(view[:count])

    def compare(self, rows: int) -> None:
        if self._digest.hexdigest() != self._row["sha256"] or rows != self._row["rows"]:
            raise Damaged(f"{self._row['file']} is not what was captured. Nothing was exported.")

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_details: object) -> None:
        self._file.close()


class _Script:
    """Makes SQL of the archives of a capture."""

    def __init__(self, folder: Path, target: Path, client: ClientPrograms, key: str, server: int) -> None:
        self._folder = folder
        self._scratch = target.with_name(f"{target.name}.part")
        self._client = client
        self._key = key
        self._server = server

    def append(self, file: Any, name: str) -> None:
        options = ["--no-password", f"--file={self._scratch}"]
        if self._client.major >= _NEWEST_KEYED or self._client.minor >= _KEYED.get(self._client.major, 1000):
            options.append(f"--restrict-key={self._key}")
        try:
            command = [self._client.restore, *options, str(self._folder / name)]
            done = run_program(command, timeout_seconds=_HOURS)
            if done.status != 0:
                raise SourceError(f"pg_restore of {name} {why(done)}. Nothing was exported.")
            with self._scratch.open("rb") as part:
                copy_script(part, file, server_major=self._server)
        finally:
            with suppress(FileNotFoundError):
                self._scratch.unlink()


def _contents_of(folder: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads((folder / CONTENTS).read_bytes())
        tables_from_json(value["tables"])
        sequences_from_json(value["sequences"])
    except FileNotFoundError as error:
        raise RestoreRefused(f"{folder} holds no captured PostgreSQL database.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / CONTENTS} cannot be read: {error}. Nothing was exported.") from error
    return value


def _left_out(contents: dict[str, Any]) -> tuple[str, ...]:
    objects = int(contents["large_objects"])
    return (f"{objects} large objects are not in a json export.",) if objects else ()


def _drain(read_into: ReadInto, path: Path) -> tuple[int, str]:
    digest, view, size = hashlib.sha256(), memoryview(bytearray(_BLOCK_BYTES)), 0
    with path.open("xb") as file:
        while count := read_into(view):
            digest.update(view[:count])
            file.write(view[:count])
            size += count
    return size, digest.hexdigest()
