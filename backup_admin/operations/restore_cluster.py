"""Restore a PostgreSQL cluster to a time, into a new folder and port: prove it, write it, let it recover."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.durable import make_folders
from backup_admin.core.errors import RestoreRefused, VerificationFailed
from backup_admin.core.programs import run_program
from backup_admin.core.shown import show_time
from backup_admin.operations.stage_tree import write_tree
from backup_admin.operations.wal_archive import fetch_file
from backup_admin.repository.shards import sound_entries
from backup_admin.sources.postgres.clients import why
from backup_admin.sources.postgres.recovering import Recovery, configure, need_plain_path, start
from backup_admin.sources.postgres.waldump import ends_of_transactions
from backup_admin.sources.tree import TreeWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.cluster_plan import ClusterPlan
    from backup_admin.repository.repository import Repository
    from backup_admin.repository.types import FilesRoot
    from backup_admin.sources.postgres.clients import ClientPrograms

_FEW_FILES = 1000
_MARGIN = 1.05
_WAIT_SECONDS = 0.1
_CLOCK_STEPS = timedelta(hours=1)
_TIMELINE_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a cluster comes back: a new folder, a port of its own, and the programs that run it."""

    folder: Path
    port: int
    programs: ClientPrograms

    @property
    def wal(self) -> Path:
        """Where the WAL waits for the recovery, beside the cluster."""
        return self.folder.with_name(f"{self.folder.name}.wal")


@dataclass(frozen=True, slots=True)
class Proven:
    """What the WAL that was fetched shows: its files, and when transactions ended.

    `after` is the first end of a transaction behind the moment, `last` the last one up to it that was seen.
    """

    files: int
    bytes: int
    last: datetime | None
    after: datetime | None


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """A cluster that recovered and runs."""

    last_transaction: datetime | None
    bytes_written: int


def check_place(place: Place) -> None:
    """Raise `RestoreRefused` when something is in the way; a cluster never goes over another."""
    folder = place.folder
    need_plain_path(folder)
    if os.geteuid() == 0:
        raise RestoreRefused(
            "A PostgreSQL server does not run as root. Nothing was written; run this as the user it shall "
            "belong to: sudo -u postgres …"
        )
    for path in (folder, place.wal):
        if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
            raise RestoreRefused(f"{path} is there and not empty. Nothing was written; name a new folder.")
    with closing(socket.socket()) as probe:
        if probe.connect_ex(("127.0.0.1", place.port)) == 0:
            raise RestoreRefused(f"Something listens at port {place.port} already. Nothing was written.")


def prove(repository: Repository, plan: ClusterPlan, place: Place, *, reporter: Reporter) -> Proven:
    """Fetch the WAL the way needs and see that it leads there; raise `RestoreRefused` where it does not.

    A server that is to stop at a time must find the end of a transaction behind that time, or it refuses
    to open at the end of its WAL: that is looked for here, before a large cluster is written. Nothing is
    fetched where there is no room for all, and no more as soon as there is none left.
    """
    run = _Proof(repository, plan, place, reporter)
    run.check_room()
    make_folders(place.wal)
    try:
        return run.fetch()
    except BaseException:
        shutil.rmtree(place.wal, ignore_errors=True)
        raise


