"""Base backups of PostgreSQL clusters in the manifests of a repository, and the WAL each needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import Damaged, UsageError
from backup_admin.operations.wal_archive import ArchivedCluster, archived_clusters
from backup_admin.repository.wal import wal_name
from backup_admin.sources.postgres.wal_files import Segment, parse_segment, timeline_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import DatabaseEntry, Manifest
    from backup_admin.sources.postgres.cluster import BaseFacts
    from backup_admin.sources.postgres.wal_files import Switch

CLUSTER_FORMAT = "cluster"


@dataclass(frozen=True, slots=True)
class Base:
    """A base backup: `start` and `end` are places in the WAL, `finished_at` is by the server's clock."""

    snapshot: str
    name: str
    system: str
    timeline: int
    start: int
    end: int
    segment_bytes: int
    finished_at: datetime
    server_version: str

    @property
    def first(self) -> int:
        """Return the number of the first segment that recovery reads."""
        return self.start // self.segment_bytes

    @property
    def last(self) -> int:
        """Return the number of the last segment that lies in the backup itself."""
        return self.end // self.segment_bytes


@dataclass(frozen=True, slots=True)
class WalPath:
    """The segments that lead on from a base backup, without a gap.

    `missing` is the first that is not there though later ones are; empty without such a gap.
    """

    timeline: int
    files: tuple[str, ...]
    missing: str = ""


def describe_base(facts: BaseFacts) -> dict[str, object]:
    """Return what a manifest keeps of a base backup."""
    return {
        "system": facts.system,
        "timeline": facts.timeline,
        "start": facts.start,
        "end": facts.end,
        "segment_bytes": facts.segment_bytes,
        "finished_at": format_time(facts.finished_at),
        "verified_by": facts.verified_by,
    }


def bases_in(manifest: Manifest) -> tuple[Base, ...]:
    """Return the base backups of a snapshot; raise `Damaged`."""
    entries = [entry for entry in manifest.databases if entry.format == CLUSTER_FORMAT]
    return tuple(_base_of(manifest.snapshot.id, entry) for entry in entries)


def _base_of(snapshot: str, entry: DatabaseEntry) -> Base:
    details = entry.details
    try:
        return Base(
            snapshot,
            entry.name,
            str(details["system"]),
            int(details["timeline"]),
            int(details["start"]),
            int(details["end"]),
            int(details["segment_bytes"]),
            parse_time(str(details["finished_at"])),
            entry.engine_version,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"Snapshot {snapshot}: the base backup {entry.name} lacks {error}.") from error


def refuse_cluster(entry: DatabaseEntry) -> None:
    """Refuse to take a base backup for a database that could go into a live one; raise `UsageError`."""
    if entry.format == CLUSTER_FORMAT:
        raise UsageError(
            f"{entry.name!r} is the base backup of a whole server, and no single database: only `cluster "
            "restore` makes anything of it. Nothing was touched."
        )


def all_bases(repository: Repository, unreadable: list[str] | None = None) -> tuple[Base, ...]:
    """Return the base backups of all snapshots that can be read, in the order of their commits.

    One that cannot be read keeps nobody from the others; `unreadable` gets its id.
    """
    found: list[Base] = []
    for snapshot_id in repository.snapshot_ids():
        if snapshot_id in repository.history.damaged:
            continue
        try:
            found += bases_in(repository.manifest(snapshot_id))
        except Damaged:
            if unreadable is not None:
                unreadable.append(snapshot_id)
    return tuple(found)


def obsolete_files(cluster: ArchivedCluster, bases: Iterable[Base]) -> dict[str, int]:
    """Return the files that no base backup needs, with their sizes.

    They are older than the oldest of them. Without any base backup nothing is, and nothing of a timeline
    that is newer than that of all base backups: its first may be under way, and a server that went back in
    time begins with a smaller number. Histories stay, they tell which way later timelines came.
    """
    of_this = [base for base in bases if base.system == cluster.system]
    if not of_this:
        return {}
    oldest, newest = min(base.first for base in of_this), max(base.timeline for base in of_this)
    sizes = {base.segment_bytes for base in of_this}
    if len(sizes) > 1:
        return {}
    segment_bytes = sizes.pop()
    found = {}
    for file, size in cluster.files.items():
        segment = parse_segment(file, segment_bytes)
        if segment is not None and segment.number < oldest and segment.timeline <= newest:
            found[file] = size
    return found


def obsolete_wal(repository: Repository, bases: Iterable[Base]) -> dict[str, int]:
    """Return the objects of all archives that no base backup needs, with their sizes."""
    known = tuple(bases)
    return {
        wal_name(cluster.system, file): size
        for cluster in archived_clusters(repository).values()
        for file, size in obsolete_files(cluster, known).items()
    }


@dataclass(frozen=True, slots=True)
class Timelines:
    """The timelines an archive tells of, each with those before it."""

    histories: Mapping[int, tuple[Switch, ...]] = field(default_factory=dict)

    def after(self, base: Base) -> tuple[int, ...]:
        """Return the timelines that can be reached from a base backup, in order of number."""
        found = {base.timeline}
        for timeline, history in self.histories.items():
            if any(one.timeline == base.timeline and one.at >= base.end for one in history):
                found.add(timeline)
        return tuple(sorted(found))


def walk(base: Base, timelines: Timelines, target: int, files: Mapping[str, int]) -> WalPath:
    """Follow the segments from a base backup along the way to a timeline, as far as there are any.

    Those up to the end of the base backup lie in it too, so that they may be missing.
    """
    history = timelines.histories.get(target, ())
    numbers = [
        segment.number
        for file in files
        if "." not in file and (segment := parse_segment(file, base.segment_bytes)) is not None
    ]
    newest = max(numbers, default=-1)
    found: list[str] = []
    number = base.first
    while number <= max(newest, base.last):
        ways = timeline_for(history, target, number, base.segment_bytes)
        names = [Segment(timeline, number).file(base.segment_bytes) for timeline in ways]
        name = next((name for name in names if name in files), "")
        if name:
            found.append(name)
        elif number > base.last:
            later = any(_is_on_way(file, number, ways[0], base.segment_bytes) for file in files)
            return WalPath(target, tuple(found), names[0] if later else "")
        number += 1
    return WalPath(target, tuple(found))


def _is_on_way(file: str, number: int, timeline: int, segment_bytes: int) -> bool:
    segment = None if "." in file else parse_segment(file, segment_bytes)
    return segment is not None and segment.number > number and segment.timeline >= timeline
