"""Capturing one folder tree: what is new is read, the rest is known from the parent."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from backup_admin.core.errors import Busy, ProgramFailed, SourceError
from backup_admin.core.paths import show_path
from backup_admin.operations.known import KnownRows, Parent
from backup_admin.operations.workers import ContentWorkers, InOrder
from backup_admin.repository.content_writer import ContentWriter
from backup_admin.repository.entries import Run, encode_entry
from backup_admin.repository.pages import PageWriter
from backup_admin.repository.types import ChunkRef, Content, FileEntry
from backup_admin.sources.base import EntryKind, FileStamp, FoundEntry, Problem, Replaced, Skipped, SkipReason
from backup_admin.sources.files import KeptFolder

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.content import ReadInto
    from backup_admin.repository.entries import ShardWriter
    from backup_admin.sources.files import FileSource

_BATCH_BYTES = 8 << 20
_BATCH_ITEMS = 512
# So much may wait for one that takes long, like a database. Rows weigh more than bytes
# that are read: they stay in memory.
_BATCHES_PER_THREAD = 8
_ROW_WEIGHT = 8
_ATTEMPTS = 3
_PAGE_SIZES = frozenset(1 << power for power in range(9, 17))

Pages = Callable[[ContentWriter], PageWriter]


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
class _ToRead:
    """A file to read; `pages` is its page map in the snapshot before."""

    found: FoundEntry
    pages: ChunkRef | None


@dataclass(frozen=True, slots=True)
class _Read:
    """An entry that was read, or the reason why it could not be."""

    entry: FileEntry | None
    warning: str = ""
    notice: str = ""


_Item = Run | FileEntry | _ToRead
_Result = Run | FileEntry | _Read


@dataclass(frozen=True, slots=True)
class _Batch:
    """Items in order for one worker; `size` and `reads` count the bytes and files it has to read."""

    items: list[_Item]
    size: int
    reads: int


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
        self._known = KnownRows(parent, self._keep)
        self._batch: list[_Item] = []
        self._batch_bytes = 0
        self._reads = 0
        self._held: list[_Batch] = []
        self._reading = False
        self._limit = _BATCHES_PER_THREAD * tools.workers.threads
        self._order: InOrder[list[_Result]] = InOrder(self._emit, limit=self._limit)
        self.notes = TreeNotes()

    def run(self) -> TreeNotes:
        """Walk the tree, store what is new, and return what is worth knowing. To be called once."""
        try:
            self._capture()
        finally:
            # Both call back: in a circle they would hold the index and its open files.
            del self._known, self._order
        return self.notes

    def _capture(self) -> None:
        for found in self._source.walk(self._known.holds):
            self._reporter.check_cancelled()
            if isinstance(found, Skipped):
                self._skip(found)
            elif isinstance(found, Problem):
                self._warn(f"{show_path(found.path)}: {found.message}")
            else:
                self._take(found)
        self._known.flush()
        self._close_batch()
        self._hand_out()
        self._order.finish()
        if self._known.damage:
            self.notes.notices.append(self._known.damage)

    def _take(self, found: FoundEntry) -> None:
        old = self._known.find(found.path)
        item: _Item
        if found.kind is not EntryKind.FILE:
            item = _describe(found, None)
        elif old is not None and self._still_holds(old, found):
            item = _describe(found, old.content)
        else:
            item = _ToRead(found, old.content.pages if old is not None and old.content else None)
        if old is not None:
            if isinstance(item, FileEntry) and self._known.keep_if(old, encode_entry(item)):
                return
            self._known.skip()
        self._known.flush()
        self._add(item, found.size if isinstance(item, _ToRead) else 0)

    def _still_holds(self, old: FileEntry, found: FoundEntry) -> bool:
        if found.is_database:
            if not found.is_quiet or not self._known.vouches_for(old, found):
                return False
            self._notice(_undeclared(found.path, "it did not change"))
            return True
        return self._known.vouches_for(old, found)

    def _keep(self, run: Run) -> None:
        self._reporter.check_cancelled()
        self._add(run, _ROW_WEIGHT * sum(map(len, run.lines)))

    def _add(self, item: _Item, size: int) -> None:
        self._batch.append(item)
        self._batch_bytes += size
        self._reads += isinstance(item, _ToRead)
        if self._batch_bytes >= _BATCH_BYTES or len(self._batch) >= _BATCH_ITEMS:
            self._close_batch()

    def _close_batch(self) -> None:
        batch, size, reads = self._batch, self._batch_bytes, self._reads
        self._batch, self._batch_bytes, self._reads = [], 0, 0
        if not batch:
            return
        if reads or self._held or not self._order.is_idle:
            self._held.append(_Batch(batch, size, reads))
            if self._reading or len(self._held) >= self._limit:
                self._hand_out()
        else:
            self._emit([item for item in batch if not isinstance(item, _ToRead)])

    def _hand_out(self) -> None:
        """Let the workers read what was held back.

        The first batches wait for each other: a walk beside busy workers stands still at the
        interpreter's lock after each look at a file, and takes a tenth more processor time.
        """
        self._reading = True
        for batch in self._held:
            work = partial(self._read_all, batch.items)
            self._order.add(self._workers.submit(work, size=batch.size, files=batch.reads))
        self._held.clear()

    def _read_all(self, batch: list[_Item], writer: ContentWriter) -> list[_Result]:
        results: list[_Result] = []
        with KeptFolder() as kept:
            for item in batch:
                if not isinstance(item, _ToRead):
                    results.append(item)
                    continue
                self._reporter.check_cancelled()
                results.append(self._read_one(writer, item, kept))
                self._reporter.advance(size=item.found.size)
        return results

    def _read_one(self, writer: ContentWriter, item: _ToRead, kept: KeptFolder) -> _Read:
        found = item.found
        try:
            if found.is_database:
                return self._read_database(writer, found, item.pages)
            return self._read_file(writer, found, kept)
        except (OSError, SourceError, Busy, ProgramFailed) as error:
            if isinstance(error, FileNotFoundError) or isinstance(error.__cause__, FileNotFoundError):
                return _Read(None, notice=f"{show_path(found.path)} vanished while the backup ran.")
            reason = f"{error.strerror}." if isinstance(error, OSError) else str(error)
            return _Read(None, warning=f"{show_path(found.path)}: {reason}")

    def _read_file(self, writer: ContentWriter, found: FoundEntry, kept: KeptFolder) -> _Read:
        content: Content | None = None
        for _ in range(_ATTEMPTS):
            try:
                with self._source.open(found, kept) as file:
                    content = writer.write(file.readinto)
                    if file.unchanged() and content.size == found.size:
                        return _Read(_describe(found, content))
            except Replaced:
                content = None
            kept.close()  # the folder may have been exchanged as well
            found = self._source.look_again(found)
        entry = None if content is None else _describe(found, content)._replace(size=content.size)
        return _Read(entry, warning=f"{show_path(found.path)} kept changing while it was read.")

    def _read_database(self, writer: ContentWriter, found: FoundEntry, pages: ChunkRef | None) -> _Read:
        entry = self._read_in_place(writer, found, pages) if found.is_quiet else None
        if entry is not None:
            return _Read(entry, notice=_undeclared(found.path, "it was read while nobody wrote to it"))
        copy = self._source.capture_database(found, self._scratch)
        try:
            with copy.path.open("rb", buffering=0) as file:
                head = file.read(18)
                file.seek(0)
                read_into = partial(_read_into, file)
                content = self._write_database(writer, _page_size(head), read_into, pages)
        finally:
            copy.path.unlink(missing_ok=True)
        entry = _stamp(_describe(found, content)._replace(size=content.size), copy.stamp)
        return _Read(entry, notice=_undeclared(found.path, "it was copied safely through SQLite"))

    def _read_in_place(
        self, writer: ContentWriter, found: FoundEntry, pages: ChunkRef | None
    ) -> FileEntry | None:
        """Read a database as it lies there; None when that did not succeed: a copy says why, or does."""
        with suppress(SourceError, ProgramFailed), self._source.read_database(found) as database:
            if database is None:
                return None
            content = self._write_database(writer, database.page_size, database.readinto, pages)
            stamp = database.stamp()
            if stamp is not None:
                return _stamp(_describe(found, content)._replace(size=content.size), stamp)
        return None

    def _write_database(
        self, writer: ContentWriter, page_size: int, read_into: ReadInto, pages: ChunkRef | None
    ) -> Content:
        if page_size not in _PAGE_SIZES:
            return writer.write(read_into)
        return self._pages(writer).write(read_into, page_size, pages)

    def _emit(self, results: list[_Result]) -> None:
        count = 0
        for result in results:
            if isinstance(result, Run):
                self._shards.add_run(result)
                count += len(result.lines)
                continue
            count += 1
            if isinstance(result, FileEntry):
                self._shards.add(result)
            else:
                self._emit_read(result)
        self._reporter.advance(items=count)

    def _emit_read(self, result: _Read) -> None:
        if result.warning:
            self._warn(result.warning)
        if result.notice:
            self._notice(result.notice)
        if result.entry is not None:
            self._shards.add(result.entry)

    def _skip(self, skipped: Skipped) -> None:
        self.notes.skipped[skipped.reason] = self.notes.skipped.get(skipped.reason, 0) + 1
        if skipped.reason is SkipReason.SPECIAL:
            self._notice(f"{show_path(skipped.path)} is no file or folder and was left out.")

    def _notice(self, message: str) -> None:
        self.notes.notices.append(f"{self._source.name}: {message}")

    def _warn(self, message: str) -> None:
        text = f"{self._source.name}: {message}"
        self.notes.warnings.append(text)
        self._reporter.warn(text)


def _read_into(file: FileIO, view: memoryview) -> int:
    return file.readinto(view) or 0


def _page_size(head: bytes) -> int:
    """Return the page size in a database's header, perhaps one that no database has."""
    size = int.from_bytes(head[16:18], "big")
    return 65_536 if size == 1 else size


def _undeclared(path: bytes, what: str) -> str:
    return f"{show_path(path)} is an SQLite database nobody declared; {what}."


def _stamp(entry: FileEntry, stamp: FileStamp | None) -> FileEntry:
    """Give a database the times of the file that was copied.

    Content that SQLite put together from file and journal is not the file's: no
    file has the time of change that its row gets, so it is never taken for unchanged.
    """
    if stamp is None:
        return entry._replace(ctime_ns=0)
    return entry._replace(mtime_ns=stamp.mtime_ns, ctime_ns=stamp.ctime_ns, inode=stamp.inode)


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
