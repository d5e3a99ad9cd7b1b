"""Restore a snapshot, or parts of it, into a folder of its own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders, replace_file
from backup_admin.core.errors import BackupAdminError, Damaged, RestoreRefused
from backup_admin.operations.captured import write_content
from backup_admin.operations.databases import compare_database
from backup_admin.operations.export import Exported, ManifestFile, export_head, saved_settings
from backup_admin.operations.patterns import Patterns
from backup_admin.operations.results import ExtractPlan, ExtractReport
from backup_admin.operations.stage_tree import with_folders, write_tree
from backup_admin.repository.lookup import branch_entries
from backup_admin.repository.shards import sound_entries
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot

_MARGIN = 1.05
_FEW_FILES = 32


@dataclass(frozen=True, slots=True)
class _Choice:
    """What of a snapshot is meant."""

    exported: Exported
    roots: tuple[FilesRoot, ...]

    @property
    def size(self) -> int:
        """All bytes that will be written."""
        databases = sum(entry.size for entry in self.exported.databases)
        return self.exported.file_bytes + databases


def plan_extract(
    repository: Repository,
    snapshot_id: SnapshotId,
    target: Path,
    *,
    only: Sequence[str] = (),
    allow_non_empty: bool = False,
) -> ExtractPlan:
    """Say what `extract` would write; reads only. Raises `RestoreRefused` for a target it would refuse."""
    choice = _choose(repository, repository.reader(), snapshot_id, Patterns(only))
    plan = _plan(snapshot_id, choice)
    _look_at(target, allow_non_empty=allow_non_empty)
    _need_room(target, plan)
    return plan


def extract(  # noqa: PLR0913 - what, where to, and how
    repository: Repository,
    snapshot_id: SnapshotId,
    target: Path,
    *,
    only: Sequence[str] = (),
    allow_non_empty: bool = False,
    reporter: Reporter,
    all_read: Callable[[], None] = lambda: None,
) -> ExtractReport:
    """Write files, databases, settings and a manifest of them below the target folder.

    Makes `files/NAME/…`, `databases/NAME.sqlite`, `settings.json` and
    `manifest.json`. Every byte is checked against the manifest, every database by
    SQLite. Calls `all_read` when nothing more is wanted of the repository. Raises
    `RestoreRefused` before anything is written when the target is not empty or too small.
    """
    reader, patterns = repository.reader(), Patterns(only)
    choice = _choose(repository, reader, snapshot_id, patterns)
    plan = _plan(snapshot_id, choice)
    _prepare(target, plan, allow_non_empty=allow_non_empty)
    reporter.stage("restore", total_bytes=plan.size, total_items=plan.files + plan.databases)
    run = _Extraction(reader, choice, target, patterns, reporter)
    run.write_databases()
    run.write_settings()
    run.write_trees(all_read)
    return ExtractReport(
        snapshot_id, run.files, run.databases, run.size, tuple(run.problems), tuple(run.notices)
    )


class _Extraction:
    def __init__(
        self, reader: ChunkReader, choice: _Choice, target: Path, patterns: Patterns, reporter: Reporter
    ) -> None:
        self._reader = reader
        self._choice = choice
        self._target = target
        self._patterns = patterns
        self._reporter = reporter
        self.files = self.databases = self.size = 0
        self.problems: list[str] = []
        self.notices: list[str] = []

    def write_databases(self) -> None:
        for entry in self._choice.exported.databases:
            self._reporter.check_cancelled()
            self._write_database(entry)

    def write_trees(self, all_read: Callable[[], None]) -> None:
        """Write all trees, and the manifest as their entries pass by."""
        with ManifestFile(self._target / "manifest.json", self._manifest_head()) as manifest:
            for left, root in enumerate(self._choice.roots, 1 - len(self._choice.roots)):
                self._write_tree(root, manifest, all_read if left == 0 else None)

    def write_settings(self) -> None:
        settings = self._choice.exported.settings
        if settings is None:
            return
        try:
            saved = saved_settings(self._reader, settings)
        except Damaged as error:
            self.problems.append(f"settings: {error}")
            return
        text = json.dumps(saved, ensure_ascii=False, indent=1, sort_keys=True)
        replace_file(self._target / "settings.json", text.encode())
        if saved["secrets"]:
            self.notices.append("settings.json holds secrets in clear (mode 0600); remove it after use.")

    def _manifest_head(self) -> str:
        try:
            return export_head(self._choice.exported, self._reader)
        except Damaged as error:
            self.problems.append(f"manifest.json is not complete: {error}")
            return export_head(replace(self._choice.exported, settings=None), self._reader)

    def _write_tree(
        self, root: FilesRoot, manifest: ManifestFile, when_read: Callable[[], None] | None
    ) -> None:
        folder = self._target / "files" / root.name
        make_folders(folder.parent)
        chosen = _chosen_entries(
            self._reader,
            root,
            self._patterns,
            lambda lost: self.problems.append(f"files/{root.name}: {lost}"),
        )
        noted = manifest.note(root.name, chosen)
        with TreeWriter(folder, few_files=self._choice.exported.file_count <= _FEW_FILES) as writer:
            report = write_tree(noted, writer, reader=self._reader, reporter=self._reporter)
            if when_read is not None:
                when_read()
            writer.finish(root.mode, root.mtime_ns)
        self.files += report.files
        self.size += report.size
        self.problems += [f"files/{root.name}/{problem}" for problem in report.problems]

    def _write_database(self, entry: DatabaseEntry) -> None:
        folder = self._target / "databases"
        make_folders(folder)
        if entry.tree is not None:
            self._write_parts(entry.tree, folder / entry.name)
            return
        path = folder / f"{entry.name}.sqlite"
        try:
            path.unlink(missing_ok=True)
            write_content(self._reader, entry.content, path)
            lines = compare_database(entry, path, thorough=True)
            self.problems += [f"{line.topic}: {line.found}" for line in lines if not line.ok]
        except BackupAdminError as error:
            self.problems.append(f"Database {entry.name}: {error}")
        self.databases += 1
        self.size += entry.content.size
        self._reporter.advance(size=entry.content.size, items=1)

    def _write_parts(self, tree: FilesRoot, folder: Path) -> None:
        """Write the files a database consists of; `load` makes a database of them."""
        what = f"databases/{tree.name}"
        chosen = sound_entries(self._reader, tree, lambda lost: self.problems.append(f"{what}: {lost}"))
        with TreeWriter(folder, few_files=tree.file_count <= _FEW_FILES) as writer:
            report = write_tree(chosen, writer, reader=self._reader, reporter=self._reporter)
            writer.finish(tree.mode, tree.mtime_ns)
        self.databases += 1
        self.size += report.size
        self.problems += [f"{what}/{problem}" for problem in report.problems]


def _choose(
    repository: Repository, reader: ChunkReader, snapshot_id: SnapshotId, patterns: Patterns
) -> _Choice:
    """Find what the patterns mean; raise `RestoreRefused` for one that means nothing."""
    manifest = repository.manifest(snapshot_id)
    if not patterns:
        return _Choice(Exported.whole(manifest), manifest.files)
    databases = tuple(entry for entry in manifest.databases if patterns.match_database(entry.name))
    settings = manifest.settings if manifest.settings is not None and patterns.match_settings() else None
    roots: dict[str, FilesRoot] = {}
    files = size = 0
    for root in manifest.files:
        for entry in _chosen_entries(reader, root, patterns, _told_when_written):
            roots[root.name] = root
            files += entry.kind == "file"
            size += entry.size if entry.kind == "file" else 0
    _need_matches(patterns)
    return _Choice(Exported(manifest, databases, settings, files, size), tuple(roots.values()))


def _plan(snapshot_id: SnapshotId, choice: _Choice) -> ExtractPlan:
    exported = choice.exported
    return ExtractPlan(
        snapshot_id,
        exported.file_count,
        len(exported.databases),
        exported.settings is not None,
        choice.size,
    )


def _chosen_entries(
    reader: ChunkReader, root: FilesRoot, patterns: Patterns, note_damage: Callable[[str], None]
) -> Iterator[FileEntry]:
    """Yield what is meant, each after the folders it lies in; reads no more of the tree than that needs."""
    if not patterns:
        return sound_entries(reader, root, note_damage)
    branches = patterns.branches(root.name)
    if b"" in branches:
        entries = sound_entries(reader, root, note_damage)
    else:
        entries = branch_entries(reader, root, branches)
    return with_folders(entries, partial(patterns.match_file, root.name))


def _told_when_written(_lost: str) -> None:
    """Say nothing yet: the same damage is met, and told, when the tree is written."""


def _prepare(target: Path, plan: ExtractPlan, *, allow_non_empty: bool) -> None:
    _look_at(target, allow_non_empty=allow_non_empty)
    try:
        make_folders(target)
    except OSError as error:
        raise RestoreRefused(f"{target} cannot be made: {error.strerror}. Nothing was written.") from error
    _need_room(target, plan)


def _look_at(target: Path, *, allow_non_empty: bool) -> None:
    if os.path.lexists(target) and not target.is_dir():
        raise RestoreRefused(f"{target} is no folder. Nothing was written.")
    if target.is_dir() and any(target.iterdir()) and not allow_non_empty:
        raise RestoreRefused(
            f"{target} is not empty. Nothing was written; give an empty folder, or allow it with "
            "--allow-non-empty."
        )


def _need_room(target: Path, plan: ExtractPlan) -> None:
    """Refuse what does not fit where the target is, or will be made."""
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    try:
        free = os.statvfs(there)
    except OSError as error:
        raise RestoreRefused(f"{there} cannot be read: {error.strerror}. Nothing was written.") from error
    room = free.f_bavail * free.f_frsize
    if room < plan.size * _MARGIN:
        raise RestoreRefused(
            f"{target} has {room / 1e6:.0f} MB free and {plan.size * _MARGIN / 1e6:.0f} MB are needed. "
            "Nothing was written."
        )


def _need_matches(patterns: Patterns) -> None:
    unused = patterns.unused()
    if unused:
        raise RestoreRefused(f"Nothing in the snapshot matches {unused[0]!r}. Nothing was written.")
