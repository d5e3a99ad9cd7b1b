"""The verb that examines this machine and a storage."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import stat
import sys
import uuid
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from backup_admin.cli.given import KEY, find_secrets
from backup_admin.cli.opening import Surroundings, open_place, open_state, repository_options
from backup_admin.core.durable import exchange
from backup_admin.core.errors import BackupAdminError, ConfigurationError
from backup_admin.core.shown import columns, count_of, show_size
from backup_admin.core.version import VERSION
from backup_admin.operations.answers import Answer
from backup_admin.operations.journal import list_journals
from backup_admin.repository.config import read_config
from backup_admin.repository.repository import open_repository
from backup_admin.sources.postgres.presence import driver_version, program_versions
from backup_admin.storage.base import KnowsFreeSpace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from backup_admin.cli.given import GivenSecret
    from backup_admin.core.state import StateFolder
    from backup_admin.storage.base import Storage

_LIBRARIES = ("blake3", "cryptography", "pyfastcdc", "zstandard", "click", "rich")
_NAME_POSTGRES = ("BACKUP_ADMIN_DATABASES", "BACKUP_ADMIN_POSTGRES_CLUSTERS")
_LOW_SPACE = 1_000_000_000
_OLDEST_SQLITE = (3, 37, 0)


class Level(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    topic: str
    message: str


@click.command("doctor")
@click.argument("storage", required=False)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A folder to be restored in place: tries whether it can be swapped in one step; may be repeated.",
)
@repository_options
@click.pass_obj
def doctor_verb(
    surroundings: Surroundings,
    *,
    storage: str | None,
    folders: tuple[Path, ...],
    key_file: Path | None,
    state_dir: Path | None,
) -> Answer:
    """Examine this machine and, when one is named, a storage.

    Ends with 1 when something would keep a backup or restore from working.
    """
    findings = [
        *_machine(),
        *_postgres(surroundings),
        *_state(surroundings, state_dir),
        *_key_files(surroundings, key_file),
    ]
    if storage is not None:
        findings += _storage(surroundings, storage, key_file, state_dir)
    for folder in folders:
        findings.append(_try_exchange(folder))
    failed = sum(1 for finding in findings if finding.level is Level.FAIL)
    return Answer(
        result={
            "findings": [
                {"level": finding.level.value, "topic": finding.topic, "message": finding.message}
                for finding in findings
            ]
        },
        lines=_lines(findings, failed),
        exit_code=1 if failed else 0,
    )


def _lines(findings: list[Finding], failed: int) -> Iterator[str]:
    yield from columns([(finding.level.value, finding.topic, finding.message) for finding in findings])
    warned = sum(1 for finding in findings if finding.level is Level.WARN)
    if failed:
        yield f"{count_of(failed, 'thing')} must be mended."
    else:
        yield f"Nothing is in the way; {count_of(warned, 'warning')}."


def _machine() -> Iterator[Finding]:
    yield Finding(Level.OK, "backup-admin", VERSION)
    yield Finding(Level.OK, "python", f"{platform.python_version()} ({sys.executable})")
    good = sqlite3.sqlite_version_info >= _OLDEST_SQLITE
    yield Finding(Level.OK if good else Level.WARN, "sqlite", sqlite3.sqlite_version)
    for name in _LIBRARIES:
        try:
            yield Finding(Level.OK, name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(Level.FAIL, name, "is not installed")


def _postgres(surroundings: Surroundings) -> Iterator[Finding]:
    """Examine what only PostgreSQL needs: that it is missing is in the way where one is configured."""
    named = any("postgres" in surroundings.environment.get(name, "") for name in _NAME_POSTGRES)
    for topic, look in (("psycopg", driver_version), ("pg_dump", program_versions)):
        try:
            yield Finding(Level.OK, topic, look())
        except ConfigurationError as error:
            said = str(error) if named else "not installed, and needed for PostgreSQL only"
            yield Finding(Level.FAIL if named else Level.OK, topic, said)


def _state(surroundings: Surroundings, state_dir: Path | None) -> Iterator[Finding]:
    try:
        state = open_state(surroundings, state_dir)
    except BackupAdminError as error:
        yield Finding(Level.FAIL, "state folder", str(error))
        return
    mode = stat.S_IMODE(state.root.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            Level.WARN, "state folder", f"{state.root} has mode {mode:04o}; run: chmod 700 {state.root}"
        )
    else:
        yield Finding(Level.OK, "state folder", str(state.root))
    yield _free("state folder", shutil.disk_usage(state.root).free)
    yield from _journals(state, surroundings)


def _journals(state: StateFolder, surroundings: Surroundings) -> Iterator[Finding]:
    try:
        unfinished = [one for one in list_journals(state, surroundings.clock) if not one.finished]
    except BackupAdminError as error:
        yield Finding(Level.FAIL, "restores", str(error))
        return
    for one in unfinished:
        yield Finding(
            Level.FAIL,
            "restores",
            f"{one.restore_id} did not come to its end; run: backup-admin recover",
        )


def _free(topic: str, size: int) -> Finding:
    return Finding(Level.WARN if size < _LOW_SPACE else Level.OK, topic, f"{show_size(size)} free")


def _key_files(surroundings: Surroundings, key_file: Path | None) -> Iterator[Finding]:
    named = key_file or surroundings.environment.get(f"{KEY}_FILE")
    if not named:
        return
    try:
        find_secrets(Path(named), {}, None)
    except BackupAdminError as error:
        yield Finding(Level.FAIL, "key file", str(error))
        return
    yield Finding(Level.OK, "key file", f"{named} holds a key that only its owner can read")


def _storage(
    surroundings: Surroundings, address: str, key_file: Path | None, state_dir: Path | None
) -> Iterator[Finding]:
    def look() -> Iterator[Finding]:
        storage = open_place(surroundings, address, state_dir)
        config, _ = read_config(storage)
        yield Finding(Level.OK, "storage", f"{storage.label} holds repository {config.repo_id.hex()[:16]}")
        if isinstance(storage, KnowsFreeSpace) and (free := storage.free_bytes()) is not None:
            yield _free("storage", free)
        yield from _open(surroundings, storage, key_file, state_dir)

    yield from _guarded("storage", look)


def _open(
    surroundings: Surroundings, storage: Storage, key_file: Path | None, state_dir: Path | None
) -> Iterator[Finding]:
    try:
        secrets = find_secrets(key_file, surroundings.environment, None)
    except BackupAdminError as error:
        yield Finding(Level.WARN, "repository", f"was not opened: {error}")
        return
    state = open_state(surroundings, state_dir)
    for given in secrets:

        def look(given: GivenSecret = given) -> Iterator[Finding]:
            repository = open_repository(storage, given.secret, state=state, clock=surroundings.clock)
            count = len(repository.snapshot_ids())
            yield Finding(Level.OK, "repository", f"{given.origin} opens it; {count_of(count, 'snapshot')}")
            if repository.history_warning:
                yield Finding(Level.FAIL, "repository", repository.history_warning)

        yield from _guarded("repository", look)


def _guarded(topic: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except BackupAdminError as error:
        yield Finding(Level.FAIL, topic, str(error))


def _try_exchange(folder: Path) -> Finding:
    """Swap two empty files beside each other, as a restore would swap two trees."""
    topic = f"swap in {folder}"
    mark = uuid.uuid4().hex[:12]
    first, second = (folder / f".backup-admin-doctor-{mark}-{number}" for number in (1, 2))
    try:
        try:
            first.touch(exist_ok=False)
            second.touch(exist_ok=False)
            exchange(first, second)
        finally:
            first.unlink(missing_ok=True)
            second.unlink(missing_ok=True)
    except OSError as error:
        return Finding(Level.FAIL, topic, f"cannot be done: {error.strerror}")
    return Finding(Level.OK, topic, "works in one step")
