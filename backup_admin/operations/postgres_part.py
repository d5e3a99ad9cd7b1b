"""A PostgreSQL database in a restore in place.

Its parts are written into the state folder. What becomes of them on the server stands in
`sources.postgres.restoring`, which is loaded only where there is such a database.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import BackupAdminError, ConfigurationError, SourceError, VerificationFailed
from backup_admin.core.shown import count_of
from backup_admin.operations.databases import CheckLine
from backup_admin.operations.stage_tree import write_tree
from backup_admin.sources.postgres.address import PostgresAddress
from backup_admin.sources.postgres.source import PostgresSource
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry
    from backup_admin.sources.postgres.restoring import Counted, LiveDatabase

KIND = "postgres"
_QUICK_SECONDS = "3"


@dataclass(frozen=True, slots=True)
class PostgresPart:
    """One database: `work` holds its parts, and what was live where that is not kept on the server.

    A journal holds no password: who recovers gives it with the source, or leaves it to libpq.
    """

    name: str
    live: str
    work: str
    restore_id: str
    database: str
    way: str
    source: PostgresSource

    def to_json(self) -> dict[str, Any]:
        """Return the part as it stands in the journal."""
        programs = self.source.programs
        return {
            "kind": KIND,
            "name": self.name,
            "live": self.live,
            "work": self.work,
            "restore_id": self.restore_id,
            "database": self.database,
            "way": self.way,
            "parameters": [list(pair) for pair in self.source.address.parameters],
            "programs": None if programs is None else str(programs),
        }

    def check(self) -> None:
        """Raise `SourceMissing` when the server lets us not in, or is not there."""
        self._at_work().check()

    def stage(self, entry: DatabaseEntry, repository: Repository, reporter: Reporter) -> tuple[str, ...]:
        """Write the parts, and make a database of them beside the live one where that is the way."""
        if entry.tree is None:
            raise VerificationFailed(f"{self.name} has no parts. Nothing live was touched.")
        shutil.rmtree(self._new, ignore_errors=True)
        with TreeWriter(self._new) as writer:
            report = write_tree(
                repository.entries(entry.tree), writer, reader=repository.reader(), reporter=reporter
            )
            writer.finish(entry.tree.mode, entry.tree.mtime_ns)
        if report.problems:
            raise VerificationFailed(
                f"{self.name} cannot be staged: {report.problems[0]}. Nothing live was touched."
            )
        return self._at_work().stage(self._new)

    def keep_old(self) -> bool:
        """Keep what is live; False when there is no such database."""
        return self._at_work().keep_old(self._old)

    def swap(self, *, live_usable: bool) -> None:
        """Exchange the live database; refuse when there was none before and is one now, or the other way."""
        self._at_work().swap(self._new, was_there=live_usable)

    def swap_again(self, *, live_usable: bool) -> None:
        """Make sure of what the journal says was swapped."""
        del live_usable  # found out from the names on the server
        self._at_work().swap_again()

    def unswap(self, *, live_usable: bool) -> None:
        """Put the old database back; does no harm when nothing was swapped."""
        self._at_work().unswap(self._old, was_there=live_usable)

    def keep_undone(self) -> None:
        """Keep what is live now, before an undo replaces it."""
        self._at_work().keep_undone(self._undone)

    def check_live(self, entry: DatabaseEntry, scratch: Path) -> tuple[CheckLine, ...]:
        """Compare what the live database holds with the manifest; its rows were read back before.

        Programs that are not kept out write again from the moment of the exchange on.
        """
        del scratch
        wanted = {table.name: table.rows for table in entry.tables}
        try:
            found = self._at_work().count()
        except BackupAdminError as error:
            return (CheckLine(f"{self.name}: answers", "yes", str(error), ok=False),)
        return tuple(self._lines(wanted, found.rows))

    def compare_with_staged(self) -> tuple[CheckLine, ...]:
        """Compare the live database with what was staged, as long as that is kept."""
        return self._compare_with(self._new)

    def compare_with_old(self) -> tuple[CheckLine, ...]:
        """Compare the live database with the state before the restore, where that is kept in parts."""
        return self._compare_with(self._old)

    def forget_staged(self) -> None:
        """Remove what a committed restore no longer needs."""
        shutil.rmtree(self._new, ignore_errors=True)

    def leave(self) -> None:
        """Drop what is kept beside the live database on its server."""
        self._at_work().drop_kept()

    def is_reachable(self) -> bool:
        """Say whether its server answers now; one that says nothing is not waited for."""
        parameters = {**dict(self.source.address.parameters), "connect_timeout": _QUICK_SECONDS}
        address = replace(self.source.address, parameters=tuple(sorted(parameters.items())))
        try:
            replace(self, source=replace(self.source, address=address)).check()
        except (SourceError, ConfigurationError):  # the other: psycopg is missing
            return False
        return True

    def keep_put_back(self) -> str:
        """After putting back, give up all but what had been put in its place; return where that is.

        Programs may have written there since, and none of that is anywhere else.
        """
        undone = self._at_work().drop_staged()
        shutil.rmtree(self._new, ignore_errors=True)
        shutil.rmtree(self._old, ignore_errors=True)
        return undone or self._kept_undone()

    def old_place(self) -> str:
        """Return the database that keeps what was live before; empty when that lies in the state folder."""
        return self._at_work().old_name

    def undone_place(self) -> str:
        """Return where an undo keeps what was live until then; empty when it keeps nothing."""
        return self._at_work().undone_name or self._kept_undone()

    def _kept_undone(self) -> str:
        return str(self._undone) if self._undone.exists() else ""

    @property
    def _new(self) -> Path:
        return Path(self.work) / "new"

    @property
    def _old(self) -> Path:
        return Path(self.work) / "old"

    @property
    def _undone(self) -> Path:
        return Path(self.work) / "undone"

    def _at_work(self) -> LiveDatabase:
        from backup_admin.sources.postgres.restoring import LiveDatabase, Way  # noqa: PLC0415 - needs psycopg
        from backup_admin.sources.postgres.server import names_of  # noqa: PLC0415 - needs psycopg

        return LiveDatabase(self.source, names_of(self.database, self.restore_id), Way(self.way))

    def _compare_with(self, folder: Path) -> tuple[CheckLine, ...]:
        if not folder.exists():
            return ()
        from backup_admin.sources.postgres.restoring import counted_in  # noqa: PLC0415 - needs psycopg

        wanted: Counted = counted_in(folder)
        return tuple(self._lines(wanted.rows, self._at_work().count().rows))

    def _lines(self, wanted: Mapping[str, int], found: Mapping[str, int]) -> list[CheckLine]:
        return [
            self._line(name, wanted.get(name), found.get(name))
            for name in sorted(wanted.keys() | found.keys())
        ]

    def _line(self, name: str, wanted: int | None, found: int | None) -> CheckLine:
        topic = f"{self.name}: table {name}"
        expected = "absent" if wanted is None else count_of(wanted, "row")
        if found is None:
            return CheckLine(topic, expected, "missing", ok=False)
        changed = "" if wanted == found else ", written since"
        return CheckLine(topic, expected, f"{count_of(found, 'row')}{changed}", ok=True)


def postgres_part_from_json(value: Mapping[str, Any], sources: Sequence[PostgresSource]) -> PostgresPart:
    """Read a part from the journal; the password comes from the source of that name, if one is given.

    Raises `KeyError`.
    """
    parameters = tuple((str(key), str(text)) for key, text in value["parameters"])
    programs = None if value["programs"] is None else Path(value["programs"])
    source = PostgresSource(str(value["name"]), PostgresAddress(parameters), programs)
    for given in sources:
        if given.name == source.name:
            # The place is that of the journal: what a configuration says now may be another.
            source = replace(source, address=replace(source.address, password=given.address.password))
    name, live, work, restore_id, database, way = (
        str(value[key]) for key in ("name", "live", "work", "restore_id", "database", "way")
    )
    return PostgresPart(name, live, work, restore_id, database, way, source)
