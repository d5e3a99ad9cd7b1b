"""Look at every source, the cheapest way first, for whether a backup has to be made."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import BackupAdminError, Cancelled, Damaged, NeedsAttention
from backup_admin.operations.change_files import find_change
from backup_admin.operations.change_notes import read_notes, write_notes
from backup_admin.operations.changes import (
    Circumstances,
    Decision,
    Finding,
    changed_tables,
    decide,
    holds_ours,
    why_forced,
)
from backup_admin.operations.described import SIGNALS, known_checksums, path_as_text
from backup_admin.operations.journal import list_journals
from backup_admin.operations.known import SETTLE_NS
from backup_admin.operations.locking import keep_locked
from backup_admin.repository.types import ChunkKind
from backup_admin.sources import sqlite_signals
from backup_admin.sources.sidecars import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.changes import ChangeOptions
    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, Manifest
    from backup_admin.sources.app_settings import SettingsSource
    from backup_admin.sources.files import FileSource
    from backup_admin.sources.postgres.source import PostgresSource
    from backup_admin.sources.sqlite import SqliteCopy, SqliteSource

_REPOSITORY = "The repository"
_SETTINGS = "The settings"
_SCRATCH_PREFIX = "changes-"


def look_for_changes(
    repository: Repository,
    sources: SourceSet,
    *,
    options: ChangeOptions,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> Decision:
    """Decide whether a backup of these sources has to be made now; writes nothing but a cache.

    What cannot be looked at is a reason to make one: the backup says what is wrong. Where it is
    skipped, locks of the storage are extended as a backup would extend them. Raises `Busy`
    while another backup or a restore works in this state folder.
    """
    with state.lock("backup"):
        repository.refresh()
        reporter.stage("changes")
        circumstances, parent = _circumstances(repository, sources, state, clock)
        if parent is None:
            return Decision(run=True, reason=why_forced(circumstances, options))
        look = _Look(repository, sources, parent, options, state, reporter)
        decision = decide(circumstances, look.findings(), options)
        if decision.run:
            return decision
        write_notes(state, repository.repo_id, decision.unchanged, look.proven)
        problems = keep_locked(repository, state, reporter=reporter, clock=clock)
        return Decision(run=True, reason=problems[0]) if problems else decision


def _circumstances(
    repository: Repository, sources: SourceSet, state: StateFolder, clock: Clock
) -> tuple[Circumstances, Manifest | None]:
    ids = repository.snapshot_ids()
    parent, problem = None, ""
    try:
        parent = repository.manifest(ids[-1]) if ids else None
    except Damaged:
        problem = "The newest snapshot cannot be read."
    if ids and ids[-1] in repository.history.damaged:
        problem = "The newest snapshot is damaged."
    restored_at: datetime | None = None
    try:
        restored_at = max((journal.updated_at for journal in list_journals(state, clock)), default=None)
    except NeedsAttention as error:
        problem = str(error)
    expected = (_REPOSITORY, *_names(sources))
    newest = None if parent is None else parent.snapshot
    return Circumstances(newest, clock.now(), expected, restored_at, problem), None if problem else parent


def _names(sources: SourceSet) -> tuple[str, ...]:
    return (
        *map(_database, sources.database_names()),
        *(_folder(source.name) for source in sources.files),
        *((_SETTINGS,) if sources.settings is not None else ()),
    )


def _database(name: str) -> str:
    return f"Database {name}"


def _folder(name: str) -> str:
    return f"Folder {name}"


class _Look:
    """One look at everything. `proven` are the signals of databases that were found equal."""

    def __init__(
        self,
        repository: Repository,
        sources: SourceSet,
        parent: Manifest,
        options: ChangeOptions,
        state: StateFolder,
        reporter: Reporter,
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._parent = parent
        self._options = options
        self._state = state
        self._reporter = reporter
        self._later: list[tuple[str, Callable[[], str]]] = []
        self.proven = read_notes(state, repository.repo_id, parent.snapshot.id)

    def findings(self) -> Iterator[Finding]:
        """Give what is found, the cheapest first; what costs more is not done before it is asked for."""
        for cluster in self._sources.clusters:
            yield Finding(_database(cluster.name), "a base backup is made each time.")
        yield Finding(_REPOSITORY, self._other_sources())
        for name, look in self._first_looks():
            change = self._try(look)
            if change is not None:
                yield Finding(name, change)
        for name, prove in self._later:
            yield Finding(name, self._try(prove) or "")

    def _first_looks(self) -> Iterator[tuple[str, Callable[[], str | None]]]:
        sources = self._sources
        for database in sources.databases:
            yield _database(database.name), partial(self._sqlite, database)
        for server in sources.postgres:
            yield _database(server.name), partial(self._postgres, server)
        if sources.settings is not None:
            yield _SETTINGS, self._settings
        yield _REPOSITORY, self._packs
        for folder in sources.files:
            yield _folder(folder.name), partial(self._files, folder)

    def _try(self, look: Callable[[], str | None]) -> str | None:
        """Look once: None means that only a closer look, put off for later, can tell."""
        self._reporter.check_cancelled()
        try:
            return look()
        except Cancelled:
            raise
        except BackupAdminError as error:
            return f"it cannot be compared. {error}"

    def _other_sources(self) -> str:
        databases = {entry.name for entry in self._parent.databases}
        if databases != set(self._sources.database_names()):
            return "the newest snapshot holds other databases."
        if {root.name for root in self._parent.files} != {one.name for one in self._sources.files}:
            return "the newest snapshot holds other folders."
        if (self._parent.settings is None) != (self._sources.settings is None):
            return "the newest snapshot holds settings and shall not, or the other way round."
        return ""

    def _packs(self) -> str:
        missing = len(self._repository.missing_packs()) + len(self._repository.index().lost)
        return "a part of what it holds is missing or damaged." if missing else ""

    def _settings(self) -> str:
        source, noted = self._sources.settings, self._parent.settings
        if source is None or noted is None:
            return "there were none."
        chunk_id = self._repository.keys.chunk_id(ChunkKind.DATA, settings_bytes(source))
        return "" if chunk_id == noted.content.id else "one of them changed."

    def _files(self, source: FileSource) -> str:
        old = self._parent.files_root(source.name)
        return "it is new." if old is None else find_change(self._repository, source, old, self._reporter)

    def _noted(self, entry: DatabaseEntry) -> Mapping[str, Any]:
        """Return the newest signals that tell the state of the snapshot."""
        found = self.proven.get(entry.name) or entry.details.get(SIGNALS)
        return found if isinstance(found, dict) else {}

    # --- SQLite

    def _sqlite(self, source: SqliteSource) -> str | None:
        entry = self._parent.database(source.name)
        if entry is None or entry.path != path_as_text(source.path):
            return "it is another one than the snapshot has."
        now = sqlite_signals.read_signals(source)
        if _is_equal(self._noted(entry), now):
            return ""
        self._later.append((_database(source.name), partial(self._compare_sqlite, source, entry, now)))
        return None

    def _compare_sqlite(self, source: SqliteSource, entry: DatabaseEntry, now: Mapping[str, Any]) -> str:
        counted = self._counted(entry)
        if counted and sqlite_signals.counted(source) != counted:
            return "its triggers counted changes."
        with TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=self._state.scratch) as scratch:
            copy = source.capture(Path(scratch), known=known_checksums(entry))
        change = self._compare_copy(entry, copy)
        if not change:
            self.proven[entry.name] = dict(now)
        return change

    def _counted(self, entry: DatabaseEntry) -> str:
        """Return the digest of what triggers had counted; none where tables that do not count are counted."""
        tables = {table.name: table.checksum for table in entry.tables}
        counted = tables.pop(COUNTERS, "")
        return "" if any(self._ignores(entry, table) for table in tables) else counted

    def _ignores(self, entry: DatabaseEntry, table: str) -> bool:
        has_ours = holds_ours(one.name for one in entry.tables)
        return self._options.ignores(entry.name, table, has_ours=has_ours)

    def _compare_copy(self, entry: DatabaseEntry, copy: SqliteCopy) -> str:
        details = entry.details
        noted = (details.get("schema"), details.get("user_version"), details.get("application_id"))
        if noted != (copy.schema, copy.user_version, copy.application_id):
            return "its schema or its version changed."
        form = (entry.page_size, details.get("encoding"), details.get("journal_mode"))
        if form != (copy.page_size, copy.encoding, copy.journal_mode):
            return "it is stored in another way."
        old = {(table.name, table.rows, table.checksum) for table in entry.tables}
        new = {(table.name, table.rows, table.checksum) for table in copy.tables}
        changed = {name for name, *_ in old ^ new if not self._ignores(entry, name)}
        return changed_tables(changed) if changed else ""

    # --- PostgreSQL

    def _postgres(self, source: PostgresSource) -> str | None:
        entry = self._parent.database(source.name)
        if entry is None or entry.path != source.address.label:
            return "it is another one than the snapshot has."
        if source.archive and entry.format != "archive":
            return "it shall be stored as one archive."
        return self._compare_signals(source, entry)

    def _compare_signals(self, source: PostgresSource, entry: DatabaseEntry) -> str | None:
        try:
            found = source.compare(self._noted(entry), partial(self._ignores, entry))
        except (KeyError, TypeError, ValueError, AttributeError):
            return "what is noted of it cannot be read."  # it was written by somebody else
        if found.reason:
            return found.reason
        if not found.suspects:
            self.proven[entry.name] = dict(found.signals)
            return ""
        closer = partial(self._compare_postgres, source, entry, found.suspects, found.signals)
        self._later.append((_database(source.name), closer))
        return None

    def _compare_postgres(
        self,
        source: PostgresSource,
        entry: DatabaseEntry,
        suspects: tuple[str, ...],
        signals: Mapping[str, Any],
    ) -> str:
        noted = {table.name: table.checksum for table in entry.tables}
        found = source.digests(suspects)
        changed = [name for name in suspects if found.get(name, "") != noted.get(name)]
        if changed:
            return changed_tables(changed)
        self.proven[entry.name] = dict(signals)
        return ""


def settings_bytes(source: SettingsSource) -> bytes:
    """Return the settings as a snapshot keeps them."""
    captured = source.capture()
    return dump_canonical({"values": captured.values, "secrets": captured.secrets})


def _is_equal(noted: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    try:
        return sqlite_signals.are_equal(noted, now, SETTLE_NS)
    except (KeyError, TypeError, ValueError, AttributeError):
        return False  # what is noted was written by somebody else
