"""Whether a folder tree is still what the newest snapshot has of it; no content is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backup_admin.core.paths import show_path
from backup_admin.operations.described import path_as_text
from backup_admin.operations.known import KnownRows, Parent
from backup_admin.repository.entries import iterate_lines
from backup_admin.sources.base import EntryKind, FoundEntry, Problem, Skipped

if TYPE_CHECKING:
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.entries import Run
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import FileEntry, FilesRoot
    from backup_admin.sources.files import FileSource


def find_change(repository: Repository, source: FileSource, old: FilesRoot, reporter: Reporter) -> str:
    """Say what changed in a tree since it was captured; empty when nothing did.

    A file counts as unchanged by the rule a backup has for not reading it again. Times of
    folders do not count: what comes and goes in one is seen itself. Raises what
    `FileSource.check_root` does, and `Damaged`.
    """
    root = source.check_root()
    if (path_as_text(source.root), source.exclude) != (old.path, old.excluded):
        return "it is another folder, or leaves out other things."
    if root.mode != old.mode:
        return "its rights changed."
    return _Look(repository, source, old, reporter).find_change()


class _Look:
    def __init__(
        self, repository: Repository, source: FileSource, old: FilesRoot, reporter: Reporter
    ) -> None:
        parent = Parent(iterate_lines(repository.reader(), old), old.scan_started_ns)
        self._known = KnownRows(parent, self._keep)
        self._source = source
        self._old = old
        self._reporter = reporter
        self._equal = 0

    def find_change(self) -> str:
        try:
            return self._find_change()
        finally:
            del self._known  # it calls back: in a circle it would hold open files

    def _find_change(self) -> str:
        for found in self._source.walk(self._known.holds):
            self._reporter.check_cancelled()
            if isinstance(found, Skipped):
                continue
            if isinstance(found, Problem):
                return f"{show_path(found.path)}: {found.message}"
            change = self._compare(found)
            if change:
                return f"{show_path(found.path)} {change}"
        self._known.flush()
        if self._known.damage:
            return "the list of the newest snapshot cannot be read."
        if self._equal != self._old.entry_count:
            return "something was removed from it."
        return ""

    def _compare(self, found: FoundEntry) -> str:
        old = self._known.find(found.path)
        if old is None:
            return "is new."
        if found.is_database and not found.is_quiet:
            return "is a database in use that nobody declared."
        if not self._is_same(old, found):
            return "changed, or was written to just before the newest snapshot was made."
        self._known.skip()
        self._equal += 1
        return ""

    def _is_same(self, old: FileEntry, found: FoundEntry) -> bool:
        if (old.kind, old.mode, old.link_target) != (found.kind.value, found.mode, found.link_target):
            return False
        if found.kind is not EntryKind.FILE:
            return True
        return self._known.vouches_for(old, found) and old.link_group == found.link_group

    def _keep(self, run: Run) -> None:
        self._reporter.check_cancelled()
        self._equal += len(run.lines)
