"""Storing a captured PostgreSQL database: its parts are the files of a tree of its own."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from backup_admin.core.paths import sort_key
from backup_admin.repository.entries import ShardWriter
from backup_admin.repository.types import ChunkRef, DatabaseEntry, FileEntry, TableEntry
from backup_admin.sources.postgres.parts import CONTENTS, TABLES, TablePart, file_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from backup_admin.core.progress import Reporter
    from backup_admin.operations.workers import ContentWorkers
    from backup_admin.repository.content_writer import ContentWriter
    from backup_admin.repository.types import Content
    from backup_admin.sources.postgres.capture import PostgresCapture
    from backup_admin.sources.postgres.catalog import Table
    from backup_admin.sources.postgres.source import PostgresSource

_FILE_MODE, _FOLDER_MODE = 0o600, 0o700


def capture_postgres(
    source: PostgresSource,
    workers: ContentWorkers,
    put_part: Callable[[bytes], ChunkRef],
    reporter: Reporter,
) -> DatabaseEntry:
    """Read a database in one snapshot, tables side by side, and store its parts.

    Raises `SourceMissing`, `SourceError` or `NoClient`; nothing counts as stored then.
    """
    began_ns = time.time_ns()
    with source.capturing() as captured:
        run = _Run(captured, workers, reporter)
        parts, contents = run.store()
    entries = []
    if not captured.archive_reason:
        entries.append(FileEntry(TABLES.encode(), "folder", 0, _FOLDER_MODE, began_ns, began_ns, 0))
    for name, content in contents.items():
        path = name.encode()
        entries.append(FileEntry(path, "file", content.size, _FILE_MODE, began_ns, began_ns, 0, content))
    shards = ShardWriter(put_part)
    for entry in sorted(entries, key=lambda entry: sort_key(entry.path)):
        shards.add(entry)
    tree = shards.finish_root(source.name, source.address.label, _FOLDER_MODE, began_ns, began_ns=began_ns)
    return DatabaseEntry(
        name=source.name,
        engine="postgresql",
        format="archive" if captured.archive_reason else "tables",
        engine_version=captured.server_version,
        path=source.address.label,
        page_size=0,
        content=contents[CONTENTS],
        tables=tuple(
            TableEntry(one.table.shown, one.rows, one.size, f"sha256:{one.sha256}") for one in parts
        ),
        details=_details(captured),
        tree=tree,
    )


def _details(captured: PostgresCapture) -> dict[str, Any]:
    found = {"client_version": captured.client.version, "large_objects": captured.catalog.large_objects}
    if not captured.archive_reason:
        return found
    reason = f"it is stored as one archive, since {captured.archive_reason}"
    return {**found, "archive_reason": captured.archive_reason, "warnings": [reason]}


class _Run:
    def __init__(self, captured: PostgresCapture, workers: ContentWorkers, reporter: Reporter) -> None:
        self._captured = captured
        self._workers = workers
        self._reporter = reporter

    def store(self) -> tuple[list[TablePart], dict[str, Content]]:
        """Store all parts; return what is known of the tables, and the content of each file."""
        # Programs first, they are short; then the largest table: the last that is under way is a small one.
        archives = {name: self._submit_archive(name) for name in self._captured.archives()}
        tables = {
            table: self._workers.submit(partial(self._table, table), size=table.size + 1)
            for table in sorted(self._captured.tables, key=lambda table: -table.size)
        }
        try:
            contents = {name: future.result() for name, future in archives.items()}
            read = [tables[table].result() for table in self._captured.tables]
        except BaseException:
            _give_up([*archives.values(), *tables.values()])
            raise
        parts = [part for part, _ in read]
        contents.update((part.file, content) for part, content in read if content is not None)
        contents[CONTENTS] = self._write_contents(parts)
        return parts, contents

    def _submit_archive(self, name: str) -> Future[Content]:
        def write(writer: ContentWriter) -> Content:
            with self._captured.archive(name) as read_into:
                content = writer.write(read_into)
            self._reporter.advance(size=content.size)
            return content

        return self._workers.submit(write, size=1)

    def _table(self, table: Table, writer: ContentWriter) -> tuple[TablePart, Content | None]:
        self._reporter.check_cancelled()
        if self._captured.archive_reason:  # its rows are in the archive
            return self._captured.digest(table), None
        with self._captured.table(table) as reader:
            content = writer.write(reader.read_into)
        self._reporter.advance(size=content.size, current=table.shown)
        file = file_of(table.schema, table.name)
        return TablePart(table, file, reader.rows, content.size, content.sha256), content

    def _write_contents(self, parts: list[TablePart]) -> Content:
        left = memoryview(self._captured.contents(parts))

        def read_into(view: memoryview) -> int:
            nonlocal left
            count = min(len(view), len(left))
            view[:count] = left[:count]
            left = left[count:]
            return count

        return self._workers.submit(lambda writer: writer.write(read_into), size=1).result()


def _give_up(futures: Sequence[Future[Any]]) -> None:
    """Wait for what is under way: it reads from the snapshot that ends now."""
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()
