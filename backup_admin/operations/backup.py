"""Make a snapshot: capture, store, commit, and read back before saying it is good."""

from __future__ import annotations

import platform
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import (
    Damaged,
    ObjectMissing,
    PacksCollected,
    SourceError,
    SourceMissing,
    VerificationFailed,
)
from backup_admin.core.ids import SnapshotId, new_ulid
from backup_admin.core.shown import count_of
from backup_admin.core.version import VERSION
from backup_admin.operations.capture_cluster import capture_cluster
from backup_admin.operations.capture_postgres import capture_postgres
from backup_admin.operations.described import (
    describe_database,
    is_unchanged,
    known_checksums,
    noted_warnings,
    path_as_text,
    with_signals,
)
from backup_admin.operations.known import Parent
from backup_admin.operations.layout import check_layout
from backup_admin.operations.locking import keep_locked
from backup_admin.operations.read_back import read_back, read_manifest
from backup_admin.operations.results import BackupOptions, BackupResult, Evidence, Outcome, SourceSet
from backup_admin.operations.tables_there import count_tables, note_tables, what_is_lost, what_to_ask
from backup_admin.operations.trees import Tools, TreeCapture
from backup_admin.operations.workers import ContentWorkers
from backup_admin.repository.entries import ShardWriter, iterate_lines
from backup_admin.repository.pages import PageWriter
from backup_admin.repository.types import (
    ChunkKind,
    ChunkRef,
    DatabaseEntry,
    FilesRoot,
    Manifest,
    SettingsEntry,
    Snapshot,
)
from backup_admin.sources.sqlite_signals import read_signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.store import ChunkStore, ChunkWriter
    from backup_admin.sources.files import FileSource
    from backup_admin.sources.postgres.source import PostgresSource
    from backup_admin.sources.sqlite import SqliteSource

_ATTEMPTS = 3
_MAX_NOTES = 1000
_SCRATCH_PREFIX = "backup-"
_SCRATCH_SECONDS = 86_400.0


