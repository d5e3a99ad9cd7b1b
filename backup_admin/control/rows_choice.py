"""Step 3 and 4 of a restore of tables or rows: what a person asks for, and whether it can be done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from backup_admin.core.errors import UsageError
from backup_admin.operations.issues import Issue, Level
from backup_admin.operations.rows_answers import clash_advice, clash_words, file_counts
from backup_admin.operations.rows_asked import read_link, read_row
from backup_admin.operations.rows_plan import RowsSelection
from backup_admin.operations.validate import look_at_journals, look_at_storage
from backup_admin.sources.merging.merge_model import OnConflict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backup_admin.control.installation import Installation
    from backup_admin.operations.linked_files import Link
    from backup_admin.operations.results import SourceSet
    from backup_admin.operations.rows_plan import RowsPlan
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, Manifest

_MAX_LINES = 1000
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class RowsChoice:
    """What a person ticked and typed; `rows` and `linked` have a line for each."""

    database: str = ""
    tables: tuple[str, ...] = ()
    rows: str = ""
    on_conflict: str = OnConflict.SKIP.value
    linked: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return it as a draft keeps it."""
        return {**asdict(self), "tables": list(self.tables)}

    @staticmethod
    def from_plain(value: Mapping[str, Any]) -> RowsChoice:
        """Read what a draft keeps; what is not there is as at first."""
        return RowsChoice(
            str(value.get("database", "")),
            tuple(map(str, value.get("tables", ()))),
            str(value.get("rows", "")),
            str(value.get("on_conflict", OnConflict.SKIP.value)),
            str(value.get("linked", "")),
        )

    @staticmethod
    def of(selection: RowsSelection) -> RowsChoice:
        """Return what a person would have typed for a selection."""
        return RowsChoice(
            selection.database,
            selection.tables,
            "\n".join(f"{table}:{key}" for table, key in selection.rows),
            selection.on_conflict.value,
            "\n".join(link.shown for link in selection.links),
        )

    @property
    def words(self) -> str:
        """Return it in one line, for the audit log and lists."""
        parts = [*(f"table {name}" for name in self.tables), *(line for _, line in _lines(self.rows))]
        more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
        return f"{', '.join(parts[:_SHOWN])}{more}, in {self.database}"

    def selection(self) -> RowsSelection:
        """Return what it means; raise `UsageError` when it has no meaning yet."""
        rows = [read_row(line) for _, line in _lines(self.rows)]
        links = [read_link(line) for _, line in _lines(self.linked)]
        if not (self.tables or rows):
            raise UsageError("Choose tables or rows first.")
        if None in rows or None in links or self.on_conflict not in set(OnConflict):
            raise UsageError("Look at the tables and rows again: something there cannot be read.")
        return RowsSelection(
            self.database,
            self.tables,
            tuple(dict.fromkeys(row for row in rows if row is not None)),
            OnConflict(self.on_conflict),
            tuple(link for link in links if link is not None),
        )


@dataclass(frozen=True, slots=True)
class HeldTable:
    """A table of the snapshot."""

    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class HeldDatabase:
    """A database that both the snapshot and this deployment have.

    `all_listed` says that no other table can be named: of a partitioned one only the parts are listed.
    """

    name: str
    tables: tuple[HeldTable, ...]
    all_listed: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """What rows can be restored from, and the folders whose files may follow them."""

    databases: tuple[HeldDatabase, ...]
    folders: tuple[str, ...]

    def find(self, name: str) -> HeldDatabase | None:
        """Return a database by its name."""
        return next((one for one in self.databases if one.name == name), None)


def held_of(manifest: Manifest, targets: SourceSet) -> Held:
    """Return what can be chosen."""
    live = set(targets.database_names())
    folders = {source.name for source in targets.files}
    return Held(
        tuple(
            HeldDatabase(
                entry.name,
                tuple(
                    HeldTable(one.name, one.rows) for one in entry.tables if not _is_internal(entry, one.name)
                ),
                all_listed=entry.tree is None,
            )
            for entry in manifest.databases
            if entry.name in live
        ),
        tuple(root.name for root in manifest.files if root.name in folders),
    )


def _is_internal(entry: DatabaseEntry, table: str) -> bool:
    """Say whether a table is kept by SQLite itself, for which no row can be meant."""
    return entry.tree is None and table.startswith("sqlite_")


