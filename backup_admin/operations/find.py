"""The versions of a path over all snapshots: since when, how large, when it was gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged
from backup_admin.core.paths import sort_key
from backup_admin.operations.patterns import compile_exactly
from backup_admin.repository.entries import iterate_shards
from backup_admin.repository.lookup import find_entry
from backup_admin.repository.shards import read_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from backup_admin.core.ids import SnapshotId
    from backup_admin.repository.reader import ChunkReader
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, FileEntry, FilesRoot

_WILD = frozenset("*?[")
_DATABASES = "databases/"


@dataclass(slots=True)
class Version:
    """One state of a path, and the snapshots in a row that have it.

    `kind` is file, folder, symlink or database; `digest` the SHA-256 of its bytes,
    `target` where a symlink leads.
    """

    kind: str
    size: int
    mtime_ns: int
    digest: str
    target: bytes
    snapshots: list[SnapshotId]

    def same_as(self, other: Version) -> bool:
        """Say whether both have the same content."""
        return (self.kind, self.digest, self.target) == (other.kind, other.digest, other.target)


@dataclass(slots=True)
class PathHistory:
    """One path, its versions from the oldest on, and the first snapshot without it."""

    source: str
    path: bytes
    versions: list[Version] = field(default_factory=list)
    gone_since: SnapshotId | None = None


@dataclass(slots=True)
class FoundPaths:
    """All paths a pattern names; `damaged` says which snapshots could not be searched, and why."""

    paths: list[PathHistory]
    damaged: list[tuple[SnapshotId, str]]


def find_versions(repository: Repository, pattern: str, snapshots: Iterable[SnapshotId]) -> FoundPaths:
    """Look a path up in snapshots, given in the order of their commits.

    A pattern with a slash is a path, as `restore --only` takes it, but names just
    the entry itself; one without is a name that may lie anywhere. `*`, `?`, `[...]`
    and `**` are wild. Shards that snapshots share are read once, and for a plain
    path only those that can hold it. Raises `UsageError`.
    """
    run = _Search(repository, pattern)
    for snapshot_id in snapshots:
        run.search(snapshot_id)
    return run.result()


class _Search:
    def __init__(self, repository: Repository, pattern: str) -> None:
        self._repository = repository
        self._reader: ChunkReader = repository.reader()
        self._expression = compile_exactly(pattern)
        text = pattern.strip("/").removeprefix("./")
        self._anywhere = "/" not in text
        plain = not self._anywhere and _WILD.isdisjoint(text)
        self._plain = text.encode("utf-8", "surrogateescape") if plain else b""
        self._shards: dict[bytes, list[FileEntry]] = {}
        self._paths: dict[tuple[str, bytes], PathHistory] = {}
        self._damaged: list[tuple[SnapshotId, str]] = []

    def search(self, snapshot_id: SnapshotId) -> None:
        """Take one more snapshot into account."""
        seen: set[tuple[str, bytes]] = set()
        try:
            manifest = self._repository.manifest(snapshot_id)
            for root in manifest.files:
                for entry in self._entries(root):
                    seen.add((f"files/{root.name}", entry.path))
                    self._add(f"files/{root.name}", entry.path, _version_of(entry, snapshot_id))
            for database in manifest.databases:
                if self._matches(database.name.encode(), (_DATABASES + database.name).encode()):
                    seen.add(("databases", database.name.encode()))
                    self._add(
                        "databases", database.name.encode(), _version_of_database(database, snapshot_id)
                    )
        except Damaged as error:
            self._damaged.append((snapshot_id, str(error)))
            return
        for key, history in self._paths.items():
            if key not in seen and history.gone_since is None:
                history.gone_since = snapshot_id

    def result(self) -> FoundPaths:
        """Return what was found, in the order of a walk."""
        ordered = sorted(self._paths.values(), key=lambda one: (one.source, sort_key(one.path)))
        return FoundPaths(ordered, self._damaged)

    def _entries(self, root: FilesRoot) -> Sequence[FileEntry]:
        if self._plain:
            name = root.name.encode()
            beginnings = (b"files/" + name + b"/", name + b"/", b"")
            paths = [self._plain.removeprefix(one) for one in beginnings if self._plain.startswith(one)]
            found = [find_entry(self._reader, root, path) for path in dict.fromkeys(paths) if path]
            return [entry for entry in found if entry is not None]
        matching: list[FileEntry] = []
        for row in iterate_shards(self._reader, root):
            key = root.name.encode() + row.ref.id
            if key not in self._shards:
                entries = read_entries(self._reader, row)
                self._shards[key] = [entry for entry in entries if self._is_meant(root.name, entry.path)]
            matching += self._shards[key]
        return matching

    def _is_meant(self, source: str, path: bytes) -> bool:
        name = source.encode()
        return self._matches(
            path.rpartition(b"/")[2], path, name + b"/" + path, b"files/" + name + b"/" + path
        )

    def _matches(self, last_name: bytes, *paths: bytes) -> bool:
        if self._anywhere:
            return self._expression.match(last_name) is not None
        return any(self._expression.match(path) for path in paths)

    def _add(self, source: str, path: bytes, version: Version) -> None:
        history = self._paths.setdefault((source, path), PathHistory(source, path))
        last = history.versions[-1] if history.versions else None
        if last is not None and last.same_as(version) and history.gone_since is None:
            last.snapshots += version.snapshots
        else:
            history.versions.append(version)
        history.gone_since = None


def _version_of(entry: FileEntry, snapshot_id: SnapshotId) -> Version:
    digest = "" if entry.content is None else entry.content.sha256
    return Version(entry.kind, entry.size, entry.mtime_ns, digest, entry.link_target, [snapshot_id])


def _version_of_database(entry: DatabaseEntry, snapshot_id: SnapshotId) -> Version:
    return Version("database", entry.size, 0, entry.content.sha256, b"", [snapshot_id])
