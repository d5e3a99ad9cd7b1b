"""Examine a deployment: everything a backup and a restore need, one finding each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from backup_admin.control import app_streams, engine, onboarding
from backup_admin.control.copies import count_copies
from backup_admin.control.destinations import read_states
from backup_admin.control.installation import QueueUnavailable
from backup_admin.control.journals import unfinished
from backup_admin.control.liveness import ProcessRole, last_seen
from backup_admin.core.errors import BackupAdminError
from backup_admin.core.ids import new_ulid
from backup_admin.core.shown import count_of
from backup_admin.records.upgrade import is_current, require_current
from backup_admin.sources.postgres.presence import driver_version, program_versions
from backup_admin.storage.probe import probe_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation


class Health(StrEnum):
    """How good a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined."""

    topic: str
    health: Health
    message: str


def examine(session: Session, installation: Installation) -> tuple[Finding, ...]:
    """Examine everything; writes a probe object to the storage and deletes it again."""
    findings = [_found("control database", lambda: _database(installation))]
    findings += [
        _found("state folder", lambda: _state_folder(installation)),
        _found("application key", lambda: _key(installation)),
    ]
    if is_current(installation.database):
        findings += [*_sources(session, installation), *_places(session, installation)]
        findings += _processes(session, installation)
    return tuple(findings)


def _found(topic: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(topic, Health.OK, look())
    except BackupAdminError as error:
        return Finding(topic, Health.FAIL, str(error))


def _database(installation: Installation) -> str:
    require_current(installation.database)
    return "up to date"


def _state_folder(installation: Installation) -> str:
    folder = installation.state.root
    if not folder.is_dir():
        raise BackupAdminError(f"{folder} is not there; run `flask backup init`.")
    installation.require_private_state()
    return f"{folder}, closed to others"


def _key(installation: Installation) -> str:
    installation.key()
    return "there, and well formed"


def _sources(session: Session, installation: Installation) -> Iterator[Finding]:
    try:
        states = engine.describe_sources(session, installation)
    except BackupAdminError as error:
        yield Finding("sources", Health.FAIL, str(error))
        return
    if not states:
        yield Finding("sources", Health.FAIL, "nothing is named to protect")
    for one in states:
        health = Health.FAIL if one.problem else Health.OK
        yield Finding(f"{one.kind} {one.name}", health, one.problem or one.place)
    if engine.needs_postgres(installation.settings):
        yield _found("psycopg", driver_version)
        yield _found("pg_dump", program_versions)


def _places(session: Session, installation: Installation) -> Iterator[Finding]:
    yield _found("storage", lambda: _storage(session, installation))
    yield _found("repository", lambda: _repository(session, installation))
    yield from _copies(session)
    confirmed = onboarding.is_recovery_confirmed(session)
    health = Health.OK if confirmed else Health.FAIL
    yield Finding("recovery key", health, "confirmed" if confirmed else "not confirmed yet")


def _storage(session: Session, installation: Installation) -> str:
    storage = engine.open_storage(session, installation)
    if probe_storage(storage, new_ulid(installation.clock.now())).may_delete:
        return f"{storage.label}: written, read back, deleted"
    return f"{storage.label}: written and read back; the key may not delete, so 4 kB stay until a prune"


def _repository(session: Session, installation: Installation) -> str:
    repository = engine.open_repository(session, installation)
    if repository.history_warning:
        raise BackupAdminError(repository.history_warning)
    return f"{repository.repo_id[:12]}, {count_of(len(repository.snapshot_ids()), 'snapshot')}"


def _copies(session: Session) -> Iterator[Finding]:
    states = read_states(session)
    if states:
        rule = count_copies(states)
        yield Finding("copies", Health.OK if rule.is_kept else Health.WARN, rule.sentence)
    for state in states:
        if state.problem:
            yield Finding(f"{state.role.value} {state.label}", Health.FAIL, state.problem)


def _processes(session: Session, installation: Installation) -> Iterator[Finding]:
    yield _queue(installation)
    for role in ProcessRole:
        seen = last_seen(session, installation.clock, role)
        said = f"last seen {seen.at:%Y-%m-%d %H:%M:%S} UTC" if seen.at else "never seen"
        yield Finding(role.value, Health.OK if seen.alive else Health.WARN, said)
    for stream in app_streams.views(session, installation):
        health = Health.FAIL if stream.problem else Health.OK
        yield Finding(f"stream {stream.name}", health, stream.problem or "runs")
    yield _found("restores", lambda: _restores(installation))
    yield _found("audit log", lambda: _audit(installation))


def _queue(installation: Installation) -> Finding:
    if installation.queue is None:
        return Finding("queue", Health.WARN, "none: backups run by command only, restores not from pages")
    try:
        installation.queue.knows("0" * 26)
    except QueueUnavailable as error:
        return Finding("queue", Health.FAIL, str(error))
    return Finding("queue", Health.OK, "answers")


def _restores(installation: Installation) -> str:
    left = ", ".join(one.restore_id for one in unfinished(installation))
    if left:
        raise BackupAdminError(f"not finished: {left}; run `flask backup recover`")
    return "none is unfinished"


def _audit(installation: Installation) -> str:
    check = installation.audit().verify()
    if not check.ok:
        raise BackupAdminError(check.message)
    return check.message