def problems_of(choice: RowsChoice, held: Held) -> dict[str, str]:
    """Say by field what keeps a choice from being understood; nothing when it is."""
    database = held.find(choice.database)
    found = {
        "database": "" if database else "Choose one of the databases.",
        "tables": _problem_of_tables(choice, database),
        "rows": _problem_of_rows(choice.rows, database),
        "on_conflict": _problem_of_policy(choice),
        "linked": _problem_of_links(choice.linked, held.folders),
    }
    return {name: problem for name, problem in found.items() if problem}


def issues_of(
    plan: RowsPlan, repository: Repository, targets: SourceSet, installation: Installation
) -> tuple[Issue, ...]:
    """Say what speaks for and against carrying a plan out."""
    return (
        *_look_at_trial(plan),
        *look_at_storage(repository, targets),
        *look_at_journals(installation.state, installation.clock),
        *_look_at_effects(plan),
    )


def _look_at_trial(plan: RowsPlan) -> Iterator[Issue]:
    for sentence in plan.report.refusals:
        yield Issue(Level.BLOCK, "Refused", sentence)
    for clash in plan.report.clashes:
        yield Issue(Level.BLOCK, "Clash", f"{clash_words(clash)}. {clash_advice(plan.selection.on_conflict)}")
    if plan.report.is_refused:
        return
    if plan.is_empty:
        text = "All of it is live already; there is nothing to restore."
        if any(table.skip for table in plan.report.tables):
            text = "No row is missing, and different ones stay. To overwrite them, go back and choose so."
        yield Issue(Level.BLOCK, "Nothing to do", text)
    yield Issue(Level.OK, "Trial", "All of it was done in one transaction of the database, and taken back.")


def _look_at_effects(plan: RowsPlan) -> Iterator[Issue]:
    left = sum(table.skip for table in plan.report.tables)
    if left and plan.selection.on_conflict is OnConflict.SKIP:
        rows = "1 row is" if left == 1 else f"{left:,} rows are"
        yield Issue(Level.WARN, "Left alone", f"{rows} live and different, and will stay so.")
    for note in plan.report.notes:
        yield Issue(Level.WARN, "Note", note)
    for files in plan.linked:
        if files.problems:
            yield Issue(Level.WARN, "Files", f"{files.link}: {file_counts(files)}.")


def _problem_of_tables(choice: RowsChoice, database: HeldDatabase | None) -> str:
    known = [table.name for table in database.tables] if database else choice.tables
    for table in choice.tables:
        if table not in known:
            return f"The backup has no table {table!r} in {choice.database}."
    return "" if choice.tables or choice.rows.strip() else "Tick a table, or name a row above."


def _problem_of_rows(text: str, database: HeldDatabase | None) -> str:
    lines = _lines(text)
    if len(lines) > _MAX_LINES:
        return f"These are {len(lines):,} rows. Name {_MAX_LINES:,} at most, or tick the whole table."
    known = [table.name for table in database.tables] if database else []
    for number, line in lines:
        row = read_row(line)
        if row is None:
            example = f"{known[0] if known else 'events'}:42"
            return f"Line {number}: write table:key, such as {example}, not {line[:60]!r}."
        if database and database.all_listed and row[0] not in known:
            near = get_close_matches(row[0], known, n=1)
            hint = f" Is it {near[0]}?" if near else ""
            return f"Line {number}: the backup has no table {row[0][:60]!r} in {database.name}.{hint}"
    return ""


def _problem_of_policy(choice: RowsChoice) -> str:
    if choice.on_conflict not in set(OnConflict):
        return "Choose one of these."
    if choice.on_conflict == OnConflict.REPLACE and choice.rows.strip():
        return "This goes with whole tables only: take the single rows out, or choose another."
    if choice.on_conflict == OnConflict.COPY and choice.tables:
        return "This goes with single rows only: tick no table, or choose another."
    return ""


def _problem_of_links(text: str, folders: tuple[str, ...]) -> str:
    for number, line in _lines(text):
        link: Link | None = read_link(line)
        if link is None:
            return f"Line {number}: write table.column=folder, such as photos.path={_first(folders)}."
        if link.folder not in folders:
            known = ", ".join(folders) or "none"
            return f"Line {number}: there is no folder {link.folder!r}. Folders that can be used: {known}."
    return ""


def _first(folders: tuple[str, ...]) -> str:
    return folders[0] if folders else "uploads"


def _lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers."""
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in numbered if line]
