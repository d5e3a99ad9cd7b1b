"""The verbs for whole PostgreSQL clusters: what there is of them, and getting one back to a time."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backup_admin.cli.opening import Surroundings, actor, open_given, repository_options
from backup_admin.cli.printing import say
from backup_admin.core.clock import format_time
from backup_admin.core.ids import SnapshotId
from backup_admin.core.shown import columns, count_of, show_size, show_time
from backup_admin.operations.answers import Answer
from backup_admin.operations.base_backups import all_bases
from backup_admin.operations.cluster_drill import Canary, any_moment, drill_cluster
from backup_admin.operations.cluster_plan import plan_cluster
from backup_admin.operations.pinning import pinned_meanwhile
from backup_admin.operations.points import parse_moment, show_span
from backup_admin.operations.restore_cluster import Place, check_place, prove, restore_cluster
from backup_admin.operations.wal_archive import archived_clusters
from backup_admin.sources.postgres.server_programs import server_programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from backup_admin.operations.base_backups import Base
    from backup_admin.operations.cluster_drill import DrillReport
    from backup_admin.operations.cluster_plan import ClusterPlan
    from backup_admin.operations.restore_cluster import ClusterReport, Proven
    from backup_admin.operations.wal_archive import ArchivedCluster

_STOPPED = "Nothing that is live was touched; remove the new folder."

_to = click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new folder."
)
_port = click.option("--port", type=click.IntRange(1, 65_535), required=True, help="A port that is free.")
_programs = click.option(
    "--programs", type=click.Path(path_type=Path), metavar="DIR", help="Where pg_ctl and the others lie."
)


@click.group("cluster", subcommand_metavar="VERB [ARGUMENTS]...")
def cluster_verb() -> None:
    """Base backups of whole PostgreSQL servers with their WAL: see them, and get one back to a time."""


@cluster_verb.command("list")
@click.argument("storage")
@repository_options
@click.pass_obj
def list_verb(
    surroundings: Surroundings, *, storage: str, key_file: Path | None, state_dir: Path | None
) -> Answer:
    """List base backups, oldest first, and the WAL that is archived."""
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    unreadable: list[str] = []
    bases, archives = all_bases(repository, unreadable), archived_clusters(repository)
    return Answer(
        {
            "base_backups": [_describe(base) for base in bases],
            "archives": [
                {"system": one.system, "files": len(one.files), "stored_bytes": one.size}
                for one in archives.values()
            ],
        },
        lines=_list_lines(bases, tuple(archives.values())),
        notes=[f"note: {_cannot_be_read(one)}" for one in unreadable],
    )


def _cannot_be_read(snapshot: str) -> str:
    return f"Snapshot {snapshot} cannot be read; a base backup in it does not count. `check` says why."


def _describe(base: Base) -> dict[str, Any]:
    return {
        "snapshot": base.snapshot,
        "name": base.name,
        "system": base.system,
        "timeline": base.timeline,
        "finished_at": format_time(base.finished_at),
        "server_version": base.server_version,
    }


def _list_lines(bases: Sequence[Base], archives: Sequence[ArchivedCluster]) -> Iterator[str]:
    if not bases:
        yield "There is no base backup yet: run STORAGE --postgres-cluster NAME=ADDRESS makes one."
    rows = [
        (base.snapshot, base.name, show_time(base.finished_at), base.server_version, base.system)
        for base in bases
    ]
    yield from columns([("SNAPSHOT", "NAME", "ENDED", "SERVER", "CLUSTER"), *rows] if rows else [])
    for one in archives:
        files = count_of(len(one.files), "file")
        yield f"WAL of cluster {one.system}: {files}, {show_size(one.size)} stored."


@cluster_verb.command("restore")
@click.argument("name")
@click.argument("storage")
@_to
@_port
@click.option("--at", default="", metavar="TIME", help="The time to go to; else the newest state.")
@click.option("--timeline", type=click.IntRange(min=1), default=None, help="Else the newest there is.")
@_programs
@click.option("--dry-run", is_flag=True, help="Only prove that the time can be reached.")
@click.option("--no-pin", is_flag=True, help="Write nothing to the storage, as for a mirror.")
@repository_options
@click.pass_obj
def restore_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    name: str,
    storage: str,
    target: Path,
    port: int,
    at: str,
    timeline: int | None,
    programs: Path | None,
    dry_run: bool,
    no_pin: bool,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Restore a whole PostgreSQL server to a time, as a new one beside the live one.

    NAME is the one the base backup was made under. The time is proven to be reachable before anything is
    written. The new server runs afterwards, on this machine only; the live one is never touched.
    """
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    moment = parse_moment(at, surroundings.clock.now()) if at else None
    plan = plan_cluster(repository, name, moment=moment, timeline=timeline or 0)
    place = _new_place(target, port, plan, programs)
    say(_plan_line(plan))
    notices = [_cannot_be_read(one) for one in plan.unreadable]
    with surroundings.reporting(_STOPPED) as reporter, ExitStack() as stack:
        when_read = {}
        if not (no_pin or dry_run):
            pin = pinned_meanwhile(
                repository,
                SnapshotId(plan.base.snapshot),
                actor=actor(),
                clock=surroundings.clock,
                warn=notices.append,
            )
            when_read = {"all_read": stack.enter_context(pin)}
        proven = prove(repository, plan, place, reporter=reporter)
        if dry_run:
            shutil.rmtree(place.wal, ignore_errors=True)
            return _answer(plan, proven, None, place, notices)
        report = restore_cluster(
            repository, plan, place, reporter=reporter, clock=surroundings.clock, **when_read
        )
    return _answer(plan, proven, report, place, notices)


