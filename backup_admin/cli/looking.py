"""The verbs that look into a repository: list, show, diff."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.describing import describe_snapshot
from backup_admin.cli.opening import Surroundings, open_given, repository_options
from backup_admin.cli.printing import Answer, Pieces, columns, show_size, show_text, show_time
from backup_admin.core.errors import Damaged
from backup_admin.core.paths import path_to_json, show_path
from backup_admin.operations.diff import FileChange, TableChange, diff_files, diff_tables
from backup_admin.operations.export import export_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Snapshot

_HEADINGS = ("SNAPSHOT", "TIME", "KIND", "OUTCOME", "FILES", "DATABASES", "SIZE", "NEW", "LABEL")
_MARKS = {"added": "+", "removed": "-", "changed": "~"}
_DAMAGED = Damaged.exit_code


@click.command("list")
@click.argument("storage")
@repository_options
@click.pass_obj
def list_verb(
    surroundings: Surroundings, *, storage: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """List the snapshots, oldest first.

    Ends with 4 when one of them cannot be read; the others are listed all the same.
    """
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    found, damaged = _read_headers(repository)
    return Answer(
        result={
            "repository": repository.repo_id,
            "snapshots": [describe_snapshot(snapshot) for snapshot in found],
            "damaged": [{"id": snapshot_id, "message": message} for snapshot_id, message in damaged],
        },
        lines=_list_lines(found, repository.label),
        exit_code=_DAMAGED if damaged else 0,
        notes=[f"Snapshot {snapshot_id} cannot be read: {message}" for snapshot_id, message in damaged],
    )


def _read_headers(repository: Repository) -> tuple[list[Snapshot], list[tuple[SnapshotId, str]]]:
    found: list[Snapshot] = []
    damaged: list[tuple[SnapshotId, str]] = []
    for snapshot_id in repository.snapshot_ids():
        try:
            found.append(repository.snapshot(snapshot_id))
        except Damaged as error:
            damaged.append((snapshot_id, str(error)))
    return found, damaged


def _list_lines(snapshots: list[Snapshot], label: str) -> Iterator[str]:
    if not snapshots:
        yield f"{label} has no snapshot yet."
        return
    rows = [
        (
            snapshot.id,
            show_time(snapshot.created_at),
            snapshot.kind,
            snapshot.outcome,
            f"{snapshot.file_count:,}",
            f"{snapshot.database_count:,}",
            show_size(snapshot.file_bytes + snapshot.database_bytes),
            show_size(snapshot.new_bytes),
            show_text(snapshot.label),
        )
        for snapshot in snapshots
    ]
    yield from columns([_HEADINGS, *rows], right=(4, 5, 6, 7))


@click.command("show")
@click.argument("snapshot")
@click.argument("storage")
@repository_options
@click.pass_obj
def show_verb(
    surroundings: Surroundings, *, snapshot: str, storage: str, key_file: Path | None, state_dir: Path | None
) -> Pieces:
    """Print the manifest of a snapshot as JSON.

    SNAPSHOT is an id, the beginning of one, or `latest`. Secrets are not in it.
    """
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    pieces = export_manifest(repository, repository.find_snapshot(snapshot).id)
    # What fails at once fails before anything is printed.
    return Pieces(chain([next(pieces)], pieces))


@click.command("diff")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.argument("storage")
@repository_options
@click.pass_obj
def diff_verb(
    surroundings: Surroundings,
    *,
    before: str,
    after: str,
    storage: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Say what changed from snapshot A to snapshot B."""
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    old, new = repository.find_snapshot(before), repository.find_snapshot(after)
    tables = diff_tables(repository.manifest(old.id), repository.manifest(new.id))
    files = diff_files(repository, old.id, new.id)
    if not surroundings.as_json:
        return Answer({}, lines=_diff_lines(tables, files))
    return Answer(
        result={"before": old.id, "after": new.id, "tables": [_describe_table(table) for table in tables]},
        stream=("files", (_describe_file(change) for change in files)),
    )


def _diff_lines(tables: tuple[TableChange, ...], files: Iterator[FileChange]) -> Iterator[str]:
    nothing = True
    for table in tables:
        nothing = False
        yield f"{_mark_table(table)} databases/{table.database} {show_text(table.table)}  {_show_rows(table)}"
    for change in files:
        nothing = False
        sizes = f"{show_size(change.old_size)} -> {show_size(change.new_size)}"
        if change.change != "changed":
            sizes = show_size(max(change.old_size, change.new_size))
        yield f"{_MARKS[change.change]} files/{change.source}/{show_path(change.path)}  {sizes}"
    if nothing:
        yield "Nothing differs."


def _mark_table(table: TableChange) -> str:
    if table.old_rows < 0:
        return _MARKS["added"]
    return _MARKS["removed"] if table.new_rows < 0 else _MARKS["changed"]


def _show_rows(table: TableChange) -> str:
    if table.old_rows < 0 or table.new_rows < 0:
        return f"{max(table.old_rows, table.new_rows):,} rows"
    return f"{table.old_rows:,} -> {table.new_rows:,} rows"


def _describe_table(table: TableChange) -> dict[str, Any]:
    return {
        "database": table.database,
        "table": table.table,
        "old_rows": None if table.old_rows < 0 else table.old_rows,
        "new_rows": None if table.new_rows < 0 else table.new_rows,
    }


def _describe_file(change: FileChange) -> dict[str, Any]:
    return {
        "source": change.source,
        "path": path_to_json(change.path),
        "change": change.change,
        "old_size": change.old_size,
        "new_size": change.new_size,
    }
