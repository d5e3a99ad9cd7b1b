"""Whole PostgreSQL servers of an app: base backups by the worker, and what of their WAL is archived."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from backup_admin.control import engine, onboarding
from backup_admin.control.runs import NOBODY, NewRun, create_run, hand_on
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.clock import format_time, parse_time
from backup_admin.core.errors import BackupAdminError, Busy, ConfigurationError
from backup_admin.core.version import VERSION
from backup_admin.operations.backup import back_up
from backup_admin.operations.results import BackupOptions, SourceSet
from backup_admin.records import BackupRun, RunKind, RunStatus, Trigger
from backup_admin.repository.repository import open_repository
from backup_admin.repository.secrets import parse_application_key, read_key_file
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.cluster import ClusterSource
from backup_admin.storage.open import local_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.core.parsing import ClusterSetting
    from backup_admin.core.progress import Reporter
    from backup_admin.operations.results import BackupResult
    from backup_admin.sources.postgres.address import PostgresAddress
    from backup_admin.storage.base import Storage

STATE_KEY = "clusters.state"
GRACE = timedelta(hours=1)
"""How late a base backup may be; also how soon one that failed is tried again, at the most."""
_LOOK_EVERY = timedelta(seconds=60)
_SILENT_AFTER = timedelta(minutes=4)
_GOOD = (RunStatus.COMPLETED, RunStatus.DEGRADED)
_ACTIVE = (RunStatus.QUEUED, RunStatus.RUNNING)
_NOBODY = "nobody looks at it; `flask backup worker` does"


@dataclass(frozen=True, slots=True)
class ClusterView:
    """One server for a page: when it last handed over WAL, and after how many seconds it must."""

    name: str
    place: str
    storage: str
    every_hours: int
    problem: str
    base_at: datetime | None
    last_id: str
    last_status: str
    archived_at: datetime | None
    timeout_seconds: int


def take_base(
    session: Session, installation: Installation, run: BackupRun, reporter: Reporter
) -> BackupResult:
    """Take the base backup that a run asks for; raises what a backup raises, and `ConfigurationError`."""
    setting = _find(installation, run.label)
    address = _address(setting)
    key = installation.key() if setting.key_file is None else read_key_file(setting.key_file)
    storage = engine.open_chosen(setting.storage, installation.settings)
    _need_own_folder(setting, storage)
    secret = parse_application_key(key.reveal())
    repository = open_repository(storage, secret, state=installation.state, clock=installation.clock)
    if repository.repo_id == read_value(session, onboarding.REPOSITORY_KEY, ""):
        raise ConfigurationError(
            f"BACKUP_ADMIN_POSTGRES_CLUSTERS: {setting.name} names the repository of the app. Base backups "
            "need one of their own: `latest` and the policy look at all snapshots alike. Nothing was made."
        )
    session.commit()  # hold no transaction during the work
    return back_up(
        repository,
        SourceSet(clusters=(ClusterSource(setting.name, address),)),
        options=BackupOptions(
            label=setting.name,
            kind="scheduled",
            actor=run.actor_name or run.trigger.value,
            app_version=VERSION,
        ),
        state=installation.state,
        reporter=reporter,
        clock=installation.clock,
    )


def tick(session: Session, installation: Installation) -> tuple[str, ...]:
    """Start the base backups that are due, and look how the servers archive; return the ids of the runs."""
    if not installation.settings.postgres_clusters or installation.settings.read_only:
        return ()
    _look(session, installation)
    started = []
    for setting in installation.settings.postgres_clusters:
        if not _is_due(session, installation, setting):
            continue
        new = NewRun(kind=RunKind.CLUSTER, trigger=Trigger.SCHEDULED, label=setting.name)
        with suppress(Busy):  # that of another server is under way; this one follows it
            run = create_run(session, installation, new, NOBODY)
            hand_on(session, installation, run)
            started.append(run.id)
    return tuple(started)


def views(session: Session, installation: Installation) -> tuple[ClusterView, ...]:
    """Return the servers that are set, in that order; asks none of them."""
    if not installation.settings.postgres_clusters:
        return ()
    states, now = _read_states(session), installation.clock.now()
    return tuple(
        _view(session, setting, states.get(setting.name, {}), now)
        for setting in installation.settings.postgres_clusters
    )


def find_view(session: Session, installation: Installation, name: str) -> ClusterView | None:
    """Return a server by its name; None when it is not set any more."""
    return next((one for one in views(session, installation) if one.name == name), None)


def risks(session: Session, installation: Installation) -> Iterator[str]:
    """Say which servers could not be brought back as far as they should."""
    now = installation.clock.now()
    for view in views(session, installation):
        if view.problem:
            yield f"the server {view.name} is not followed: {view.problem}."
        last = _newest(session, view.name, (*_GOOD, RunStatus.FAILED, RunStatus.INTERRUPTED))
        if last is not None and last.status not in _GOOD:
            yield f"the last base backup of {view.name} was {last.status.value}: {last.error_message}"
        elif view.base_at is None or now - view.base_at > timedelta(hours=view.every_hours) + GRACE:
            made = f"was made {view.base_at:%Y-%m-%d %H:%M} UTC" if view.base_at else "was never made"
            yield f"the base backup of {view.name} is overdue: it {made}."


def _find(installation: Installation, name: str) -> ClusterSetting:
    for setting in installation.settings.postgres_clusters:
        if setting.name == name:
            return setting
    raise ConfigurationError(f"BACKUP_ADMIN_POSTGRES_CLUSTERS has no {name!r}. Nothing was made.")


def _address(setting: ClusterSetting) -> PostgresAddress:
    try:
        return parse_postgres_address(setting.address)
    except BackupAdminError as error:
        raise ConfigurationError(f"BACKUP_ADMIN_POSTGRES_CLUSTERS: {setting.name}: {error}") from error


def _need_own_folder(setting: ClusterSetting, storage: Storage) -> None:
    """What we write to a folder of another is ours alone, and would keep its server from archiving."""
    folder = local_folder(storage)
    if folder is not None and folder.stat().st_uid != os.geteuid():
        raise ConfigurationError(
            f"BACKUP_ADMIN_POSTGRES_CLUSTERS: {setting.name}: {folder} belongs to another user than the one "
            "this worker runs as, and that user could not read what is written there. Run the worker as that "
            "user, let that user take the base backups with `backup-admin run --postgres-cluster`, or use a "
            "bucket. Nothing was made."
        )


def _is_due(session: Session, installation: Installation, setting: ClusterSetting) -> bool:
    last = _newest(session, setting.name, tuple(RunStatus))
    if last is None:
        return True
    if last.status in _ACTIVE:
        return False
    every = timedelta(hours=setting.every_hours)
    wait = every if last.status in _GOOD else min(every, GRACE)
    return last.created_at + wait <= installation.clock.now()


def _newest(session: Session, name: str, statuses: tuple[RunStatus, ...]) -> BackupRun | None:
    row = BackupRun
    found = select(row).where(row.kind == RunKind.CLUSTER, row.label == name, row.status.in_(statuses))
    return session.scalar(found.order_by(row.created_at.desc(), row.id.desc()).limit(1))


def _look(session: Session, installation: Installation) -> None:
    """Ask each server how it archives, once a minute whoever asks."""
    states, now = _read_states(session), installation.clock.now()
    noted = [parse_time(state["noted_at"]) for state in states.values()]
    names = {setting.name for setting in installation.settings.postgres_clusters}
    if names <= set(states) and noted and now - min(noted) < _LOOK_EVERY:
        return
    session.commit()  # hold no transaction while servers are asked
    rows = [_ask(setting, now) for setting in installation.settings.postgres_clusters]
    write_value(session, installation.clock, STATE_KEY, rows)
    session.commit()


def _ask(setting: ClusterSetting, now: datetime) -> dict[str, Any]:
    from backup_admin.sources.postgres.archiver import ask_archiver  # noqa: PLC0415 - slow to load

    row: dict[str, Any] = {"name": setting.name, "noted_at": format_time(now), "timeout": 0, "problem": ""}
    try:
        found = ask_archiver(_address(setting))
    except BackupAdminError as error:
        return {**row, "problem": str(error).removesuffix(".")}
    problem = ""
    if not found.is_on:
        problem = "its WAL is not archived (archive_mode is off): only the base backups can be restored"
    elif found.is_failing:
        problem = "its archive_command fails; it keeps its WAL meanwhile, and its log says why"
    last = {} if found.last_at is None else {"archived_at": format_time(found.last_at)}
    return {**row, **last, "timeout": found.timeout_seconds, "problem": problem}


def _view(session: Session, setting: ClusterSetting, state: dict[str, Any], now: datetime) -> ClusterView:
    base = _newest(session, setting.name, _GOOD)
    last = _newest(session, setting.name, tuple(RunStatus))
    problem = str(state.get("problem", ""))
    if not state or now - parse_time(state["noted_at"]) > _SILENT_AFTER:
        problem = _NOBODY
    try:
        place = _address(setting).label
    except ConfigurationError as error:
        place, problem = "", str(error).removesuffix(".")
    return ClusterView(
        name=setting.name,
        place=place,
        storage=setting.storage.partition("?")[0],
        every_hours=setting.every_hours,
        problem=problem,
        base_at=base.created_at if base is not None else None,
        last_id=last.id if last is not None else "",
        last_status=last.status.value if last is not None else "",
        archived_at=parse_time(state["archived_at"]) if state.get("archived_at") else None,
        timeout_seconds=int(state.get("timeout", 0)),
    )


def _read_states(session: Session) -> dict[str, dict[str, Any]]:
    """Return what was noted of each server; what cannot be read counts as not noted."""
    found = {}
    rows = read_value(session, STATE_KEY, [])
    for row in rows if isinstance(rows, list) else ():
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            parse_time(row["noted_at"])
            found[str(row["name"])] = dict(row)
    return found
