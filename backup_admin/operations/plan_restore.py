"""Plan a restore in place: compare the snapshot with what is live; read only."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused, SourceError, UsageError
from backup_admin.core.paths import show_path, sort_key
from backup_admin.core.settings import STREAMS_ROOT
from backup_admin.operations.base_backups import refuse_cluster
from backup_admin.operations.described import known_checksums
from backup_admin.operations.plan_postgres import plan_postgres
from backup_admin.operations.plans import DatabasePart, FilesPart, RestorePlan, Selection, TableEffect
from backup_admin.sources.base import FoundEntry

if TYPE_CHECKING:
    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FilesRoot, Manifest
    from backup_admin.sources.files import FileSource
    from backup_admin.sources.sqlite import SqliteSource

_EXAMPLES = 20


def plan_restore(
    repository: Repository,
    snapshot_id: SnapshotId,
    targets: SourceSet,
    selection: Selection,
    *,
    state: StateFolder,
    reporter: Reporter,
) -> RestorePlan:
    """Say exactly what a restore onto the live targets would change.

    Looks at the size and time of every live file, not at its bytes, and at a copy of every live database.
    Raises `UsageError` for a selected part that the snapshot or the targets lack.
    """
    manifest = repository.manifest(snapshot_id)
    run = _Planning(repository, manifest, targets, state, reporter)
    databases = _chosen(
        selection.databases,
        [e.name for e in manifest.databases],
        targets.database_names(),
        "database",
    )
    files = _chosen(
        selection.files, [root.name for root in manifest.files], [t.name for t in targets.files], "folder"
    )
    if not databases and not files:
        raise RestoreRefused("Nothing of this snapshot has a place to go back to. Nothing was touched.")
    reporter.stage("plan", total_items=len(databases) + len(files))
    return RestorePlan(
        snapshot_id=snapshot_id,
        manifest_digest=repository.manifest_digest(snapshot_id),
        repo_id=repository.repo_id,
        databases=tuple(run.database(name) for name in databases),
        files=tuple(run.tree(name) for name in files),
        left_out=_left_out(manifest, targets, databases, files),
    )


def _chosen(wanted: tuple[str, ...] | None, stored: list[str], live: list[str], word: str) -> list[str]:
    if wanted is None:
        return [name for name in stored if name in live]
    for name in wanted:
        if name not in stored:
            raise UsageError(f"The snapshot has no {word} {name!r}; it has {', '.join(stored) or 'none'}.")
        if name not in live:
            raise UsageError(f"There is no place given for the {word} {name!r}.")
    return list(wanted)


def _left_out(
    manifest: Manifest, targets: SourceSet, databases: list[str], files: list[str]
) -> tuple[str, ...]:
    left = [f"database {entry.name}" for entry in manifest.databases if entry.name not in databases]
    roots = [root.name for root in manifest.files if not is_stream_folder(root.name, targets)]
    left += [f"folder {name}" for name in roots if name not in files]
    return tuple(left)


def is_stream_folder(name: str, targets: SourceSet) -> bool:
    """Say whether a folder holds streams of the app: no restore in place ever writes there."""
    return name == STREAMS_ROOT and name not in [source.name for source in targets.files]


class _Planning:
    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        targets: SourceSet,
        state: StateFolder,
        reporter: Reporter,
    ) -> None:
        self._repository = repository
        self._manifest = manifest
        self._targets = targets
        self._state = state
        self._reporter = reporter

    def database(self, name: str) -> DatabasePart:
        entry = self._manifest.database(name)
        if entry is None:
            raise UsageError(f"The snapshot has no database {name!r}.")
        refuse_cluster(entry)
        server = next((source for source in self._targets.postgres if source.name == name), None)
        if server is not None:
            self._reporter.advance(items=1)
            return plan_postgres(entry, server)
        target = next(source for source in self._targets.databases if source.name == name)
        if entry.tree is not None:
            raise UsageError(
                f"The database {name!r} of the snapshot is {entry.engine}, and its place is a SQLite file. "
                "Give a server with --postgres, or restore it with --to. Nothing was touched."
            )
        found, tables = self._compare(entry, target)
        self._reporter.advance(items=1)
        return DatabasePart(name, str(target.path.resolve()), entry.content.size, found, tables)

    def tree(self, name: str) -> FilesPart:
        root = self._manifest.files_root(name)
        target = next(source for source in self._targets.files if source.name == name)
        if root is None:
            raise UsageError(f"The snapshot has no folder {name!r}.")
        counts = _Counts()
        found = target.root.is_dir()
        if found:
            self._count(root, target, counts)
        else:
            counts.changes["added"] = root.entry_count
        self._reporter.advance(items=1)
        return FilesPart(
            name=name,
            root=str(target.root.resolve()),
            size=root.size,
            file_count=root.file_count,
            live_found=found,
            added=counts.changes["added"],
            changed=counts.changes["changed"],
            removed=counts.changes["removed"],
            unchanged=counts.changes["unchanged"],
            examples=tuple(counts.examples),
        )

    def _compare(self, entry: DatabaseEntry, target: SqliteSource) -> tuple[bool, tuple[TableEffect, ...]]:
        then = {table.name: table for table in entry.tables}
        now = {}
        found = True
        try:
            with TemporaryDirectory(prefix="plan-", dir=self._state.scratch) as folder:
                copy = target.capture(Path(folder), known=known_checksums(entry))
            now = {table.name: table for table in copy.tables}
        except SourceError:
            found = False  # missing or damaged: the very case restores are made for
        return found, tuple(
            TableEffect(
                table,
                now[table].rows if table in now else -1,
                then[table].rows if table in then else -1,
                table in now and table in then and now[table].checksum == then[table].checksum,
            )
            for table in sorted(now.keys() | then.keys())
        )

    def _count(self, root: FilesRoot, target: FileSource, counts: _Counts) -> None:
        stored = iter(self._repository.entries(root))
        live = (item for item in target.walk() if isinstance(item, FoundEntry))
        old, now = next(stored, None), next(live, None)
        while old is not None or now is not None:
            if now is None or (old is not None and sort_key(old.path) < sort_key(now.path)):
                counts.note("added", old.path if old is not None else b"")
                old = next(stored, None)
            elif old is None or sort_key(now.path) < sort_key(old.path):
                counts.note("removed", now.path)
                now = next(live, None)
            else:
                same = (old.kind, old.mode, old.link_target) == (now.kind, now.mode, now.link_target) and (
                    old.kind != "file" or (old.size, old.mtime_ns) == (now.size, now.mtime_ns)
                )
                counts.note("unchanged" if same else "changed", now.path)
                old, now = next(stored, None), next(live, None)


class _Counts:
    """How many entries would come, go, change or stay, with examples."""

    def __init__(self) -> None:
        self.changes: Counter[str] = Counter()
        self.examples: list[str] = []

    def note(self, change: str, path: bytes) -> None:
        self.changes[change] += 1
        if change != "unchanged" and len(self.examples) < _EXAMPLES:
            self.examples.append(f"{change}: {show_path(path)}")
