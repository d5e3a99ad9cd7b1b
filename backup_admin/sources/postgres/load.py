"""Making a database of the parts that a capture wrote (`capture`): schema, rows, sequences, then the rest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from backup_admin.core.errors import Damaged, NewerVersion, RestoreRefused, SourceError
from backup_admin.core.programs import run_program
from backup_admin.sources.postgres.catalog import read_catalog, sequences_from_json, tables_from_json
from backup_admin.sources.postgres.clients import choose_for_restore, why
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.parts import CONTENTS, FORMAT, LARGE_OBJECTS, POST_DATA, PRE_DATA
from backup_admin.sources.postgres.script import run_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import psycopg

    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.catalog import Table
    from backup_admin.sources.postgres.clients import ClientPrograms, RestoreClient

_BLOCK_BYTES = 256 << 10
_SUM_BYTES = 32
_HOURS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a database is loaded: without owners and rights it belongs to who loads it."""

    no_owner: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded, and compared with what was captured."""

    tables: int
    rows: int
    bytes: int
    notices: tuple[str, ...]


def load(
    folder: Path,
    address: PostgresAddress,
    clients: Sequence[ClientPrograms],
    options: LoadOptions | None = None,
) -> Loaded:
    """Load the parts in a folder into an empty database, and read all rows back.

    Raises `RestoreRefused` before anything is written when the database is not empty or no program
    fits, `Damaged` for parts that are not whole, and `SourceError` when the server refuses something:
    then what was loaded so far is there, and the database is to be dropped.
    """
    contents = read_contents(folder)
    with connected(address) as connection:
        server = connection.info.server_version // 10_000
        made_by = int(str(contents["client_version"]).partition(".")[0])
        client = choose_for_restore(clients, archive_major=made_by, server_major=server)
        _refuse_full(connection, address)
        run = _Load(folder, address, client, connection, options or LoadOptions())
        return run.run(contents)


class _Load:
    def __init__(
        self,
        folder: Path,
        address: PostgresAddress,
        client: RestoreClient,
        connection: psycopg.Connection,
        options: LoadOptions,
    ) -> None:
        self._folder = folder
        self._address = address
        self._client = client
        self._connection = connection
        self._options = options

    def run(self, contents: dict[str, Any]) -> Loaded:
        tables = tables_from_json(contents["tables"])
        self._restore(PRE_DATA)
        rows = size = 0
        for table, row in zip(tables, contents["tables"], strict=True):
            self._copy_in(table, row)
            rows, size = rows + int(row["rows"]), size + int(row["bytes"])
        for sequence in sequences_from_json(contents["sequences"]):
            name = sql.Identifier(sequence.schema, sequence.name).as_string()
            values = (name, sequence.last_value, sequence.is_called)
            self._connection.execute("SELECT setval(%s::regclass, %s, %s)", values)
        if int(contents["large_objects"]):
            self._restore(LARGE_OBJECTS)
        self._restore(POST_DATA)
        self._connection.execute("ANALYZE")
        for table, row in zip(tables, contents["tables"], strict=True):
            if not is_as_captured(self._connection, table, row, self._folder):
                label = self._address.label
                raise SourceError(f"{label}: table {table.shown} does not hold what was captured.")
        return Loaded(len(tables), rows, size, ())

    def _restore(self, name: str) -> None:
        """Restore an archive; the first error ends it."""
        options = ["--no-password", "--exit-on-error"]
        if self._options.no_owner:
            options += ["--no-owner", "--no-acl"]
        if self._client.filters:
            run_script(self._connection, self._pg_restore(name, [*options, "--file=-"]))
        else:
            self._pg_restore(name, [*options, f"--dbname={self._address.conninfo()}"])

    def _pg_restore(self, name: str, options: list[str]) -> bytes:
        command = [self._client.programs.restore, *options, str(self._folder / name)]
        done = run_program(command, timeout_seconds=_HOURS, environment=self._address.environment())
        if done.status != 0:
            raise SourceError(f"{self._address.label}: pg_restore of {name} {why(done)}.")
        return done.output

    def _copy_in(self, table: Table, row: dict[str, Any]) -> None:
        digest = hashlib.sha256()
        with (
            (self._folder / str(row["file"])).open("rb") as file,
            self._connection.transaction(),
            self._connection.cursor() as cursor,
        ):
            with cursor.copy(table.copy_in()) as copy:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
                    copy.write(block)
            # Raised within the transaction: rows of a damaged part do not stay.
            if digest.hexdigest() != row["sha256"]:
                raise Damaged(f"{row['file']} is not what was captured of table {table.shown}.")
            if cursor.rowcount != row["rows"]:
                raise Damaged(f"Table {table.shown} took {cursor.rowcount} rows instead of {row['rows']}.")


def is_as_captured(connection: psycopg.Connection, table: Table, row: dict[str, Any], folder: Path) -> bool:
    """Read a table back: in the order it was captured in, or, without a key, whatever the order is."""
    with connection.cursor() as cursor, cursor.copy(table.copy_out()) as copy:
        if not table.key:
            with (folder / str(row["file"])).open("rb") as file:
                return _sum_of(copy) == _sum_of(file)
        digest = hashlib.sha256()
        for block in copy:
            digest.update(block)
        return digest.hexdigest() == str(row["sha256"])


def _sum_of(rows: Iterable[bytes | bytearray | memoryview]) -> int:
    """Return the same number for the same rows in any order; equal rows count as often as they come."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.blake2b(row, digest_size=_SUM_BYTES).digest(), "big")
    return total % (1 << 8 * _SUM_BYTES)


def read_contents(folder: Path) -> dict[str, Any]:
    """Read what tells about the parts in a folder; raise `RestoreRefused`, `NewerVersion` or `Damaged`."""
    try:
        value = json.loads((folder / CONTENTS).read_bytes())
        if value["format"] != FORMAT:
            raise NewerVersion(f"{folder / CONTENTS} was written by a newer version. Nothing was loaded.")
        tables_from_json(value["tables"])
        sequences_from_json(value["sequences"])
        for row in value["tables"]:
            if not (folder / row["file"]).resolve().is_relative_to(folder.resolve()):
                raise ValueError("a part outside of its folder")
    except FileNotFoundError as error:
        raise RestoreRefused(
            f"{folder} holds no captured PostgreSQL database: {CONTENTS} is missing."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / CONTENTS} cannot be read: {error}. Nothing was loaded.") from error
    return dict(value)


def _refuse_full(connection: psycopg.Connection, address: PostgresAddress) -> None:
    found = read_catalog(connection)
    if found.tables or found.sequences or found.large_objects:
        raise RestoreRefused(
            f"{address.label} is not empty: it has {len(found.tables)} tables. Nothing was loaded. "
            "Make a new database, or name an empty one."
        )
