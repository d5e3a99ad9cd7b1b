"""Verify one snapshot: read every byte of it and compare with its manifest."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError, Damaged, SnapshotMissing, SourceError
from backup_admin.core.paths import show_path
from backup_admin.operations.captured import check_content, write_content
from backup_admin.operations.databases import compare_database
from backup_admin.operations.results import VerifyReport
from backup_admin.operations.workers import InOrder
from backup_admin.repository.entries import iterate_entries
from backup_admin.repository.types import ChunkKind, DatabaseEntry, FileEntry, FilesRoot, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.core.state import StateFolder
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository

_THREADS = 2
_BATCH = 64
_MAX_PROBLEMS = 1000


def verify_snapshot(
    repository: Repository, snapshot_id: SnapshotId, *, state: StateFolder, reporter: Reporter
) -> VerifyReport:
    """Read a snapshot whole: the digest of each file, the digests of each table.

    Databases are put together in the state folder and checked by SQLite. Raises
    `Damaged` when the manifest itself cannot be read, `SnapshotMissing` when the
    snapshot was forgotten meanwhile.
    """
    manifest = repository.manifest(snapshot_id)
    run = _Verification(repository.reader(), manifest, reporter)
    reporter.stage(
        "verify",
        total_bytes=manifest.snapshot.file_bytes + manifest.snapshot.database_bytes,
        total_items=manifest.snapshot.file_count + manifest.snapshot.database_count,
    )
    with TemporaryDirectory(prefix="verify-", dir=state.scratch) as folder:
        for entry in manifest.databases:
            run.verify_database(entry, Path(folder))
    for root in manifest.files:
        run.verify_tree(root)
    run.verify_settings()
    if run.problems:
        repository.refresh()
        if snapshot_id not in repository.history.manifests:
            raise SnapshotMissing(
                f"Snapshot {snapshot_id} was forgotten while it was verified, so what it lacks says nothing."
            )
    return VerifyReport(snapshot_id, run.files, run.databases, run.bytes_read, tuple(run.problems))


class _Verification:
    def __init__(self, reader: ChunkReader, manifest: Manifest, reporter: Reporter) -> None:
        self._reader = reader
        self._manifest = manifest
        self._reporter = reporter
        self.files = 0
        self.databases = 0
        self.bytes_read = 0
        self.problems: list[str] = []

    def verify_database(self, entry: DatabaseEntry, folder: Path) -> None:
        self._reporter.check_cancelled()
        if entry.tree is not None:
            self.verify_tree(entry.tree, is_database=True)
            self.databases += 1
            return
        path = folder / "database"
        try:
            write_content(self._reader, entry.content, path)
            lines = compare_database(entry, path)
            self.problems += [f"{line.topic}: {line.found}" for line in lines if not line.ok]
        except (Damaged, SourceError) as error:
            self.problems.append(f"Database {entry.name}: {error}")
        finally:
            path.unlink(missing_ok=True)
        self.databases += 1
        self.bytes_read += entry.content.size
        self._reporter.advance(size=entry.content.size, items=1)

    def verify_tree(self, root: FilesRoot, *, is_database: bool = False) -> None:
        """Read every file of a tree, or of a database that consists of some."""
        files = self.files
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
            order: InOrder[list[str]] = InOrder(self._note, limit=2 * _THREADS)
            try:
                for batch in self._batches(root):
                    order.add(pool.submit(self._verify_batch, root.name, batch))
                order.finish()
            except Damaged as error:
                order.finish()
                self._note([f"The list of files of {root.name}: {error}"])
        if is_database:
            self.files = files

    def verify_settings(self) -> None:
        settings = self._manifest.settings
        if settings is None:
            return
        try:
            self._reader.read(ChunkKind.DATA, settings.content)
        except Damaged as error:
            self.problems.append(f"Settings: {error}")

    def _batches(self, root: FilesRoot) -> Iterator[list[FileEntry]]:
        batch: list[FileEntry] = []
        for entry in self._entries(root):
            if entry.content is not None:
                batch.append(entry)
                self.files += 1
                self.bytes_read += entry.size
            if len(batch) >= _BATCH:
                yield batch
                batch = []
        yield batch

    def _entries(self, root: FilesRoot) -> Iterator[FileEntry]:
        from_shards = 0
        for entry in iterate_entries(self._reader, root):
            from_shards += 1
            yield entry
        if from_shards != root.entry_count:
            raise Damaged(f"it names {from_shards} entries instead of {root.entry_count}")

    def _verify_batch(self, name: str, batch: list[FileEntry]) -> list[str]:
        problems = []
        for entry in batch:
            self._reporter.check_cancelled()
            if entry.content is None:
                continue
            try:
                check_content(self._reader, entry.content)
            except BackupAdminError as error:
                problems.append(f"{name}: {show_path(entry.path)}: {error}")
            self._reporter.advance(size=entry.size, items=1)
        return problems

    def _note(self, problems: list[str]) -> None:
        self.problems += problems[: max(0, _MAX_PROBLEMS - len(self.problems))]