class _Proof:
    def __init__(self, repository: Repository, plan: ClusterPlan, place: Place, reporter: Reporter) -> None:
        self._repository = repository
        self._plan = plan
        self._place = place
        self._reporter = reporter
        self._files = self._bytes = 0
        self._last: datetime | None = None
        self._cluster_bytes = round(_tree_of(repository, plan).size * _MARGIN)

    def check_room(self) -> None:
        """Raise `RestoreRefused` without room for the cluster, and for what WAL it certainly takes."""
        # How many segments lead to a moment is known only when they were looked into.
        segments = 1 if self._plan.moment is not None else len(self._plan.way.files)
        self._need_room(segments)

    def _need_room(self, segments: int) -> None:
        needed = self._cluster_bytes + segments * self._plan.base.segment_bytes
        free = _free_near(self._place.wal)
        if free < needed:
            raise RestoreRefused(
                f"{self._place.folder.parent} has {free / 1e6:.0f} MB free; at least {needed / 1e6:.0f} MB "
                "are needed for the cluster and the WAL that leads on. Nothing is left there; name a folder "
                "on another disk."
            )

    def fetch(self) -> Proven:
        """Fetch file after file, as far as the moment needs."""
        way, moment = self._plan.way, self._plan.moment
        for file in self._plan.histories:
            self._fetch(file)
        self._reporter.stage("restore", total_items=len(way.files))
        before = ""
        after = None
        for file in way.files:
            self._reporter.check_cancelled()
            archived_at = self._fetch(file)
            # What ended in a segment ended before it was archived, by the clock of the same machine.
            if moment is not None and archived_at + _CLOCK_STEPS > moment:
                after = self._first_after(before, file, moment)
            if after is not None:
                break
            before = file
        if after is None and self._last is None and way.files:
            self._first_after("", way.files[-1], None)
        if moment is not None and after is None:
            raise RestoreRefused(self._too_late(moment))
        return Proven(self._files, self._bytes, self._last, after)

    def _fetch(self, file: str) -> datetime:
        """Fetch a file; return when it was archived."""
        self._need_room(1)
        head = fetch_file(self._repository, self._plan.base.system, file, self._place.wal / file)
        self._files += 1
        self._bytes += head.size
        self._reporter.advance(size=head.size, items=1)
        return head.archived_at

    def _first_after(self, before: str, file: str, moment: datetime | None) -> datetime | None:
        """Return the first end of a transaction behind the moment; records may begin in the file before."""
        same = before[:_TIMELINE_DIGITS] == file[:_TIMELINE_DIGITS]
        first = before if same else file
        with ends_of_transactions(self._place.programs, self._place.wal, first, file) as ends:
            for end in ends:
                if moment is not None and end > moment:
                    return end
                self._last = end
        return None

    def _too_late(self, moment: datetime) -> str:
        way, base = self._plan.way, self._plan.base
        reason = (
            f"WAL segment {way.missing} is missing, though later ones are there"
            if way.missing
            else "no transaction after that time is in the archive, so a server cannot know that it is there"
        )
        last = self._last or base.finished_at
        return (
            f"{show_time(moment)} cannot be reached: {reason}. The last transaction that can be reached "
            f"ended at {show_time(last)}. Nothing was written. Name a time before, or leave --at out: that "
            "goes to the end of the archive."
        )


def _free_near(path: Path) -> int:
    """Return the bytes that are free where a path is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def restore_cluster(
    repository: Repository,
    plan: ClusterPlan,
    place: Place,
    *,
    reporter: Reporter,
    clock: Clock,
    all_read: Callable[[], None] = lambda: None,
) -> ClusterReport:
    """Write the base backup, verify it with `pg_verifybackup`, and let it recover with what `prove` fetched.

    The cluster runs afterwards, under its own port. Raises `VerificationFailed` or `SourceError`; what was
    written stays then, to be looked at. Nothing that is live is touched.
    """
    size = _write(repository, _tree_of(repository, plan), place.folder, reporter)
    all_read()
    command = [str(place.programs.folder / "pg_verifybackup"), "--quiet", str(place.folder)]
    done = run_program(command, timeout_seconds=86_400.0)
    if done.status != 0:
        raise VerificationFailed(
            f"What was written to {place.folder} is not the base backup: pg_verifybackup {why(done)}. It was "
            "not started. Nothing that is live was touched; remove the folder and verify the snapshot."
        )
    recovery = Recovery(place.folder, place.wal, place.port, plan.way.timeline, plan.moment)
    configure(recovery)
    reporter.stage("verify")

    def wait() -> None:
        reporter.check_cancelled()
        clock.sleep(_WAIT_SECONDS)

    recovered = start(place.programs, recovery, wait)
    shutil.rmtree(place.wal, ignore_errors=True)
    return ClusterReport(recovered.last_transaction, size)


def _tree_of(repository: Repository, plan: ClusterPlan) -> FilesRoot:
    manifest = repository.manifest(plan.base.snapshot)
    tree = next(one.tree for one in manifest.databases if one.name == plan.base.name)
    if tree is None:
        raise VerificationFailed(f"The base backup {plan.base.name} has no files. Nothing was written.")
    return tree


def _write(repository: Repository, tree: FilesRoot, folder: Path, reporter: Reporter) -> int:
    make_folders(folder)
    free = shutil.disk_usage(folder).free
    if free < tree.size * _MARGIN:
        raise RestoreRefused(
            f"{folder} has {free / 1e6:.0f} MB free and {tree.size * _MARGIN / 1e6:.0f} MB are needed. "
            "Nothing was written."
        )
    reporter.stage("restore", total_bytes=tree.size, total_items=tree.file_count)
    problems: list[str] = []
    reader = repository.reader()
    with TreeWriter(folder, few_files=tree.file_count <= _FEW_FILES) as writer:
        report = write_tree(
            sound_entries(reader, tree, problems.append), writer, reader=reader, reporter=reporter
        )
        writer.finish(tree.mode, tree.mtime_ns)
    problems += report.problems
    if problems:
        raise VerificationFailed(
            f"The base backup in {folder} is not whole: {problems[0]}. It was not started. Nothing that is "
            "live was touched; remove the folder."
        )
    return report.size
