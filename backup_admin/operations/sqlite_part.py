"""A SQLite database in a restore in place: staged beside the live file, written into it, and kept."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import sync_folder
from backup_admin.core.errors import SourceError, SourceInvalid, SourceMissing, VerificationFailed
from backup_admin.core.shown import count_of
from backup_admin.operations.captured import write_content
from backup_admin.operations.databases import CheckLine, compare_database, compare_tables
from backup_admin.operations.described import known_checksums
from backup_admin.sources.base import LiveUnusable
from backup_admin.sources.sqlite import (
    SqliteSource,
    copy_database,
    inspect_copy,
    place_offline,
    undo_place_offline,
    write_into_live,
)

if TYPE_CHECKING:
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry

_SWAP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class SqlitePart:
    """One database: `work` holds the staged copy, the old state and what was moved aside."""

    name: str
    live: str
    work: str

    @property
    def copy(self) -> Path:
        """The state to be restored."""
        return Path(self.work) / "new.db"

    @property
    def old(self) -> Path:
        """The state before the restore."""
        return Path(self.work) / "old.db"

    @property
    def undone(self) -> Path:
        """The state after the restore, kept when it is undone."""
        return Path(self.work) / "undone.db"

    @property
    def aside(self) -> Path:
        """Where an unusable live file and its sidecars are moved."""
        return Path(self.work) / "aside"

    def to_json(self) -> dict[str, Any]:
        """Return the part as it stands in the journal."""
        return {"kind": "database", **asdict(self)}

    def check(self) -> None:
        """Do nothing: all it needs lies beside the live file."""

    def stage(self, entry: DatabaseEntry, repository: Repository, reporter: Reporter) -> tuple[str, ...]:
        """Put a database together beside the live one and check it; raise `VerificationFailed`."""
        self.copy.unlink(missing_ok=True)
        write_content(repository.reader(), entry.content, self.copy)
        lines = compare_database(entry, self.copy, thorough=True)
        wrong = [line for line in lines if not line.ok]
        if wrong:
            raise VerificationFailed(f"{wrong[0].topic}: {wrong[0].found}. Nothing live was touched.")
        reporter.advance(size=entry.size)
        return ()

    def keep_old(self) -> bool:
        """Keep a copy of the live database; False when it is missing or damaged.

        Everything else is raised: nobody may be rid of a sound database because the disk was full.
        """
        self.old.unlink(missing_ok=True)
        try:
            copy = SqliteSource(self.name, Path(self.live)).capture(Path(self.work))
        except (SourceInvalid, SourceMissing):
            return False
        copy.path.rename(self.old)
        sync_folder(self.work)
        return True

    def swap(self, *, live_usable: bool) -> None:
        """Replace the content of the live database, or the file when it is unusable."""
        if live_usable:
            write_into_live(self.copy, Path(self.live), deadline_seconds=_SWAP_SECONDS)
        else:
            place_offline(self.copy, Path(self.live), self.aside)

    def swap_again(self, *, live_usable: bool) -> None:
        """Swap once more what the journal says was swapped.

        A staged copy that is gone was swapped and committed: it is removed only after that, and
        what the app wrote since must not be touched.
        """
        if self.copy.exists() or not live_usable:
            self.swap(live_usable=live_usable)

    def unswap(self, *, live_usable: bool) -> None:
        """Put the old content back; does no harm when nothing was swapped.

        A live database that was lost or damaged since is moved aside.
        """
        live = Path(self.live)
        if not live_usable:
            undo_place_offline(live, self.aside)
            return
        try:
            if not self.aside.exists():
                write_into_live(self.old, live, deadline_seconds=_SWAP_SECONDS)
                return
        except LiveUnusable:
            pass
        place_offline(self.old, live, self.aside)

    def keep_undone(self) -> None:
        """Keep what is live now, before an undo replaces it; what is no database is moved aside then."""
        if self.undone.exists():
            return
        live, work = Path(self.live), Path(self.work)
        try:
            copy = SqliteSource(self.name, live).capture(work).path
        except SourceMissing:
            return
        except SourceInvalid:
            copy = work / "undone.part"
            copy.unlink(missing_ok=True)
            copy_database(live, copy)
        copy.rename(self.undone)

    def check_live(self, entry: DatabaseEntry, scratch: Path) -> tuple[CheckLine, ...]:
        """Compare the live database with the manifest, table by table."""
        with TemporaryDirectory(prefix="check-", dir=scratch) as folder:
            try:
                source = SqliteSource(self.name, Path(self.live))
                copy = source.capture(Path(folder), known=known_checksums(entry))
            except SourceError as error:
                return (CheckLine(f"{self.name}: integrity", "sound", str(error), ok=False),)
            return compare_tables(entry, copy)

    def compare_with_staged(self) -> tuple[CheckLine, ...]:
        """Compare the live database with what was staged, as long as that is kept."""
        return self._compare_with(self.copy)

    def compare_with_old(self) -> tuple[CheckLine, ...]:
        """Compare the live database with the state before the restore."""
        return self._compare_with(self.old)

    def _compare_with(self, copy: Path) -> tuple[CheckLine, ...]:
        if not copy.exists():
            return ()
        wanted = {table.name: table for table in inspect_copy(copy).tables}
        with TemporaryDirectory(prefix="check-", dir=self.work) as folder:
            live = SqliteSource(self.name, Path(self.live)).capture(Path(folder))
        found = {table.name: table for table in live.tables}
        return tuple(
            CheckLine(
                f"{self.name}: table {name}",
                count_of(wanted[name].rows, "row") if name in wanted else "absent",
                count_of(found[name].rows, "row") if name in found else "missing",
                name in wanted and name in found and wanted[name].checksum == found[name].checksum,
            )
            for name in sorted(wanted.keys() | found.keys())
        )

    def forget_staged(self) -> None:
        """Remove what a committed restore no longer needs; it goes with the rest at the latest."""
        with suppress(OSError):
            self.copy.unlink()

    def leave(self) -> None:
        """Give up what is kept outside of the work folder: nothing."""
