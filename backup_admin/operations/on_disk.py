"""Comparing a folder tree on disk with the rows of a manifest."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from backup_admin.core.paths import show_path, sort_key
from backup_admin.sources.base import FoundEntry, Problem, Skipped, SkipReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.types import FileEntry
    from backup_admin.sources.files import FileSource

_PRIVILEGES = 0o7000
_WINDOW = 1 << 20
_MAX_PROBLEMS = 100
_PINNED = (SkipReason.DECLARED_DATABASE, SkipReason.SIDECAR, SkipReason.PINNED)


def compare_tree(
    source: FileSource, entries: Iterable[FileEntry], *, content: bool, reporter: Reporter
) -> tuple[int, list[str]]:
    """Compare kind, size, mode, time and link target; with `content` every byte too.

    Returns the number of files compared and what differs. An entry that should
    not be there differs as well; one that the source leaves out by its rules is
    not compared, and the folders around it may be there. Bits that a restore takes
    away (setuid and its like) are not compared, nor the time of a folder that holds
    something left alone: a database in use makes and removes its log beside itself.
    """
    walk = _Walk(source)
    problems: list[str] = []
    times: dict[bytes, str] = {}
    files = 0
    for entry in entries:
        reporter.check_cancelled()
        walk.pass_over(entry.path)
        found = walk.take(entry.path)
        if isinstance(found, Skipped):
            continue
        if found is None:
            problems.append(f"{show_path(entry.path)} is missing")
        else:
            problems += _differences(source.root, entry, found, content=content)
            if entry.kind == "folder" and _other_time(entry, found):
                times[entry.path] = f"{show_path(entry.path)} has another time"
        if entry.kind == "file":
            files += 1
            reporter.advance(size=entry.size if content else 0, items=1)
        if len(problems) > _MAX_PROBLEMS:
            return files, problems
    walk.pass_over_rest()
    problems += walk.unexpected()
    return files, problems + [message for path, message in times.items() if path not in walk.holders]


class _Walk:
    """The live side of a comparison, one entry ahead."""

    def __init__(self, source: FileSource) -> None:
        self.holders: set[bytes] = set()
        self.extra: list[FoundEntry | Problem] = []
        self._above_left_out: set[bytes] = set()
        self._items = self._relevant(source)
        self._next = next(self._items, None)
        self._skipped: Skipped | None = None

    def _relevant(self, source: FileSource) -> Iterator[FoundEntry | Problem | Skipped]:
        for item in source.walk():
            if isinstance(item, Skipped) and item.reason in _PINNED:
                self.holders.add(item.path.rpartition(b"/")[0])
            if isinstance(item, Skipped) and item.reason in (SkipReason.EXCLUDED, SkipReason.SPECIAL):
                self._above_left_out.update(_folders_above(item.path))
            if not isinstance(item, Skipped) or item.reason is SkipReason.EXCLUDED:
                yield item

    def pass_over(self, path: bytes) -> None:
        """Go to a path; note the entries that lie before it."""
        while self._next is not None and sort_key(self._next.path) < sort_key(path):
            if isinstance(self._next, Skipped):
                self._skipped = self._next
            else:
                self.extra.append(self._next)
            self._next = next(self._items, None)

    def take(self, path: bytes) -> FoundEntry | Problem | Skipped | None:
        """Return what is at a path, or the rule by which it is not looked at."""
        if self._skipped is not None and path.startswith(self._skipped.path + b"/"):
            return self._skipped
        if self._next is None or self._next.path != path:
            return None
        found = self._next
        self._next = next(self._items, None)
        if isinstance(found, Skipped):
            self._skipped = found
        return found

    def pass_over_rest(self) -> None:
        """Note the entries that are left."""
        left = [] if self._next is None else [self._next, *self._items]
        self.extra += [item for item in left if not isinstance(item, Skipped)]

    def unexpected(self) -> list[str]:
        """Return a sentence for each entry noted, but for folders around what is left out."""
        return [
            f"{show_path(item.path)} should not be there"
            for item in self.extra
            if item.path not in self._above_left_out
        ]


def _folders_above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _differences(root: Path, entry: FileEntry, found: FoundEntry | Problem, *, content: bool) -> list[str]:
    name = show_path(entry.path)
    if isinstance(found, Problem):
        return [f"{name}: {found.message}"]
    if found.kind.value != entry.kind:
        return [f"{name} is a {found.kind.value}, not a {entry.kind}"]
    if entry.kind == "symlink":
        return [] if found.link_target == entry.link_target else [f"{name} points elsewhere"]
    wrong = []
    if found.mode != entry.mode & ~_PRIVILEGES:
        wrong.append(f"{name} has mode {found.mode:04o}, not {entry.mode:04o}")
    if entry.kind != "folder" and _other_time(entry, found):
        wrong.append(f"{name} has another time")
    if entry.kind == "file" and not _same_bytes(root, entry, found, content=content):
        wrong.append(f"{name} has other bytes ({found.size} of {entry.size})")
    return wrong


def _other_time(entry: FileEntry, found: FoundEntry | Problem) -> bool:
    return isinstance(found, FoundEntry) and found.mtime_ns != entry.mtime_ns


def _same_bytes(root: Path, entry: FileEntry, found: FoundEntry, *, content: bool) -> bool:
    if found.size != entry.size or entry.content is None:
        return False
    return not content or _sha256(root, entry.path) == entry.content.sha256


def _sha256(root: Path, path: bytes) -> str:
    digest = hashlib.sha256()
    view = memoryview(bytearray(_WINDOW))
    handle = os.open(os.fsencode(root) + b"/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while count := os.readv(handle, [view]):
            digest.update(view[:count])
    finally:
        os.close(handle)
    return digest.hexdigest()
