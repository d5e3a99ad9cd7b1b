"""Exchanging a live PostgreSQL database for one made of captured parts, in one of two ways.

`RENAME` makes a database beside the live one, reads it back and gives it the name: a moment without
connections, and what was live stays. `IN_PLACE` is for roles that may not make databases: one transaction
drops and loads everything, and all who use the database wait for it.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from backup_admin.core.durable import sync_folder
from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.sources.postgres import server
from backup_admin.sources.postgres.alone import connected_alone, insist
from backup_admin.sources.postgres.carry import facts_as_belongings, give, read_belongings
from backup_admin.sources.postgres.catalog import database_from_json, read_catalog, tables_from_json
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.connect import connected
from backup_admin.sources.postgres.driver import psycopg, sql
from backup_admin.sources.postgres.load import LoadOptions, load, read_contents
from backup_admin.sources.postgres.parts import ARCHIVE_FORMAT
from backup_admin.sources.postgres.replacing import replace_content, write_parts

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from backup_admin.sources.postgres.catalog import DatabaseFacts
    from backup_admin.sources.postgres.server import Names
    from backup_admin.sources.postgres.source import PostgresSource


class Way(StrEnum):
    """How a live database is exchanged."""

    RENAME = "rename"
    IN_PLACE = "in_place"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows the tables of a database have, and how many sequences and large objects there are."""

    rows: dict[str, int]
    sequences: int
    large_objects: int


class LiveDatabase:
    """A live database of one restore. Every method may be repeated after a crash."""

    def __init__(self, source: PostgresSource, names: Names, way: Way) -> None:
        self._source = source
        self._address = source.address
        self._names = names
        self._way = way

    @property
    def old_name(self) -> str:
        """The database that keeps what was live before; empty where it is kept as parts."""
        return self._names.old if self._way is Way.RENAME else ""

    @property
    def undone_name(self) -> str:
        """The database that an undo keeps; empty where it keeps none on the server."""
        return self._names.undone if self._way is Way.RENAME else ""

    def check(self) -> None:
        """Raise what `connected` does when the server cannot be reached."""
        with connected(self._address) if self._way is Way.IN_PLACE else self._beside():
            return

    def stage(self, folder: Path) -> tuple[str, ...]:
        """Make a database of the parts in a folder and read it back; live is not touched.

        Returns what could not be carried over from live. Does nothing when there is no other database.
        """
        contents = read_contents(folder)
        if self._way is Way.IN_PLACE:
            if contents["format"] == ARCHIVE_FORMAT:
                raise RestoreRefused(
                    f"{self._address.label}: the backup is one archive ({contents['archive_reason']}), which "
                    "only a new database can take. Nothing live was changed. Let the user make databases "
                    "(CREATEDB)."
                )
            return ()
        facts = database_from_json(contents["database"])
        with self._beside() as connection:
            live = server.read_kind(connection, self._names.live)
            belongings = read_belongings(connection, self._names.live)
            if belongings is None:
                belongings = facts_as_belongings(connection, facts)
        kind = live or _kind_of(facts)
        server.create_staged(self._address, self._names, kind)
        options = LoadOptions(belongings=False, stays=False)
        clients = find_clients(self._source.programs)
        loaded = load(folder, self._address.at(self._names.staged), clients, options)
        with self._beside() as connection:
            given = give(connection, self._names.staged, belongings, shown=self._names.live)
        return (*loaded.notices, *given)

    def keep_old(self, folder: Path) -> bool:
        """Keep what is live; False when there is no such database."""
        if self._way is Way.IN_PLACE:  # whoever may make no databases may not enter others either
            self._write(folder)
            return True
        with self._beside() as connection:
            return server.exists(connection, self._names.live)

    def swap(self, folder: Path, *, was_there: bool) -> None:
        """Exchange; `folder` holds the parts of the new state."""
        if self._way is Way.IN_PLACE:
            self._replace(folder)
            return
        # A connection may have broken when all was done: each call asks before it does anything.
        insist(lambda: server.exchange(self._address, self._names, was_there=was_there))

    def swap_again(self) -> None:
        """Make sure of an exchange that was carried out."""
        if self._way is Way.RENAME:
            server.exchange(self._address, self._names)

    def unswap(self, folder: Path, *, was_there: bool) -> None:
        """Put back what was live, the parts of which are in `folder` when it was replaced in place."""
        if self._way is Way.IN_PLACE:
            self._replace(folder)
        elif was_there:
            insist(lambda: server.exchange_back(self._address, self._names))
        else:
            insist(lambda: server.take_away(self._address, self._names))

    def keep_undone(self, folder: Path) -> None:
        """Keep what is live before an undo; the exchange by name keeps it anyhow."""
        if self._way is Way.IN_PLACE and not folder.exists():
            with connected_alone(self._address, self._names.mark):
                pass  # a session that was left behind may keep all tables locked
            self._write(folder)

    def count(self) -> Counted:
        """Count what the live database holds, through its own address."""
        with connected(self._address) as connection:
            catalog = read_catalog(connection)
            rows = {}
            for table in catalog.tables:
                # One that a program dropped since is not there.
                with suppress(psycopg.errors.UndefinedTable):
                    rows[table.shown] = _rows(connection, table.rows())
            return Counted(rows, len(catalog.sequences), catalog.large_objects)

    def drop_staged(self) -> str:
        """Drop what is made and not in use after an undone exchange; return the database that was undone."""
        return server.drop_staged(self._address, self._names) if self._way is Way.RENAME else ""

    def drop_kept(self) -> None:
        """Drop the databases a restore left beside the live one."""
        if self._way is Way.RENAME:
            server.drop_kept(self._address, self._names)

    def _beside(self) -> AbstractContextManager[psycopg.Connection]:
        return server.at_server(self._address, away_from=self._names.live)

    def _replace(self, folder: Path) -> None:
        clients = find_clients(self._source.programs)
        replace_content(folder, self._address, clients, mark=self._names.mark)

    def _write(self, folder: Path) -> None:
        """Write the parts of what is live; a folder that is there is whole."""
        if folder.exists():
            return
        begun = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(begun, ignore_errors=True)
        try:
            write_parts(self._source, begun)
        except BaseException:
            shutil.rmtree(begun, ignore_errors=True)  # it may have filled the disk of the journal
            raise
        begun.rename(folder)
        sync_folder(folder.parent)


def counted_in(folder: Path) -> Counted:
    """Return what the parts in a folder hold; raise what `read_contents` does."""
    contents = read_contents(folder)
    tables = tables_from_json(contents["tables"])
    rows = [int(row["rows"]) for row in contents["tables"]]
    names = (table.shown for table in tables)
    return Counted(
        dict(zip(names, rows, strict=True)), len(contents["sequences"]), int(contents["large_objects"])
    )


def _kind_of(facts: DatabaseFacts) -> server.DatabaseKind:
    return server.DatabaseKind(
        "",
        facts.encoding,
        facts.collate,
        facts.ctype,
        provider=facts.provider,
        locale=facts.locale,
        rules=facts.rules,
    )


def _rows(connection: psycopg.Connection, name: sql.Composable) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(name)).fetchone()
    if row is None:
        raise SourceError("The server did not count.")
    return int(row[0])
