"""Restore a snapshot, or parts of it, into a folder of its own."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders, replace_file
from backup_admin.core.errors import BackupAdminError, Damaged, RestoreRefused
from backup_admin.operations.captured import write_content
from backup_admin.operations.databases import compare_database
from backup_admin.operations.export import export_manifest, saved_settings
from backup_admin.operations.patterns import Patterns
from backup_admin.operations.results import ExtractPlan, ExtractReport
from backup_admin.operations.stage_tree import write_tree
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FilesRoot, Manifest

_MARGIN = 1.05


def plan_extract(repository: Repository, snapshot_id: SnapshotId, only: Sequence[str] = ()) -> ExtractPlan:
    """Say what `extract` would write; reads only."""
    manifest = repository.manifest(snapshot_id)
    patterns = Patterns(only)
    databases = [entry for entry in manifest.databases if patterns.match_database(entry.name)]
    files = size = 0
    for root in manifest.files:
        for entry in repository.entries(root):
            if entry.kind == "file" and patterns.match_file(root.name, entry.path):
                files += 1
                size += entry.size
    settings = manifest.settings is not None and patterns.match_settings()
    _need_matches(patterns)
    size += sum(entry.content.size for entry in databases)
    return ExtractPlan(snapshot_id, files, len(databases), settings, size)


def extract(
    repository: Repository,
    snapshot_id: SnapshotId,
    target: Path,
    *,
    only: Sequence[str] = (),
    allow_non_empty: bool = False,
    reporter: Reporter,
) -> ExtractReport:
    """Write files, databases, settings and the manifest below the target folder.

    Makes `files/NAME/…`, `databases/NAME.sqlite`, `settings.json` and
    `manifest.json`. Every byte is checked against the manifest, every database by
    SQLite. Raises `RestoreRefused` before anything is written when the target is
    not empty or too small.
    """
    plan = plan_extract(repository, snapshot_id, only)
    _prepare(target, plan, allow_non_empty=allow_non_empty)
    reporter.stage("restore", total_bytes=plan.size, total_items=plan.files + plan.databases)
    run = _Extraction(repository, repository.manifest(snapshot_id), target, Patterns(only), reporter)
    run.write_databases()
    run.write_trees()
    run.write_settings()
    run.write_manifest()
    return ExtractReport(
        snapshot_id, run.files, run.databases, run.size, tuple(run.problems), tuple(run.notices)
    )


class _Extraction:
    def __init__(
        self, repository: Repository, manifest: Manifest, target: Path, patterns: Patterns, reporter: Reporter
    ) -> None:
        self._repository = repository
        self._reader = repository.reader()
        self._manifest = manifest
        self._target = target
        self._patterns = patterns
        self._reporter = reporter
        self.files = self.databases = self.size = 0
        self.problems: list[str] = []
        self.notices: list[str] = []

    def write_databases(self) -> None:
        for entry in self._manifest.databases:
            self._reporter.check_cancelled()
            if self._patterns.match_database(entry.name):
                self._write_database(entry)

    def write_trees(self) -> None:
        for root in self._manifest.files:
            if not self._has_match(root):
                continue
            folder = self._target / "files" / root.name
            make_folders(folder.parent)
            writer = TreeWriter(folder)
            report = write_tree(
                self._repository.entries(root, self._reader),
                writer,
                reader=self._reader,
                wanted=partial(self._patterns.match_file, root.name),
                reporter=self._reporter,
            )
            writer.finish(root.mode, root.mtime_ns)
            self.files += report.files
            self.size += report.size
            self.problems += [f"files/{root.name}/{problem}" for problem in report.problems]

    def write_settings(self) -> None:
        if self._manifest.settings is None or not self._patterns.match_settings():
            return
        try:
            saved = saved_settings(self._reader, self._manifest)
        except Damaged as error:
            self.problems.append(f"settings: {error}")
            return
        text = json.dumps(saved, ensure_ascii=False, indent=1, sort_keys=True)
        replace_file(self._target / "settings.json", text.encode())
        if saved["secrets"]:
            self.notices.append("settings.json holds secrets in clear (mode 0600); remove it after use.")

    def write_manifest(self) -> None:
        path = self._target / "manifest.json"
        try:
            with path.open("w", encoding="utf-8") as file:
                path.chmod(0o600)
                for piece in export_manifest(self._repository, self._manifest.snapshot.id):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except Damaged as error:
            self.problems.append(f"manifest.json is not complete: {error}")

    def _write_database(self, entry: DatabaseEntry) -> None:
        folder = self._target / "databases"
        make_folders(folder)
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

    def _has_match(self, root: FilesRoot) -> bool:
        entries = self._repository.entries(root, self._reader)
        return root.entry_count == 0 or any(
            self._patterns.match_file(root.name, entry.path) for entry in entries
        )


def _prepare(target: Path, plan: ExtractPlan, *, allow_non_empty: bool) -> None:
    if os.path.lexists(target) and not target.is_dir():
        raise RestoreRefused(f"{target} is no folder. Nothing was written.")
    if target.is_dir() and any(target.iterdir()) and not allow_non_empty:
        raise RestoreRefused(
            f"{target} is not empty. Nothing was written; give an empty folder, or allow it with "
            "--allow-non-empty."
        )
    try:
        make_folders(target)
        free = os.statvfs(target)
    except OSError as error:
        raise RestoreRefused(f"{target} cannot be made: {error.strerror}. Nothing was written.") from error
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
