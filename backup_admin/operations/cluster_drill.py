"""A drill: bring a PostgreSQL cluster back to a time that nobody chose, and see how fresh it is there."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from backup_admin.core.errors import RestoreRefused, SourceError, VerificationFailed
from backup_admin.core.shown import show_time
from backup_admin.operations.base_backups import all_bases
from backup_admin.operations.points import show_span
from backup_admin.operations.restore_cluster import prove, restore_cluster
from backup_admin.sources.postgres.address import PostgresAddress
from backup_admin.sources.postgres.recovering import stop
from backup_admin.sources.postgres.waldump import ends_of_transactions

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from backup_admin.core.clock import Clock
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.cluster_plan import ClusterPlan
    from backup_admin.operations.restore_cluster import Place
    from backup_admin.repository.repository import Repository
    from backup_admin.sources.postgres.heartbeat import Heartbeat

_MICROSECOND = timedelta(microseconds=1)
_REMOVED = "The server that was restored is stopped and removed; nothing live was touched."


@dataclass(frozen=True, slots=True)
class Canary:
    """What a drill looks at: a column of times, as which user, and how old its newest time may be."""

    heartbeat: Heartbeat
    user: str
    within: timedelta


@dataclass(frozen=True, slots=True)
class DrillReport:
    """A drill that went well: the newest heartbeat in what was restored, and how long it took."""

    moment: datetime
    heartbeat: datetime
    seconds: float


def any_moment(repository: Repository, plan: ClusterPlan, place: Place, *, reporter: Reporter) -> datetime:
    """Choose a time between the first base backup and the last transaction; `plan` leads to the newest state.

    Nothing is left in the place. Raises `RestoreRefused` when there is no such time yet.
    """
    base = plan.base
    own = (one for one in all_bases(repository) if (one.name, one.system) == (base.name, base.system))
    first = min(one.finished_at for one in own)
    prove(repository, plan, place, reporter=reporter)
    try:
        last = _last_transaction(plan, place)
    finally:
        shutil.rmtree(place.wal, ignore_errors=True)
    if last is None or last <= first:
        raise RestoreRefused(
            "No transaction behind a base backup is in the archive yet, so there is no time to go to. "
            "Nothing was written."
        )
    return first + secrets.randbelow((last - first) // _MICROSECOND) * _MICROSECOND


def _last_transaction(plan: ClusterPlan, place: Place) -> datetime | None:
    for file in reversed(plan.way.files):
        with ends_of_transactions(place.programs, place.wal, file, file) as ends:
            last = max(ends, default=None)
        if last is not None:
            return last
    return None


def drill_cluster(  # noqa: PLR0913 - a restore, and what it is judged by
    repository: Repository,
    plan: ClusterPlan,
    place: Place,
    canary: Canary,
    *,
    reporter: Reporter,
    clock: Clock,
    all_read: Callable[[], None],
) -> DrillReport:
    """Restore a cluster as `restore_cluster` does, look at its newest heartbeat, and remove it again.

    Raises `VerificationFailed` when that is later than the moment, too old, or not there, and what a restore
    raises. Whatever it raises, nothing is left; only a drill that is killed leaves its server and folder.
    """
    begun, moment = clock.monotonic(), plan.moment or clock.now()
    try:
        prove(repository, plan, place, reporter=reporter)
        restore_cluster(repository, plan, place, reporter=reporter, clock=clock, all_read=all_read)
        newest = _newest(place, canary)
    finally:
        stop(place.programs, place.folder)
        shutil.rmtree(place.folder, ignore_errors=True)
        shutil.rmtree(place.wal, ignore_errors=True)
    return DrillReport(moment, _judged(newest, moment, canary), clock.monotonic() - begun)


def _newest(place: Place, canary: Canary) -> datetime | None:
    from backup_admin.sources.postgres.heartbeat import newest_heartbeat  # noqa: PLC0415 - needs psycopg

    # Where the path is too long for a socket there is none, and libpq has to ask the port.
    sockets = sorted(place.folder.glob(".s.PGSQL.*"))
    parameters = {
        "host": str(place.folder) if sockets else "127.0.0.1",
        "port": str(place.port),
        "user": canary.user,
        "dbname": canary.heartbeat.database,
    }
    try:
        return newest_heartbeat(PostgresAddress(tuple(sorted(parameters.items()))), canary.heartbeat)
    except SourceError as error:
        raise type(error)(f"The heartbeat cannot be read: {error} {_REMOVED}") from None


def _judged(newest: datetime | None, moment: datetime, canary: Canary) -> datetime:
    """Return the newest heartbeat when it is what it has to be; raise `VerificationFailed`."""
    table = f"{canary.heartbeat.table} of {canary.heartbeat.database}"
    if newest is None:
        raise VerificationFailed(f"At {show_time(moment)} there was no heartbeat in {table}. {_REMOVED}")
    if newest > moment:
        raise VerificationFailed(
            f"Restored to {show_time(moment)}, {table} holds a later heartbeat, of {show_time(newest)}. "
            f"{_REMOVED}"
        )
    if moment - newest > canary.within:
        raise VerificationFailed(
            f"Restored to {show_time(moment)}, the newest heartbeat in {table} is of {show_time(newest)}, "
            f"{show_span(moment - newest)} before; {show_span(canary.within)} are allowed. {_REMOVED}"
        )
    return newest