@cluster_verb.command("drill")
@click.argument("name")
@click.argument("storage")
@_to
@_port
@click.option(
    "--heartbeat",
    required=True,
    metavar="DATABASE:TABLE.COLUMN",
    help="Where somebody keeps writing the time.",
)
@click.option(
    "--within",
    type=click.IntRange(min=1),
    default=300,
    metavar="SECONDS",
    help="How old it may be; else 300.",
)
@click.option("--user", default="postgres", help="Who reads it; else postgres.")
@click.option("--at", default="", metavar="TIME", help="The time to go to; else any one.")
@_programs
@repository_options
@click.pass_obj
def drill_verb(  # noqa: PLR0913  one parameter for each option
    surroundings: Surroundings,
    *,
    name: str,
    storage: str,
    target: Path,
    port: int,
    heartbeat: str,
    within: int,
    user: str,
    at: str,
    programs: Path | None,
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Try a restore of a whole PostgreSQL server to any time, look how fresh it is there, and remove it.

    It succeeds when the newest heartbeat is not later than the time, and not older than allowed.
    """
    from backup_admin.sources.postgres.heartbeat import parse_heartbeat  # noqa: PLC0415 - needs psycopg

    canary = Canary(parse_heartbeat(heartbeat), user, timedelta(seconds=within))
    repository, _ = open_given(surroundings, storage, key_file, state_dir)
    moment = parse_moment(at, surroundings.clock.now()) if at else None
    plan = plan_cluster(repository, name, moment=moment)
    place = _new_place(target, port, plan, programs)
    with surroundings.reporting(_STOPPED) as reporter:
        if moment is None:
            moment = any_moment(repository, plan, place, reporter=reporter)
            plan = plan_cluster(repository, name, moment=moment)
        say(_plan_line(plan))
        notices = [_cannot_be_read(one) for one in plan.unreadable]
        pin = pinned_meanwhile(
            repository,
            SnapshotId(plan.base.snapshot),
            actor=actor(),
            clock=surroundings.clock,
            warn=notices.append,
        )
        with pin as all_read:
            report = drill_cluster(
                repository,
                plan,
                place,
                canary,
                reporter=reporter,
                clock=surroundings.clock,
                all_read=all_read,
            )
    return _drill_answer(plan, report, within, notices)


def _drill_answer(plan: ClusterPlan, report: DrillReport, within: int, notices: list[str]) -> Answer:
    behind = report.moment - report.heartbeat
    return Answer(
        {
            "base": _describe(plan.base),
            "moment": format_time(report.moment),
            "heartbeat": format_time(report.heartbeat),
            "behind_seconds": round(behind.total_seconds(), 3),
            "within_seconds": within,
            "took_seconds": round(report.seconds, 1),
            "notices": notices,
        },
        lines=[
            f"The newest heartbeat is {show_span(behind)} older than the time; the restore took "
            f"{report.seconds:.0f} s. The restored server is stopped and removed."
        ],
        notes=[f"note: {notice}" for notice in notices],
    )


def _new_place(target: Path, port: int, plan: ClusterPlan, programs: Path | None) -> Place:
    major = int(plan.base.server_version.partition(".")[0])
    place = Place(target.expanduser().absolute(), port, server_programs(major, programs))
    check_place(place)
    return place


def _plan_line(plan: ClusterPlan) -> str:
    base = plan.base
    others = f" (--timeline: {', '.join(map(str, plan.others))})" if plan.others else ""
    return (
        f"From the base backup of {show_time(base.finished_at)} (snapshot {base.snapshot}) along timeline "
        f"{plan.way.timeline}{others} to {_shown(plan.moment) or 'the newest state'}."
    )


def _answer(
    plan: ClusterPlan, proven: Proven, report: ClusterReport | None, place: Place, notices: list[str]
) -> Answer:
    last = proven.last if report is None else report.last_transaction or proven.last
    result = {
        "base": _describe(plan.base),
        "timeline": plan.way.timeline,
        "moment": None if plan.moment is None else format_time(plan.moment),
        "last_transaction": None if last is None else format_time(last),
        "next_transaction": None if proven.after is None else format_time(proven.after),
        "wal_files": proven.files,
        "dry_run": report is None,
        "target": str(place.folder),
        "port": place.port,
        "notices": notices,
    }
    lines = [f"The time can be reached; the last transaction in it ended at {_shown(last) or 'no time'}."]
    if report is not None:
        lines = [
            f"The cluster runs in {place.folder} at port {place.port} of this machine; its last transaction "
            f"ended at {_shown(last) or 'no time'}.",
            f"To stop it: {place.programs.folder / 'pg_ctl'} stop -D {place.folder}",
        ]
    return Answer(result, lines=lines, notes=[f"note: {notice}" for notice in notices])


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else show_time(moment)
