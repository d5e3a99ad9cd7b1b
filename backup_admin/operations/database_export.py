"""Export one database, of a snapshot or in use, in a format that other programs read. No backup by itself."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backup_admin.core.durable import make_folders, rename_new, sync_folder
from backup_admin.core.errors import (
    BackupAdminError,
    Damaged,
    EntryMissing,
    LocalDiskFailed,
    RestoreRefused,
    UsageError,
    VerificationFailed,
)
from backup_admin.core.shown import show_size
from backup_admin.core.telling import telling
from backup_admin.operations.base_backups import refuse_cluster
from backup_admin.operations.captured import write_content
from backup_admin.operations.databases import compare_database
from backup_admin.operations.stage_tree import write_tree
from backup_admin.operations.tables_there import RIGHT_ONE
from backup_admin.repository.shards import sound_entries
from backup_admin.sources.formats.worker import ask_formats
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.sqlite import SqliteSource
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.core.progress import Reporter
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FilesRoot
    from backup_admin.sources.postgres.address import PostgresAddress

# What the system, and SQLite, say of a full disk; it comes from other processes too, as text.
_DISK_FULL = (
    *("no space left on device", "no space is left on the disk", "disk quota exceeded"),
    "database or disk is full",
)


class ExportFormat(StrEnum):
    """What an export is written as."""

    JSON = "json"
    SQL = "sql"
    COMPACT = "compact"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is exported, and where to; client programs in `programs` come before any other."""

    format: ExportFormat
    target: Path
    programs: Path | None = None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was exported; `problems` say what a reader will not find as it was."""

    database: str
    engine: str
    tables: int
    rows: int
    bytes: int
    notices: tuple[str, ...]
    problems: tuple[str, ...]


def export_from_snapshot(
    repository: Repository,
    snapshot_id: SnapshotId,
    name: str,
    request: ExportRequest,
    *,
    reporter: Reporter,
) -> ExportReport:
    """Put a database of a snapshot together, check it, and export it; `name` may be empty for the only one.

    Raises `EntryMissing`, `RestoreRefused`, `Damaged` and `VerificationFailed`. Then nothing is there.
    """
    entry = _find(repository, snapshot_id, name)
    _refuse_format(request, entry.engine)
    with _making(request.target) as work:
        reporter.stage("export", total_bytes=entry.size, total_items=1)
        reader = repository.reader()
        if entry.tree is None:
            copy = work / "copy.db"
            write_content(reader, entry.content, copy)
            wrong = [line for line in compare_database(entry, copy, thorough=True) if not line.ok]
            if wrong:
                raise VerificationFailed(f"{wrong[0].topic}: {wrong[0].found}. Nothing was exported.")
            return _export_sqlite(copy, entry.name, request, work)
        if entry.format != "tables":
            raise RestoreRefused(
                f"{entry.name} was stored as {entry.format}, not table by table. Nothing was exported: "
                "load it into a database, and export that one."
            )
        _write_parts(reader, entry.tree, work / "parts", reporter)
        return _export_parts(work / "parts", entry.name, request, work)


def export_sqlite(path: Path, request: ExportRequest, *, reporter: Reporter) -> ExportReport:
    """Copy a SQLite database in use, and export the copy."""
    with _making(request.target) as work:
        reporter.check_cancelled()
        copy = SqliteSource(path.name, path).capture(work)
        return _export_sqlite(copy.path, path.stem, request, work)


def export_postgres(address: PostgresAddress, request: ExportRequest, *, reporter: Reporter) -> ExportReport:
    """Capture a PostgreSQL database in use in one snapshot, and export that."""
    from backup_admin.sources.postgres.export_parts import write_parts  # noqa: PLC0415 - needs psycopg

    _refuse_format(request, "postgresql")
    with _making(request.target) as work:
        reporter.check_cancelled()
        parts = work / "parts"
        parts.mkdir(mode=0o700)
        write_parts(address, find_clients(request.programs), parts)
        name = dict(address.parameters).get("dbname", "postgresql")
        return _export_parts(parts, name, request, work)


def _refuse_format(request: ExportRequest, engine: str) -> None:
    if request.format is ExportFormat.COMPACT and engine != "sqlite":
        raise UsageError("Only a SQLite database has a compact form. Nothing was exported.")


@contextmanager
def _making(target: Path) -> Iterator[Path]:
    """Give a folder to work in, beside the target; what lies there as `out` gets its name at the end."""
    is_empty = target.is_dir() and not target.is_symlink() and not any(target.iterdir())
    if not is_empty and os.path.lexists(target):
        raise RestoreRefused(f"{target} is there already. Nothing was exported; name a new place.")
    make_folders(target.parent)
    with (
        TemporaryDirectory(prefix=".backup-admin-export-", dir=target.parent) as folder,
        telling("Nothing was exported."),
        _telling_room(target.parent),
    ):
        yield Path(folder)
        if is_empty:
            target.rmdir()
        rename_new(Path(folder) / "out", target)
        sync_folder(target.parent)


@contextmanager
def _telling_room(folder: Path) -> Iterator[None]:
    """Raise `LocalDiskFailed` for whatever a full disk brought about, before anything is cleaned up."""
    before = shutil.disk_usage(folder).free
    try:
        yield
    except (BackupAdminError, OSError) as error:
        if not any(sign in str(error).lower() for sign in _DISK_FULL):
            raise
        left = shutil.disk_usage(folder).free
        raise LocalDiskFailed(
            f"There was not enough room to export to {folder}: {show_size(before)} were free when the export "
            f"began, {show_size(left)} when it stopped. Nothing was exported, and nothing of it is left. "
            "Make room there, or name a place on another disk with --to."
        ) from error


def _export_sqlite(copy: Path, name: str, request: ExportRequest, work: Path) -> ExportReport:
    out = work / "out"
    arguments: dict[str, Any] = {"path": str(copy)}
    if request.format is ExportFormat.JSON:
        out.mkdir(mode=0o700)
        arguments |= {"folder": str(out), "database": name}
    elif request.format is ExportFormat.SQL:
        arguments |= {"target": str(out), "scratch": str(work)}
    else:
        arguments |= {"target": str(out)}
    found = ask_formats(request.format, arguments, size=copy.stat().st_size)
    copy.unlink()
    notices = _noticed(found["notices"], name, found["tables"])
    problems = tuple(found["problems"])
    return ExportReport(name, "sqlite", found["tables"], found["rows"], _size_of(out), notices, problems)


def _export_parts(parts: Path, name: str, request: ExportRequest, work: Path) -> ExportReport:
    from backup_admin.sources.postgres.export_parts import export_json, export_script  # noqa: PLC0415 - psycopg

    out = work / "out"
    if request.format is ExportFormat.JSON:
        out.mkdir(mode=0o700)
        written = export_json(parts, out, name)
    else:
        written = export_script(parts, out, find_clients(request.programs))
    shutil.rmtree(parts)
    notices = _noticed(written.notices, name, written.tables)
    return ExportReport(name, "postgresql", written.tables, written.rows, _size_of(out), notices, ())


def _noticed(notices: Iterable[str], name: str, tables: int) -> tuple[str, ...]:
    return (*notices, *(() if tables else (f"{name} {RIGHT_ONE}",)))


def _write_parts(reader: ChunkReader, tree: FilesRoot, folder: Path, reporter: Reporter) -> None:
    problems: list[str] = []
    with TreeWriter(folder, few_files=True) as writer:
        entries = sound_entries(reader, tree, problems.append)
        report = write_tree(entries, writer, reader=reader, reporter=reporter)
        writer.finish(tree.mode, tree.mtime_ns)
    problems += report.problems
    if problems:
        raise Damaged(f"Database {tree.name}: {problems[0]}. Nothing was exported.")


def _find(repository: Repository, snapshot_id: SnapshotId, name: str) -> DatabaseEntry:
    databases = repository.manifest(snapshot_id).databases
    found = [entry for entry in databases if entry.name == name] if name else list(databases)
    if len(found) == 1:
        refuse_cluster(found[0])
        return found[0]
    there = ", ".join(entry.name for entry in databases) or "none"
    if found:
        raise UsageError(f"The snapshot has several databases; say which with --database: {there}.")
    raise EntryMissing(f"The snapshot has no such database; there are: {there}. Nothing was exported.")


def _size_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