def back_up(
    repository: Repository,
    sources: SourceSet,
    *,
    options: BackupOptions,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> BackupResult:
    """Capture all sources as one snapshot and prove that it was stored.

    Databases come first, files after, so that a row may lack no file. Nothing
    is visible in the repository before everything is stored; a source that is
    missing or unreadable as a whole raises and makes no snapshot. What is
    missing from the snapshot makes it `degraded`, and so does a lock of the storage that
    could not be extended. Raises `Busy` while another backup or a restore works in this
    state folder.
    """
    with state.lock("backup"):
        return back_up_locked(
            repository, sources, options=options, state=state, reporter=reporter, clock=clock
        )


def back_up_locked(
    repository: Repository,
    sources: SourceSet,
    *,
    options: BackupOptions,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> BackupResult:
    """Do the work of `back_up` for a caller that holds the state folder's backup lock."""
    check_layout(repository.storage, sources)
    started = clock.monotonic()
    manifest, evidence = _make(repository, sources, options, state, reporter, clock)
    snapshot = manifest.snapshot
    lock_problems = keep_locked(repository, state, reporter=reporter, clock=clock)
    return BackupResult(
        snapshot=snapshot,
        outcome=Outcome.DEGRADED if lock_problems else Outcome(snapshot.outcome),
        warnings=manifest.warnings,
        notices=manifest.notices,
        evidence=evidence,
        new_bytes=snapshot.new_bytes,
        seconds=clock.monotonic() - started,
        lock_problems=lock_problems,
        databases=count_tables(manifest.databases),
    )


def _make(
    repository: Repository,
    sources: SourceSet,
    options: BackupOptions,
    state: StateFolder,
    reporter: Reporter,
    clock: Clock,
) -> tuple[Manifest, Evidence]:
    for _ in range(_ATTEMPTS - 1):
        before = repository.head.seq
        try:
            return _Run(repository, sources, options, state, reporter, clock).make()
        except PacksCollected:
            continue
        except (Damaged, ObjectMissing, VerificationFailed):
            # A prune may have taken what this run was about to read.
            repository.refresh()
            if not repository.taken_since(before):
                raise
    return _Run(repository, sources, options, state, reporter, clock).make()


@dataclass(slots=True)
class _Parts:
    databases: list[DatabaseEntry] = field(default_factory=list)
    files: list[FilesRoot] = field(default_factory=list)
    settings: SettingsEntry | None = None
    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


class _Run:
    """One attempt at a snapshot."""

    def __init__(
        self,
        repository: Repository,
        sources: SourceSet,
        options: BackupOptions,
        state: StateFolder,
        reporter: Reporter,
        clock: Clock,
    ) -> None:
        self._repository = repository
        self._sources = sources
        self._options = options
        self._state = state
        self._reporter = reporter
        self._clock = clock
        self._parts = _Parts()

    def make(self) -> tuple[Manifest, Evidence]:
        repository = self._repository
        repository.refresh()
        parent = self._find_parent()
        for source in self._sources.files:
            source.check_root()
        for database in self._sources.databases:
            known = None if parent is None else parent.database(database.name)
            if known is None or not is_unchanged(known, database):
                database.check()
        for server in self._sources.postgres:
            server.check()
        for cluster in self._sources.clusters:
            cluster.check()
        _clear_scratch(self._state.scratch, self._clock.now().timestamp())
        with ExitStack() as stack:
            store = repository.new_store()
            stack.callback(store.close)
            workers = ContentWorkers(repository, store)
            stack.callback(workers.shut_down)
            folder = stack.enter_context(TemporaryDirectory(prefix=_SCRATCH_PREFIX, dir=self._state.scratch))
            self._writer = store.writer()
            self._capture(parent, workers, Path(folder))
            workers.shut_down()
            self._reporter.stage("commit")
            store.finish()
            evidence = read_back(repository, store, reporter=self._reporter)
            manifest = self._manifest(parent, store)
            repository.commit(manifest, store, actor=self._options.actor)
        return manifest, evidence.plus(read_manifest(repository, manifest.snapshot.id))

    def _find_parent(self) -> Manifest | None:
        repository = self._repository
        missing = repository.missing_packs()
        if missing or repository.index().lost:
            repository.index().ignore(missing)
            lost = len(repository.index().lost)
            self._parts.notices.append(
                f"{count_of(len(missing), 'pack')} and {count_of(lost, 'index object')} of earlier "
                "snapshots are missing from the storage or damaged; everything was read again, and "
                "what they held is stored anew where it still exists."
            )
            return None
        ids = [name for name in repository.snapshot_ids() if name not in repository.history.damaged]
        try:
            return repository.manifest(ids[-1]) if ids else None
        except Damaged as error:
            self._parts.notices.append(f"The snapshot before could not be read: {error}")
            return None

    def _capture(self, parent: Manifest | None, workers: ContentWorkers, scratch: Path) -> None:
        sources = self._sources
        databases = len(sources.databases) + len(sources.postgres) + len(sources.clusters)
        tools = Tools(workers, lambda writer: self._page_writer(writer.chunks), scratch, self._reporter)
        self._reporter.stage("databases", total_items=databases)
        for database in self._sources.databases:
            self._capture_database(database, parent, scratch)
        for server in self._sources.postgres:
            signals = _signals_of(server)  # before the capture: what happens between is captured, not missed
            entry = capture_postgres(server, workers, self._put_part, self._reporter)
            self._keep(with_signals(entry, signals), parent)
            self._reporter.advance(items=1)
        for cluster in sources.clusters:
            entry, notices = capture_cluster(cluster, tools, self._put_part, scratch)
            self._parts.databases.append(entry)
            self._parts.notices += notices
            self._reporter.advance(items=1)
        self._reporter.stage("files")
        for source in self._sources.files:
            self._capture_tree(source, parent, tools)
        if self._sources.settings is not None:
            self._reporter.stage("settings")
            self._capture_settings()

    def _capture_database(self, source: SqliteSource, parent: Manifest | None, scratch: Path) -> None:
        self._reporter.check_cancelled()
        self._reporter.advance(current=source.name)
        old = None if parent is None else parent.database(source.name)
        signals = read_signals(source)
        if old is None or not is_unchanged(old, source):
            old = self._store_database(source, old, scratch)
        self._keep(with_signals(old, signals), parent)
        self._reporter.advance(size=old.content.size, items=1)

    def _keep(self, captured: DatabaseEntry, parent: Manifest | None) -> None:
        entry = note_tables(captured, parent)
        said = (*noted_warnings(entry), *what_to_ask(entry))
        self._parts.warnings += what_is_lost(entry, self._options.kind)
        self._parts.notices += [f"{entry.name}: {one}" for one in said]
        self._parts.databases.append(entry)

    def _store_database(
        self, source: SqliteSource, old: DatabaseEntry | None, scratch: Path
    ) -> DatabaseEntry:
        began_ns = time.time_ns()
        copy = source.copy(scratch)
        pages = self._page_writer(self._writer)
        known = {} if old is None else known_checksums(old)
        try:
            with copy.path.open("rb", buffering=0) as file, source.describing(copy, known) as described:
                content = pages.write(
                    lambda view: file.readinto(view) or 0,
                    copy.page_size,
                    None if old is None else old.content.pages,
                )
                return describe_database(source, described(), content, began_ns=began_ns)
        finally:
            copy.path.unlink(missing_ok=True)

    def _capture_tree(self, source: FileSource, parent: Manifest | None, tools: Tools) -> None:
        root_info = source.check_root()
        started_ns = time.time_ns()
        old = None if parent is None else parent.files_root(source.name)
        before = None
        if old is not None:
            before = Parent(iterate_lines(self._repository.reader(), old), old.scan_started_ns)
        shards = ShardWriter(self._put_part)
        capture = TreeCapture(source, shards, tools, parent=before)
        notes = capture.run()
        self._parts.warnings += notes.warnings
        self._parts.notices += notes.notices
        self._parts.files.append(
            shards.finish_root(
                source.name,
                path_as_text(source.root),
                root_info.mode,
                root_info.mtime_ns,
                began_ns=started_ns,
                excluded=source.exclude,
            )
        )

    def _capture_settings(self) -> None:
        source = self._sources.settings
        if source is None:
            return
        captured = source.capture()
        self._parts.warnings += [
            f"The environment variable {name} was to be saved and is not set." for name in captured.missing
        ]
        data = dump_canonical({"values": captured.values, "secrets": captured.secrets})
        ref = self._writer.put(ChunkKind.DATA, data, compress=True)
        self._parts.settings = SettingsEntry(
            ref, tuple(sorted(captured.values)), tuple(sorted(captured.secrets))
        )

    def _put_part(self, data: bytes) -> ChunkRef:
        return self._writer.put(ChunkKind.MANIFEST, data, compress=True)

    def _page_writer(self, writer: ChunkWriter) -> PageWriter:
        repository = self._repository
        return PageWriter(
            writer,
            repository.reader(),
            repository.keys,
            pages_per_shard=repository.config.parameters.pages_per_shard,
            groups=self._state.cache / repository.repo_id[:32] / "pages",
        )

    def _manifest(self, parent: Manifest | None, store: ChunkStore) -> Manifest:
        now = self._clock.now()
        parts = self._parts
        snapshot = Snapshot(
            id=SnapshotId(new_ulid(now)),
            created_at=now,
            kind=self._options.kind,
            label=self._options.label,
            outcome=(Outcome.DEGRADED if parts.warnings else Outcome.COMPLETED).value,
            parent="" if parent is None else parent.snapshot.id,
            file_count=sum(root.file_count for root in parts.files),
            file_bytes=sum(root.size for root in parts.files),
            database_count=len(parts.databases),
            database_bytes=sum(entry.size for entry in parts.databases),
            new_bytes=store.stored_bytes,
            warning_count=len(parts.warnings),
        )
        return Manifest(
            snapshot=snapshot,
            system=self._system(),
            databases=tuple(parts.databases),
            files=tuple(parts.files),
            settings=parts.settings,
            warnings=_shorten(parts.warnings),
            notices=_shorten(parts.notices),
        )

    def _system(self) -> dict[str, Any]:
        return {
            "app_version": self._options.app_version,
            "python_version": platform.python_version(),
            "backup_admin_version": VERSION,
            "database_type": "sqlite" if self._sources.databases else "",
            "host": platform.node(),
        }


def _signals_of(server: PostgresSource) -> dict[str, Any]:
    """Read the signals of a database; none where that fails, and then the next backup is not skipped."""
    try:
        return server.signals()
    except (SourceError, SourceMissing):
        return {}


def _clear_scratch(scratch: Path, now: float) -> None:
    """Remove what killed processes left: copies of databases that others could read.

    Backups hold a lock, so what an earlier one left is at once known to be left;
    other work may be under way for up to a day.
    """
    for left in scratch.iterdir():
        with suppress(FileNotFoundError):  # its owner was quicker
            if left.name.startswith(_SCRATCH_PREFIX) or left.stat().st_mtime < now - _SCRATCH_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _shorten(notes: Sequence[str]) -> tuple[str, ...]:
    if len(notes) <= _MAX_NOTES:
        return tuple(notes)
    return (*notes[:_MAX_NOTES], f"and {len(notes) - _MAX_NOTES} more.")
