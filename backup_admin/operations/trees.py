"""Capturing one folder tree: what is new is read, the rest is known from the parent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, SourceError
from backup_admin.core.paths import show_path, sort_key
from backup_admin.operations.workers import ContentWorkers, InOrder
from backup_admin.repository.content import ContentWriter
from backup_admin.repository.pages import PageWriter
from backup_admin.repository.types import ChunkRef, Content, FileEntry
from backup_admin.sources.base import EntryKind, FoundEntry, Problem, Replaced, Skipped, SkipReason

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.entries import ShardWriter
    from backup_admin.sources.files import FileSource

_BATCH_BYTES = 8 << 20
_BATCH_ITEMS = 512
_SETTLE_NS = 2_000_000_000
_ATTEMPTS = 3
_SHOWN = 20
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))

Pages = Callable[[ContentWriter], PageWriter]


@dataclass(frozen=True, slots=True)
class Parent:
    """The same tree in the snapshot before, as a hint for what need not be read."""

    entries: Iterator[FileEntry]
    scan_started_ns: int


@dataclass(frozen=True, slots=True)
class Tools:
    """What every tree of a run is captured with."""

    workers: ContentWorkers
    pages: Pages
    scratch: Path
    reporter: Reporter


@dataclass(slots=True)
class TreeNotes:
    """What a person should know about a captured tree."""

    warnings: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    skipped: dict[SkipReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Read:
    """An entry that was read, or the reason why it could not be."""

    entry: FileEntry | None
    warning: str = ""
    notice: str = ""


_Item = FileEntry | FoundEntry


class TreeCapture:
    """Captures one tree into shards. Use once."""

    def __init__(
        self,
        source: FileSource,
        shards: ShardWriter,
        tools: Tools,
        *,
        parent: Parent | None,
    ) -> None:
        self._source = source
        self._shards = shards
        self._workers = tools.workers
        self._pages = tools.pages
        self._scratch = tools.scratch
        self._reporter = tools.reporter
        self._parent = _ParentEntries(parent)
        self._batch: list[_Item] = []
        self._batch_bytes = 0
        self._order: InOrder[list[_Read]] = InOrder(self._emit, limit=2 * tools.workers.threads)
        self.notes = TreeNotes()

    def run(self) -> TreeNotes:
        """Walk the tree, store what is new, and return what is worth knowing."""
        for found in self._source.walk():
            self._reporter.check_cancelled()
            if isinstance(found, Skipped):
                self._skip(found)
            elif isinstance(found, Problem):
                self._warn(f"{show_path(found.path)}: {found.message}")
            else:
                self._take(found)
        self._close_batch()
        self._order.finish()
        if self._parent.damage:
            self.notes.notices.append(self._parent.damage)
        return self.notes

    def _take(self, found: FoundEntry) -> None:
        old = self._parent.find(found.path)
        if found.kind is not EntryKind.FILE:
            self._add(_describe(found, None), 0)
        elif old is not None and not found.is_database and self._parent.vouches_for(old, found):
            self._add(_describe(found, old.content), 0)
        else:
            if found.is_database and old is not None and old.content and old.content.pages:
                self._parent.pages[found.path] = old.content.pages
            self._add(found, found.size)

    def _add(self, item: _Item, size: int) -> None:
        self._batch.append(item)
        self._batch_bytes += size
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_ITEMS:
            self._close_batch()

    def _close_batch(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch:
            self._order.add(self._workers.submit(lambda writer: self._read_all(writer, batch)))

    def _read_all(self, writer: ContentWriter, batch: list[_Item]) -> list[_Read]:
        results = []
        for item in batch:
            if isinstance(item, FileEntry):
                results.append(_Read(item))
                continue
            self._reporter.check_cancelled()
            results.append(self._read_one(writer, item))
            self._reporter.advance(size=item.size)
        return results

    def _read_one(self, writer: ContentWriter, found: FoundEntry) -> _Read:
        name = show_path(found.path)
        try:
            if found.is_database:
                return self._read_database(writer, found)
            return self._read_file(writer, found)
        except (OSError, SourceError) as error:
            if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
                return _Read(None, notice=f"{name} vanished while the backup ran.")
            reason = f"{error.strerror}." if isinstance(error, OSError) else str(error)
            return _Read(None, warning=f"{name}: {reason}")

    def _read_file(self, writer: ContentWriter, found: FoundEntry) -> _Read:
        content: Content | None = None
        for _ in range(_ATTEMPTS):
            try:
                with self._source.open(found) as file:
                    content = writer.write(file.readinto)
                    if file.unchanged() and content.size == found.size:
                        return _Read(_describe(found, content))
            except Replaced:
                content = None
            found = self._source.look_again(found)
        entry = None if content is None else replace(_describe(found, content), size=content.size)
        return _Read(entry, warning=f"{show_path(found.path)} kept changing while it was read.")

    def _read_database(self, writer: ContentWriter, found: FoundEntry) -> _Read:
        copy = self._source.capture_database(found, self._scratch)
        try:
            with copy.open("rb", buffering=0) as file:
                head = file.read(18)
                file.seek(0)
                content = self._write_database(writer, found, _page_size(head), file)
        finally:
            copy.unlink(missing_ok=True)
        name = show_path(found.path)
        return _Read(
            replace(_describe(found, content), size=content.size),
            notice=f"{name} is an SQLite database nobody declared; it was copied safely through SQLite.",
        )

    def _write_database(
        self, writer: ContentWriter, found: FoundEntry, page_size: int, file: FileIO
    ) -> Content:
        def read_into(view: memoryview) -> int:
            return file.readinto(view) or 0

        if not page_size:
            return writer.write(read_into)
        return self._pages(writer).write(read_into, page_size, self._parent.pages.get(found.path))

    def _emit(self, results: list[_Read]) -> None:
        for result in results:
            if result.warning:
                self._warn(result.warning)
            if result.notice:
                self.notes.notices.append(f"{self._source.name}: {result.notice}")
            if result.entry is not None:
                self._shards.add(result.entry)
        self._reporter.advance(items=len(results))

    def _skip(self, skipped: Skipped) -> None:
        self.notes.skipped[skipped.reason] = self.notes.skipped.get(skipped.reason, 0) + 1
        if skipped.reason is SkipReason.SPECIAL:
            self.notes.notices.append(
                f"{self._source.name}: {show_path(skipped.path)} is no file or folder and was left out."
            )

    def _warn(self, message: str) -> None:
        text = f"{self._source.name}: {message}"
        self.notes.warnings.append(text)
        self._reporter.warn(text)


class _ParentEntries:
    """Walks the parent's entries beside the live walk."""

    def __init__(self, parent: Parent | None) -> None:
        self._entries: Iterator[FileEntry] = iter(()) if parent is None else parent.entries
        self._trusted_before_ns = 0 if parent is None else parent.scan_started_ns - _SETTLE_NS
        self._current: FileEntry | None = None
        self._key = b""
        self._done = parent is None
        self.pages: dict[bytes, ChunkRef] = {}
        self.damage = ""

    def find(self, path: bytes) -> FileEntry | None:
        """Return the parent's entry of this path; paths must come in order."""
        key = sort_key(path)
        while not self._done and (self._current is None or self._key < key):
            self._next()
        return self._current if self._current is not None and self._key == key else None

    def vouches_for(self, old: FileEntry, found: FoundEntry) -> bool:
        """Say whether the parent's content must still be that of the file."""
        return (
            old.kind == "file"
            and old.size == found.size
            and old.mtime_ns == found.mtime_ns
            and old.ctime_ns == found.ctime_ns
            and old.inode == found.inode
            and max(old.mtime_ns, old.ctime_ns) < self._trusted_before_ns
        )

    def _next(self) -> None:
        try:
            entry = next(self._entries, None)
        except Damaged as error:
            entry = None
            self.damage = (
                f"The list of the backup before could not be read, so everything was read anew: {error}"
            )
        self._current = entry
        self._done = entry is None
        if entry is not None:
            self._key = sort_key(entry.path)


def _page_size(head: bytes) -> int:
    """Return the page size in a database's header, or 0 for one that no database has."""
    size = int.from_bytes(head[16:18], "big")
    size = 65_536 if size == 1 else size
    return size if size in _PAGE_SIZES else 0


def _describe(found: FoundEntry, content: Content | None) -> FileEntry:
    return FileEntry(
        found.path,
        found.kind.value,
        found.size,
        found.mode,
        found.mtime_ns,
        found.ctime_ns,
        found.inode,
        content,
        found.link_target,
        found.link_group,
    )
