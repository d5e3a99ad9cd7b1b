"""Check the WAL archives in a repository: each file whole, and none missing behind a base backup."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.errors import Damaged, ObjectMissing, RepositoryError, SourceInvalid
from backup_admin.core.shown import count_of
from backup_admin.operations.base_backups import Base, Timelines, all_bases, walk
from backup_admin.operations.wal_archive import ArchivedCluster, archived_clusters, read_archived
from backup_admin.repository.wal import open_wal, wal_name
from backup_admin.sources.postgres.wal_files import parse_history

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backup_admin.core.progress import Reporter
    from backup_admin.repository.repository import Repository

HISTORY = ".history"


@dataclass(slots=True)
class WalCheck:
    """What a check of the archives showed."""

    objects: int = 0
    bytes_read: int = 0
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def read_timelines(repository: Repository, cluster: ArchivedCluster) -> Timelines:
    """Read the histories of all timelines of a cluster; raise `Damaged`."""
    histories = {}
    for file in cluster.files:
        if file.endswith(HISTORY):
            try:
                found = parse_history(read_archived(repository, cluster.system, file))
            except SourceInvalid as error:
                raise Damaged(f"{wal_name(cluster.system, file)}: {error}") from error
            histories[int(file.removesuffix(HISTORY), 16)] = found
    return Timelines(histories)


def check_archives(repository: Repository, *, read_data: bool, reporter: Reporter) -> WalCheck:
    """Check what is archived, with `read_data` every byte of it; costs one list where nothing is."""
    check = WalCheck()
    clusters = archived_clusters(repository)
    if not clusters:
        return check
    unreadable: list[str] = []
    bases = all_bases(repository, unreadable)
    if unreadable:
        # What is wrong with the snapshot is told where snapshots are checked.
        check.notices.append(
            f"Whether the WAL archive is whole could not be told for a base backup in snapshot "
            f"{unreadable[0]}, which cannot be read."
        )
    for cluster in clusters.values():
        check.objects += len(cluster.files)
        if read_data:
            _read_all(repository, cluster, reporter, check)
        of_this = [base for base in bases if base.system == cluster.system]
        if of_this or not unreadable:
            _check_ways(repository, cluster, of_this, check)
    return check


def _read_all(repository: Repository, cluster: ArchivedCluster, reporter: Reporter, check: WalCheck) -> None:
    reporter.stage("check", total_bytes=cluster.size, total_items=len(cluster.files))
    for file in cluster.files:
        reporter.check_cancelled()
        name = wal_name(cluster.system, file)
        try:
            data = repository.storage.get(name)
            open_wal(repository.keys, name, data)
        except ObjectMissing:
            continue  # a prune beside this took it
        except RepositoryError as error:
            check.problems.append(f"{name} is damaged: {error}")
        else:
            check.bytes_read += len(data)
            reporter.advance(size=len(data), items=1)


def _check_ways(
    repository: Repository, cluster: ArchivedCluster, bases: Iterable[Base], check: WalCheck
) -> None:
    known = list(bases)
    if not known:
        files = count_of(len(cluster.files), "file")
        check.notices.append(
            f"The WAL archive of cluster {cluster.system} ({files}) is of no use without a base backup."
        )
        return
    try:
        timelines = read_timelines(repository, cluster)
    except RepositoryError as error:
        check.problems.append(str(error))
        return
    told: set[str] = set()
    for base in known:
        way = walk(base, timelines, timelines.after(base)[-1], cluster.files)
        if way.missing and way.missing not in told:
            told.add(way.missing)
            check.problems.append(
                f"WAL segment {way.missing} of cluster {cluster.system} is missing and later ones are there: "
                f"from the base backup in snapshot {base.snapshot} nothing after it can be reached. Make a "
                "new base backup."
            )
