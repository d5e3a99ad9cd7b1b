"""Writing a captured folder tree to disk.

Large files have a thread of their own, which works outside of the interpreter's lock. Small ones
are a matter of the interpreter and of system calls: two threads that share them wait for each
other, and took a third more processor time than one. Where they come from far away, and reading
ahead takes time as well, a process of its own writes them.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

from backup_admin.core.errors import BackupAdminError, Damaged
from backup_admin.core.large_file import LARGE_FILE_BYTES
from backup_admin.core.paths import show_path
from backup_admin.operations.captured import iterate_bytes
from backup_admin.repository.expecting import expecting_files
from backup_admin.sources.tree_aside import FilesAside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.types import FileEntry
    from backup_admin.sources.tree import TreeWriter

_LARGE_WAITING = 1024  # entries, without their bytes
# What was read ahead for both kinds waits in memory: neither may be far behind the other.
_LARGE_WAITING_AHEAD = 12
_LARGEST_ASIDE = LARGE_FILE_BYTES
_SENT_BYTES = 64 << 20


@dataclass(slots=True)
class TreeReport:
    """What was written, and which entries could not be."""

    files: int = 0
    entries: int = 0
    size: int = 0
    problems: list[str] = field(default_factory=list)


def write_tree(
    entries: Iterable[FileEntry],
    target: TreeWriter,
    *,
    reader: ChunkReader,
    reporter: Reporter,
) -> TreeReport:
    """Write the entries with content, mode and time.

    An entry that is damaged, or that the file system refuses, is a problem in
    the report; the others are still written. The caller calls `target.finish`.
    """
    run = _Writing(target, reader, reporter)
    with (
        _LargeFiles(run, target, helps=not reader.reads_ahead) as large,
        _small_files(run, target, reader) as small,
    ):
        try:
            for entry in expecting_files(reader, run.place(entries)):
                if entry.size < LARGE_FILE_BYTES or not large.take(entry):
                    small.take(entry)
                    large.follow(entry.size)
        except Damaged as error:
            run.report.problems.append(f"The list of files is damaged: {error}")
        small.finish()
        large.finish()
    run.link()
    return run.report


def with_folders(entries: Iterable[FileEntry], wanted: Callable[[bytes], bool]) -> Iterator[FileEntry]:
    """Yield wanted entries, each after the folders it lies in."""
    above: list[FileEntry] = []
    for entry in entries:
        while above and not entry.path.startswith(above[-1].path + b"/"):
            above.pop()
        if wanted(entry.path):
            yield from above
            above = []
            yield entry
        elif entry.kind == "folder":
            above.append(entry)


class _Writing:
    def __init__(self, target: TreeWriter, reader: ChunkReader, reporter: Reporter) -> None:
        self._target = target
        self._reader = reader
        self._reporter = reporter
        self._groups: dict[str, bytes] = {}
        self._links: list[tuple[FileEntry, bytes]] = []
        self._symlinks: list[FileEntry] = []
        self.report = TreeReport()

    def place(self, entries: Iterable[FileEntry]) -> Iterator[FileEntry]:
        """Make folders at once, keep links for the end, and pass files on."""
        for entry in entries:
            self.report.entries += 1
            if entry.kind == "folder":
                self._reporter.check_cancelled()
                self._try(entry, self._make_folder)
            elif entry.kind == "symlink":
                self._symlinks.append(entry)
            elif entry.link_group and entry.link_group in self._groups:
                self._links.append((entry, self._groups[entry.link_group]))
            else:
                if entry.link_group:
                    self._groups[entry.link_group] = entry.path
                self.report.files += 1
                self.report.size += entry.size
                yield entry

    def write_file(self, entry: FileEntry) -> None:
        """Write a file with its content."""
        self._reporter.check_cancelled()
        try:
            self._write_content(entry)
        except (BackupAdminError, OSError, ValueError) as error:
            self._reporter.check_cancelled()
            self.note_failure(entry.path, _reason(error))
        self._reporter.advance(size=entry.size, items=1)

    def write_aside(self, entry: FileEntry, aside: FilesAside) -> None:
        """Read the content of a file and hand it over to be written."""
        self._reporter.check_cancelled()
        try:
            content = b"".join(self._pieces(entry))
            if len(content) != entry.size:
                raise Damaged(f"it has {len(content)} bytes instead of {entry.size}")
        except (BackupAdminError, OSError, ValueError) as error:
            self._reporter.check_cancelled()
            self.note_failure(entry.path, _reason(error))
        else:
            aside.write(entry.path, entry.mode, entry.mtime_ns, content)
        self._reporter.advance(size=entry.size, items=1)

    def note_failure(self, path: bytes, reason: str) -> None:
        """Note that a file could not be written."""
        self.report.problems.append(f"{show_path(path)}: {reason}")

    def link(self) -> None:
        """Make hard links and symbolic links, after everything else."""
        for entry, existing in self._links:
            self.report.files += 1
            self._try(entry, partial(self._link_to, existing))
        for entry in self._symlinks:
            self._try(entry, self._make_symlink)

    def _link_to(self, existing: bytes, entry: FileEntry) -> None:
        self._target.hardlink(entry.path, existing)

    def _make_symlink(self, entry: FileEntry) -> None:
        self._target.symlink(entry.path, entry.link_target, entry.mtime_ns)

    def _make_folder(self, entry: FileEntry) -> None:
        self._target.folder(entry.path, entry.mode, entry.mtime_ns)

    def _pieces(self, entry: FileEntry) -> Iterator[memoryview]:
        if entry.content is None:
            raise Damaged("the manifest gives it no content")
        return iterate_bytes(self._reader, entry.content)

    def _write_content(self, entry: FileEntry) -> None:
        pieces = self._pieces(entry)
        with self._target.file(entry.path, entry.mode, entry.mtime_ns, entry.size) as file:
            written = 0
            for piece in pieces:
                written += len(piece)
                file.write(piece)
            if written != entry.size:
                raise Damaged(f"it has {written} bytes instead of {entry.size}")

    def _try(self, entry: FileEntry, act: Callable[[FileEntry], None]) -> None:
        try:
            act(entry)
        except (BackupAdminError, OSError, ValueError) as error:
            self.note_failure(entry.path, _reason(error))


@contextmanager
def _small_files(run: _Writing, target: TreeWriter, reader: ChunkReader) -> Iterator[_SmallFiles]:
    """Give who writes small files: a process of its own where reading them keeps this one busy."""
    root = target.shared_root if reader.reads_ahead else None
    if root is None:
        yield _SmallFiles(run)
        return
    with FilesAside(root) as aside:
        yield _SmallFiles(run, aside)


class _SmallFiles:
    """Writes small files one after the other, or has them written."""

    def __init__(self, run: _Writing, aside: FilesAside | None = None) -> None:
        self._run = run
        self._aside = aside

    def take(self, entry: FileEntry) -> None:
        """Write a file, or hand it over."""
        if self._aside is None or entry.size > _LARGEST_ASIDE:
            self._run.write_file(entry)
        else:
            self._run.write_aside(entry, self._aside)

    def finish(self) -> None:
        """Wait for what was handed over."""
        for path, reason in self._aside.finish() if self._aside else ():
            self._run.note_failure(path, reason)


class _LargeFiles:
    """Writes large files in a thread of its own; who waits for them helps, unless the files are read ahead.

    The thread also sends small files to the disk, so that not all of them wait for the end.
    """

    def __init__(self, run: _Writing, target: TreeWriter, *, helps: bool) -> None:
        self._run = run
        self._target = target
        self._helps = helps
        self._small = 0
        self._sending: Future[None] | None = None
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="restore")
        self._waiting: deque[tuple[Future[None], FileEntry]] = deque()

    def take(self, entry: FileEntry) -> bool:
        """Take a file, unless too many wait; who does not help waits for one of them."""
        while self._waiting and self._waiting[0][0].done():
            self._waiting.popleft()[0].result()
        if len(self._waiting) >= _LARGE_WAITING:
            return False
        if not self._helps and len(self._waiting) >= _LARGE_WAITING_AHEAD:
            self._waiting.popleft()[0].result()
        self._waiting.append((self._pool.submit(self._run.write_file, entry), entry))
        return True

    def follow(self, size: int) -> None:
        """Send small files to the disk when these are many bytes since the last time."""
        self._small += size
        if self._small >= _SENT_BYTES and (self._sending is None or self._sending.done()):
            self._need_sent()
            self._small = 0
            self._sending = self._pool.submit(self._target.send_to_disk)

    def finish(self) -> None:
        """Write what is left, from the end of the queue, until both threads meet."""
        while self._waiting:
            future, entry = self._waiting.pop()
            if self._helps and future.cancel():
                self._run.write_file(entry)
            else:
                future.result()
        self._need_sent()

    def _need_sent(self) -> None:
        """Raise what went wrong: the system tells of it only once."""
        if self._sending is not None:
            self._sending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
