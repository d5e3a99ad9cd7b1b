"""Making a database of the parts that a capture wrote (`capture`): schema, rows, sequences, then the rest."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, Damaged, NewerVersion, RestoreRefused, SourceError
from backup_admin.core.shown import count_of
from backup_admin.sources.postgres.archives import Archives
from backup_admin.sources.postgres.carry import give_captured
from backup_admin.sources.postgres.catalog import (
    database_from_json,
    read_catalog,
    sequences_from_json,
    table_parts,
)
from backup_admin.sources.postgres.clients import choose_for_restore
from backup_admin.sources.postgres.connect import connected, explain
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.load_tables import (
    Crew,
    compare_restored,
    copy_in,
    prove_and_analyze,
    read_back,
    results,
)
from backup_admin.sources.postgres.needs import (
    Needs,
    missing_tablespaces,
    needs_from_json,
    needs_to_json,
    refuse_extensions,
    refuse_lacking,
)
from backup_admin.sources.postgres.not_a_capture import not_a_capture
from backup_admin.sources.postgres.parts import (
    ARCHIVE_FORMAT,
    CONTENTS,
    FORMAT,
    LARGE_OBJECTS,
    POST_DATA,
    PRE_DATA,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.sources.postgres.catalog import Table
    from backup_admin.sources.postgres.clients import ClientPrograms
    from backup_admin.sources.postgres.load_tables import Filled
    from backup_admin.sources.postgres.parts import TablePart

_NO_NEEDS = needs_to_json(Needs())
_OF_OTHERS = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('m', 'p') AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a database is loaded: without owners and rights it belongs to who loads it.

    So many tables are filled, and indexes made, side by side. `belongings` are the settings,
    rights and comment of the database itself. What `stays` when it fails, a person has to drop.
    """

    no_owner: bool = False
    jobs: int = 2
    belongings: bool = True
    stays: bool = True


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
    with _entered(address) as connection:
        server = connection.info.server_version // 10_000
        made_by = int(str(contents["client_version"]).partition(".")[0])
        client = choose_for_restore(clients, archive_major=made_by, server_major=server)
        _refuse_full(connection, address)
        chosen = options or LoadOptions()
        # Older captures do not say what they need.
        needs = needs_from_json(contents.get("needs", _NO_NEEDS))
        refuse_lacking(connection, needs, address.label, no_owner=chosen.no_owner)
        if needs.extensions:
            with connected(address) as trial:
                refuse_extensions(trial, needs, address.label)
        missing = missing_tablespaces(connection, needs)
        archives = Archives(
            folder, address, client, connection, chosen.no_owner, chosen.jobs, no_tablespaces=bool(missing)
        )
        with _telling_what_stays(address.label if chosen.stays else ""):
            loaded = replace(_Load(archives).run(contents), notices=_in_default(missing))
        if chosen.no_owner or not chosen.belongings:
            return loaded
        given = give_captured(connection, database_from_json(contents["database"]))
        return replace(loaded, notices=(*loaded.notices, *given))


def _in_default(missing: Sequence[str]) -> tuple[str, ...]:
    if not missing:
        return ()
    return (
        f"All tables lie in the default tablespace: the server lacks {', '.join(missing)}, or this user may "
        "make nothing there.",
    )


@contextmanager
def _entered(address: PostgresAddress) -> Iterator[psycopg.Connection]:
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connected(address))
        except BackupAdminError as error:
            raise type(error)(f"{error} Nothing was loaded.") from None
        yield connection


