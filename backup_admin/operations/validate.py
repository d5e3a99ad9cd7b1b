"""Whether a planned restore can be carried out here and now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from backup_admin.core.errors import BackupAdminError, UsageError
from backup_admin.operations.captured import iterate_bytes, iterate_refs
from backup_admin.operations.issues import NOT_THERE, Issue, Level
from backup_admin.operations.journal import refuse_earlier
from backup_admin.operations.layout import check_layout
from backup_admin.operations.plan_postgres import (
    RENAME,
    look_at_needs,
    look_at_server,
    look_for_one_of_two_names,
)
from backup_admin.operations.plan_restore import is_stream_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.clock import Clock
    from backup_admin.core.state import StateFolder
    from backup_admin.operations.plans import RestorePlan, Selection
    from backup_admin.operations.results import SourceSet
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import Content, FilesRoot, Manifest

_MARGIN = 1.1
_DATABASE_COPIES = 3


def validate_restore(
    plan: RestorePlan, repository: Repository, targets: SourceSet, *, state: StateFolder, clock: Clock
) -> tuple[Issue, ...]:
    """Look at everything that could stop a restore; reads only, raises nothing foreseeable."""
    try:
        manifest = repository.manifest(plan.snapshot_id)
    except BackupAdminError as error:
        return (Issue(Level.BLOCK, "Backup", str(error)),)
    return (
        *_look_at_snapshot(plan, repository, manifest),
        *_look_at_streams(manifest, targets),
        *look_at_storage(repository, targets),
        *_look_at_places(plan, targets),
        *_look_at_nesting(plan),
        *_look_at_needs(plan, repository, manifest, targets),
        *look_for_one_of_two_names(plan.databases, targets),
        *_look_at_space(plan, state),
        *look_at_journals(state, clock),
    )


def look_for_lacking(manifest: Manifest, targets: SourceSet, selection: Selection) -> Iterator[Issue]:
    """Name what has a place and was asked for as part of everything, but is not in the backup."""
    lacking = []
    if selection.databases is None:
        held = [entry.name for entry in manifest.databases]
        lacking += [f"database {name}" for name in targets.database_names() if name not in held]
    if selection.files is None:
        held = [root.name for root in manifest.files]
        lacking += [f"folder {one.name}" for one in targets.files if one.name not in held]
    if lacking:
        named = ", ".join(lacking)
        yield Issue(Level.WARN, "Not restored", f"{named}. This backup does not hold it; it stays as it is.")


def _look_at_snapshot(plan: RestorePlan, repository: Repository, manifest: Manifest) -> Iterator[Issue]:
    lost = _count_lost(plan, repository, manifest)
    if lost:
        yield Issue(Level.BLOCK, "Backup", f"{lost} pieces of this backup are missing from the storage.")
    else:
        yield Issue(Level.OK, "Backup", "The manifest opens and every piece it needs is in the storage.")
    if manifest.snapshot.warning_count:
        yield Issue(
            Level.WARN,
            "Completeness",
            f"This backup lacks {manifest.snapshot.warning_count} things, the first: {manifest.warnings[0]}",
        )
    for part in plan.left_out:
        yield Issue(Level.WARN, "Parts", f"The {part} is in this backup and will not be restored.")


def _look_at_streams(manifest: Manifest, targets: SourceSet) -> Iterator[Issue]:
    if any(is_stream_folder(root.name, targets) for root in manifest.files):
        yield Issue(
            Level.OK,
            "Streams",
            "What was streamed of databases is in this backup too; `stream restore` reads it.",
        )


def look_at_storage(repository: Repository, targets: SourceSet) -> Iterator[Issue]:
    """Say what is wrong with where it is read from."""
    if repository.history_warning:
        yield Issue(Level.BLOCK, "Storage", repository.history_warning)
    try:
        check_layout(repository.storage, targets)
    except UsageError as error:
        yield Issue(Level.BLOCK, "Storage", str(error))


def _look_at_places(plan: RestorePlan, targets: SourceSet) -> Iterator[Issue]:
    for part in plan.databases:
        if part.way:
            yield from look_at_server(part, targets)
            continue
        yield from _look_at_place(f"Database {part.name}", Path(part.path), found=part.live_found)
    for tree in plan.files:
        yield from _look_at_place(f"Folder {tree.name}", Path(tree.root), found=tree.live_found)


def _look_at_needs(
    plan: RestorePlan, repository: Repository, manifest: Manifest, targets: SourceSet
) -> Iterator[Issue]:
    for part in plan.databases:
        entry = manifest.database(part.name)
        if not part.way or entry is None:
            continue
        try:
            contents = b"".join(iterate_bytes(repository.reader(), entry.content))
        except BackupAdminError:
            continue  # told of as pieces that are missing, or where it is read
        yield from look_at_needs(part, targets, contents)


def _look_at_place(topic: str, path: Path, *, found: bool) -> Iterator[Issue]:
    parent = path.parent
    if not parent.is_dir():
        yield Issue(Level.BLOCK, topic, f"{parent} is not there; is a disk not mounted?")
    elif not os.access(parent, os.W_OK) and not (path.is_dir() and os.access(path, os.W_OK)):
        yield Issue(Level.BLOCK, topic, f"{parent} cannot be written to by this process.")
    elif not os.path.lexists(path):
        yield Issue(Level.WARN, topic, NOT_THERE.format(place=path))
    elif not found:
        yield Issue(Level.WARN, topic, f"{path} is damaged now; it will be made anew.")
    else:
        yield Issue(Level.OK, topic, f"{path} is there and can be exchanged.")


def _look_at_space(plan: RestorePlan, state: StateFolder) -> Iterator[Issue]:
    needed: dict[int, tuple[Path, int]] = {}
    for path, size in _places(plan, state):
        folder = _existing(path)
        device = folder.stat().st_dev
        needed[device] = (folder, needed.get(device, (folder, 0))[1] + size)
    for folder, size in needed.values():
        free = os.statvfs(folder)
        room = free.f_bavail * free.f_frsize
        wanted = int(size * _MARGIN)
        text = f"{room / 1e6:.0f} MB are free at {folder}, {wanted / 1e6:.0f} MB are needed to stage."
        yield Issue(Level.OK if room > wanted else Level.BLOCK, "Space", text)


def look_at_journals(state: StateFolder, clock: Clock) -> Iterator[Issue]:
    """Say whether a restore before this one has not ended."""
    try:
        refuse_earlier(state, clock)
    except BackupAdminError as error:
        yield Issue(Level.BLOCK, "Earlier restore", str(error))


def _look_at_nesting(plan: RestorePlan) -> Iterator[Issue]:
    for inner in plan.files:
        for outer in plan.files:
            if inner is not outer and Path(inner.root).is_relative_to(outer.root):
                text = f"{inner.name} lies in {outer.name}; restore one after the other, {outer.name} first."
                yield Issue(Level.BLOCK, f"Folder {inner.name}", text)


def _places(plan: RestorePlan, state: StateFolder) -> list[tuple[Path, int]]:
    """Return where how much is written by us; what a server writes we cannot see."""
    places = [(Path(part.root), part.size) for part in plan.files]
    for part in plan.databases:
        if part.way:
            places.append((state.restores, (1 if part.way == RENAME else 2) * part.size))
        else:
            places.append((Path(part.path), _DATABASE_COPIES * part.size))
    return places


def _existing(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path


def _count_lost(plan: RestorePlan, repository: Repository, manifest: Manifest) -> int:
    index = repository.index()
    index.ignore(repository.missing_packs())
    reader = repository.reader()
    try:
        return sum(
            1
            for content in _contents(plan, repository, manifest)
            for _, ref in iterate_refs(reader, content)
            if not index.has(ref.id)
        )
    except BackupAdminError:
        return 1


def _contents(plan: RestorePlan, repository: Repository, manifest: Manifest) -> Iterator[Content]:
    for part in plan.databases:
        entry = manifest.database(part.name)
        if entry is not None and entry.tree is not None:
            yield from _contents_of(repository, entry.tree)
        elif entry is not None:
            yield entry.content
    for tree in plan.files:
        root = manifest.files_root(tree.name)
        if root is not None:
            yield from _contents_of(repository, root)


def _contents_of(repository: Repository, root: FilesRoot) -> Iterator[Content]:
    return (one.content for one in repository.entries(root) if one.content is not None)
