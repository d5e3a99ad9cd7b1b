"""One folder of a snapshot, listed without reading the rest of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.core.errors import EntryMissing
from backup_admin.core.paths import show_path
from backup_admin.repository.lookup import entries_below, find_entry, list_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import FileEntry, FilesRoot, Manifest

_FILES = b"files/"
_FOLDER = "folder"
_PARTS = (b"", b".", b"files", b"databases", b"settings")


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing. `kind` is file, folder, symlink, database or settings.

    `path` is the whole one, as in `files/uploads/photo.jpg` or `databases/app`.
    """

    kind: str
    path: bytes
    size: int
    mode: int = 0
    mtime_ns: int = 0
    target: bytes = b""


def list_snapshot(
    repository: Repository, snapshot_id: SnapshotId, path: str = "", *, recursive: bool = False
) -> Iterator[Listed]:
    """Yield what lies in a folder of a snapshot, or one entry that is no folder.

    Without a path: its databases, settings and folder trees. A path may begin with
    `files/NAME/` or `NAME/`, or with neither where there is one tree only. Reads no
    more than it must. Raises `EntryMissing` or `Damaged`.
    """
    manifest = repository.manifest(snapshot_id)
    wanted = path.encode("utf-8", "surrogateescape").strip(b"/").removeprefix(b"./").removesuffix(b"/.")
    found = None if wanted in _PARTS else _find(repository, manifest, wanted, recursive=recursive)
    if found is not None:
        yield from found
        return
    top = _top(repository, manifest, wanted, recursive=recursive)
    first = next(top, None)
    if first is not None:
        yield first
        yield from top
    elif wanted not in _PARTS:
        raise EntryMissing(f"Snapshot {snapshot_id} has no {show_path(wanted)}.")


def _find(
    repository: Repository, manifest: Manifest, wanted: bytes, *, recursive: bool
) -> Iterator[Listed] | None:
    """Return what lies at a path of the folder trees; None when nothing does."""
    for root, below in _places(manifest, wanted):
        entry = find_entry(repository.reader(), root, below) if below else None
        if entry is not None and entry.kind != _FOLDER:
            return iter((_listed(root, entry),))
        if entry is not None or not below:
            return _children(repository, root, below, recursive=recursive)
    return None


def _top(repository: Repository, manifest: Manifest, wanted: bytes, *, recursive: bool) -> Iterator[Listed]:
    """Yield databases, trees and settings: all of them, or those that are wanted."""

    def is_wanted(path: bytes) -> bool:
        return wanted in (b"", b".", path) or path.startswith(wanted + b"/")

    for database in manifest.databases:
        path = b"databases/" + database.name.encode()
        if is_wanted(path):
            yield Listed("database", path, database.size)
    for root in manifest.files:
        path = _FILES + root.name.encode()
        if is_wanted(path):
            yield Listed(_FOLDER, path, root.size, root.mode, root.mtime_ns)
            if recursive:
                yield from _children(repository, root, b"", recursive=True)
    if manifest.settings is not None and is_wanted(b"settings"):
        yield Listed("settings", b"settings", manifest.settings.content.size)


def _places(manifest: Manifest, wanted: bytes) -> Iterator[tuple[FilesRoot, bytes]]:
    """Yield each tree a path may lie in, with the rest of the path."""
    for entry in manifest.databases:
        place = b"databases/" + entry.name.encode()
        if entry.tree is not None and (wanted == place or wanted.startswith(place + b"/")):
            yield entry.tree, wanted[len(place) + 1 :]
    short = wanted.removeprefix(_FILES)
    for root in manifest.files:
        name = root.name.encode()
        if short == name or short.startswith(name + b"/"):
            yield root, short[len(name) + 1 :]
    if len(manifest.files) == 1:
        yield manifest.files[0], wanted


def _children(repository: Repository, root: FilesRoot, path: bytes, *, recursive: bool) -> Iterator[Listed]:
    listing = entries_below if recursive else list_folder
    for entry in listing(repository.reader(), root, path):
        yield _listed(root, entry)


def _listed(root: FilesRoot, entry: FileEntry) -> Listed:
    path = _FILES + root.name.encode() + b"/" + entry.path
    return Listed(entry.kind, path, entry.size, entry.mode, entry.mtime_ns, entry.link_target)