@contextmanager
def _telling_what_stays(label: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise SourceError(f"{label}: {explain(error)} {_stays(label)}".lstrip(": ")) from error
    except BackupAdminError as error:
        raise type(error)(f"{error} {_stays(label)}".strip()) from error


def _stays(label: str) -> str:
    if not label:
        return ""
    return f"What was loaded so far is in {label}: drop that database, and load into a new one."


class _Load:
    def __init__(self, archives: Archives) -> None:
        self._archives = archives
        self._folder = archives.folder
        self._address = archives.address
        self._connection = archives.connection

    def run(self, contents: dict[str, Any]) -> Loaded:
        parts = table_parts(contents["tables"])
        if contents["format"] == ARCHIVE_FORMAT:
            self._load_archive(parts)
        else:
            self._load_parts(parts, contents)
        return Loaded(len(parts), sum(part.rows for part in parts), sum(part.size for part in parts), ())

    def _load_archive(self, parts: Sequence[TablePart]) -> None:
        # What is loaded through the table above goes into partitions that another job makes a key of.
        divided = any(part.table.divided for part in parts)
        self._archives.restore_whole(1 if divided else self._archives.jobs)
        with ExitStack() as stack:
            crew = Crew(self._address, self._archives.jobs, stack)
            results([crew.start(self._compare, part) for part in sorted(parts, key=lambda part: -part.size)])
        self._connection.execute("ANALYZE")

    def _load_parts(self, parts: Sequence[TablePart], contents: dict[str, Any]) -> None:
        restore = self._archives.restore
        restore(PRE_DATA)
        with ExitStack() as stack:
            crew = Crew(self._address, self._archives.jobs, stack)
            reading: list[Future[None]] = []

            def fill(connection: psycopg.Connection, part: TablePart) -> Filled:
                with self._naming(part.table):
                    filled = copy_in(connection, self._folder, part)
                reading.append(crew.start(self._read_back, part))
                return filled

            # The largest first: the last that is under way is a small one.
            filled = results([crew.start(fill, part) for part in sorted(parts, key=lambda part: -part.size)])
            self._place_sequences(contents["sequences"])
            if int(contents["large_objects"]):
                restore(LARGE_OBJECTS)
            # What was filled is read while indexes are made.
            self._archives.restore_side_by_side(POST_DATA)
            results(reading)
            results([crew.start(self._prove, one) for one in filled])
        self._analyze_rest()

    def _compare(self, connection: psycopg.Connection, part: TablePart) -> None:
        with self._naming(part.table):
            compare_restored(connection, part)

    def _read_back(self, connection: psycopg.Connection, part: TablePart) -> None:
        with self._naming(part.table):
            read_back(connection, self._folder, part)

    def _prove(self, connection: psycopg.Connection, filled: Filled) -> None:
        with self._naming(filled.part.table):
            prove_and_analyze(connection, filled)

    @contextmanager
    def _naming(self, table: Table) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise SourceError(f"{self._address.label}: table {table.shown}: {explain(error)}") from error

    def _place_sequences(self, value: Any) -> None:
        for sequence in sequences_from_json(value):
            name = sql.Identifier(sequence.schema, sequence.name).as_string()
            values = (name, sequence.last_value, sequence.is_called)
            self._connection.execute("SELECT setval(%s::regclass, %s, %s)", values)

    def _analyze_rest(self) -> None:
        """Analyze what has rows of others: materialized views, and tables of which there are partitions."""
        for schema, name in self._connection.execute(_OF_OTHERS).fetchall():
            self._connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(schema, name)))


def read_contents(folder: Path) -> dict[str, Any]:
    """Read what tells about the parts in a folder; raise `RestoreRefused`, `NewerVersion` or `Damaged`."""
    try:
        value = json.loads((folder / CONTENTS).read_bytes())
        if value["format"] not in (FORMAT, ARCHIVE_FORMAT):
            raise NewerVersion(f"{folder / CONTENTS} was written by a newer version. Nothing was loaded.")
        table_parts(value["tables"])
        needs_from_json(value.get("needs", _NO_NEEDS))
        sequences_from_json(value["sequences"])
        for row in value["tables"]:
            if not (folder / row["file"]).resolve().is_relative_to(folder.resolve()):
                raise ValueError("a part outside of its folder")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RestoreRefused(f"{not_a_capture(folder)} Nothing was loaded.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / CONTENTS} cannot be read: {error}. Nothing was loaded.") from error
    return dict(value)


def _refuse_full(connection: psycopg.Connection, address: PostgresAddress) -> None:
    found = read_catalog(connection)
    if found.tables or found.sequences or found.large_objects:
        tables = count_of(len(found.tables), "table")
        raise RestoreRefused(
            f"{address.label} is not empty: it has {tables}. Nothing was loaded. "
            "Make a new database, or name an empty one."
        )
