"""The WAL archive of PostgreSQL clusters in a repository: files come in, are found, and go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.durable import replace_file
from backup_admin.core.errors import (
    Busy,
    Damaged,
    ObjectMissing,
    RepositoryError,
    SourceInvalid,
    SourceMissing,
    StorageError,
    UsageError,
)
from backup_admin.repository.objects import HEADER_BYTES, object_kid
from backup_admin.repository.wal import (
    MAX_FILE_BYTES,
    PREFIX,
    WalHead,
    is_wal_file,
    open_wal,
    parse_wal_name,
    seal_wal,
    wal_name,
)
from backup_admin.sources.postgres.wal_files import check_segment
from backup_admin.storage.base import PutResult

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.repository.repository import Repository


class OtherWal(RepositoryError):
    """The archive has other bytes under the name of a file that comes in."""

    code = "other_wal"


class NotArchived(RepositoryError):
    """The archive has no file of that name."""

    code = "not_archived"


@dataclass(frozen=True, slots=True)
class Archived:
    """A file that is in the archive now; `was_there` when it was before, with the same bytes."""

    system: str
    file: str
    size: int
    stored: int
    was_there: bool


@dataclass(slots=True)
class ArchivedCluster:
    """The files of one cluster: names and stored bytes."""

    system: str
    files: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Return the bytes they take in the storage."""
        return sum(self.files.values())


def read_wal_file(path: Path, system: str) -> bytes:
    """Read a file that a server hands over, and see that it is what its name says.

    Raises `UsageError`, `SourceMissing` or `SourceInvalid`.
    """
    if not is_wal_file(path.name):
        raise UsageError(f"{path.name!r} is no file that a PostgreSQL server archives. Nothing was archived.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SourceMissing(f"{path} cannot be read: {error.strerror}. Nothing was archived.") from error
    if len(data) > MAX_FILE_BYTES:
        raise SourceInvalid(
            f"{path.name} is larger than {MAX_FILE_BYTES >> 20} MiB: clusters with larger segments "
            "(initdb --wal-segsize) cannot be archived. Nothing was archived."
        )
    check_segment(path.name, data, system)
    return data


def archive_file(repository: Repository, system: str, file: str, data: bytes, *, clock: Clock) -> Archived:
    """Put a file into the archive and read it back; it is durable when this returns.

    A name is taken once: the same bytes again are no error, others are refused with `OtherWal`.
    Safe beside others that archive the same. Raises `StorageError` or `HistoryChanged` too.
    """
    repository.require_history()
    name = wal_name(system, file)
    if name in repository.history.doomed:
        raise Busy(f"A prune deletes an older {file} just now. Nothing was archived; the server tries again.")
    level = repository.config.parameters.compression_level
    sealed = seal_wal(repository.keys, system, file, data, now=clock.now(), level=level)
    result = repository.storage.put(name, sealed)
    there = repository.storage.get(name)
    if there == sealed:
        return Archived(system, file, len(data), len(sealed), was_there=False)
    if result is PutResult.STORED:
        raise StorageError(
            f"{name} in {repository.label} is not what was written. The server keeps {file} and tries again."
        )
    _need_same(repository, name, there, data)
    return Archived(system, file, len(data), len(there), was_there=True)


def _need_same(repository: Repository, name: str, there: bytes, data: bytes) -> None:
    try:
        _, known = open_wal(repository.keys, name, there)
    except Damaged as error:
        raise Damaged(
            f"{name} in {repository.label} is damaged, and is never overwritten: {error} The server keeps "
            "the file. Move the object away by hand, or make a new base backup in another repository."
        ) from error
    if known != data:
        raise OtherWal(
            f"{repository.label} has another file of the name {name}. Nothing was overwritten. Do two "
            "servers of one origin archive to one place? Each needs a repository or a timeline of its own."
        )


def read_archived(repository: Repository, system: str, file: str) -> bytes:
    """Return a file of the archive, compared with its digest; raise `NotArchived` or `Damaged`."""
    return _read(repository, system, file)[1]


def _read(repository: Repository, system: str, file: str) -> tuple[WalHead, bytes]:
    name = wal_name(system, file)
    try:
        data = repository.storage.get(name)
    except ObjectMissing as error:
        raise NotArchived(f"{repository.label} has no {file} of cluster {system}.") from error
    try:
        return open_wal(repository.keys, name, data)
    except Damaged as error:
        raise Damaged(f"{name} in {repository.label}: {error}") from error


def fetch_file(repository: Repository, system: str, file: str, target: Path) -> WalHead:
    """Write a file of the archive, whole or not at all; return what the archive says about it."""
    head, data = _read(repository, system, file)
    replace_file(target, data)
    return head


def archived_clusters(repository: Repository) -> dict[str, ArchivedCluster]:
    """List what the archive holds; what an entry of the chain took off the books does not count."""
    found: dict[str, ArchivedCluster] = {}
    for system, file, size in _listed(repository, PREFIX):
        found.setdefault(system, ArchivedCluster(system)).files[file] = size
    return found


def archived_cluster(repository: Repository, system: str) -> ArchivedCluster:
    """List what the archive holds of one cluster."""
    files = {file: size for _, file, size in _listed(repository, f"{PREFIX}{system}/")}
    return ArchivedCluster(system, files)


def _listed(repository: Repository, prefix: str) -> Iterator[tuple[str, str, int]]:
    for info in repository.storage.list_objects(prefix):
        parsed = parse_wal_name(info.name)
        if parsed is not None and info.name not in repository.history.doomed:
            yield (*parsed, info.size)


def files_under(repository: Repository, kid: int) -> int:
    """Count the files that are sealed under a key, by the headers of all objects."""
    count = 0
    for system, cluster in archived_clusters(repository).items():
        for file in cluster.files:
            header = repository.storage.get(wal_name(system, file), 0, HEADER_BYTES)
            count += object_kid(header) == kid
    return count
