"""The verbs that look into a repository: list, show, diff."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import click

from backup_admin.cli.describing import describe_snapshot
from backup_admin.cli.opening import Surroundings, choose, open_given, repository_options
from backup_admin.cli.printing import Pieces
from backup_admin.core.errors import Damaged
from backup_admin.core.shown import columns, show_size, show_text, show_time
from backup_admin.operations.answers import Answer, answer_diff
from backup_admin.operations.export import export_manifest
from backup_admin.verbs.base import AT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Snapshot

_HEADINGS = ("SNAPSHOT", "TIME", "KIND", "OUTCOME", "FILES", "DATABASES", "SIZE", "NEW", "LABEL")
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
@AT
@repository_options
@click.pass_obj
def show_verb(
    surroundings: Surroundings,
    *,
    snapshot: str,
    storage: str,
    at: str,
    key_file: Path | None,
    state_dir: Path | None,
) -> Pieces:
    """Print the manifest of a snapshot as JSON.

    SNAPSHOT is an id, the beginning of one, or `latest`. Secrets are not in it.
    """
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    pieces = export_manifest(repository, choose(surroundings, repository, snapshot, at))
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
    return answer_diff(repository, old.id, new.id, as_json=surroundings.as_json)
