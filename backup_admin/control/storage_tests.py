"""The test of the storage in use: when there is to be one, and what the last one found.

Pages show the kept report; none of them asks the storage.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from backup_admin.control import engine
from backup_admin.control.installation import STORAGE_TEST_JOB, QueueUnavailable
from backup_admin.control.stored import write_value
from backup_admin.core.errors import BackupAdminError, StorageDenied, StorageError
from backup_admin.core.ids import new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.records import StoredSetting
from backup_admin.storage.examine import examine_storage
from backup_admin.storage.first_contact import report_not_opened
from backup_admin.storage.storage_report import Step, StepOutcome, StorageReport

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.access.permissions import Actor
    from backup_admin.control.installation import Installation
    from backup_admin.core.settings import Settings
    from backup_admin.storage.base import Storage

REPORT_KEY = "storage.test"
ASKED_KEY = "storage.test.asked"
EVERY = timedelta(days=7)
STALE_AFTER = timedelta(days=8)
_AGAIN_AFTER = timedelta(hours=1)
"""How soon a test that failed, or that nobody carried out, is repeated."""


def newest_test(session: Session, settings: Settings) -> StorageReport | None:
    """Return what the last test of the storage in use found; None when it was never tested."""
    row = session.get(StoredSetting, REPORT_KEY)
    if row is None or row.value["address"] != engine.storage_address(session, settings):
        return None
    try:
        return StorageReport.from_plain(row.value["report"])
    except ValueError:
        return None  # of a version that knew other steps: it will be tested anew


def waits(session: Session, installation: Installation) -> bool:
    """Say whether a test was asked for and has not ended yet."""
    asked, done = _time_of(session, ASKED_KEY), _time_of(session, REPORT_KEY)
    if installation.queue is None or asked is None or installation.clock.now() - asked > _AGAIN_AFTER:
        return False
    return done is None or done < asked


def ask_for_test(session: Session, installation: Installation, actor: Actor) -> bool:
    """Let a worker test the storage, or do it at once where there is no queue; say whether it waits now.

    Raises `ConfigurationError` when no storage is set and `QueueUnavailable`.
    """
    installation.require_writable()
    address = engine.require_address(session, installation.settings)
    if waits(session, installation):
        return True
    installation.audit().append(actor, "storage.test", target=address)
    write_value(session, installation.clock, ASKED_KEY, "", by=actor.name)
    session.commit()
    _hand_on(installation)
    return installation.queue is not None


def tick(session: Session, installation: Installation) -> bool:
    """Begin a test when one is due; say whether it was. Any number may tick at once."""
    if (
        installation.settings.read_only
        or not _is_due(session, installation)
        or not _claim(session, installation)
    ):
        return False
    try:
        _hand_on(installation)
    except QueueUnavailable:
        return False  # it is asked for again in an hour; the verdict says that the last one grows old
    return True


def perform_test(installation: Installation) -> None:
    """Test the storage in use and keep what was found."""
    with installation.database.new_session() as session:
        address = engine.storage_address(session, installation.settings)
        if not address:
            return
        try:
            storage = engine.open_storage(session, installation, quick=True)
        except BackupAdminError as error:
            known = error if isinstance(error, StorageError) else StorageError(str(error))
            _keep(session, installation, address, report_not_opened(address, known, clock=installation.clock))
            return
        examine_and_keep(session, installation, address, storage)


def examine_and_keep(session: Session, installation: Installation, address: str, storage: Storage) -> None:
    """Test a storage that is open and keep what was found."""
    session.commit()  # hold no transaction during the work
    report = examine_storage(storage, clock=installation.clock, reporter=QuietReporter())
    _keep(session, installation, address, _allow_no_deleting(report))


def first_failure(report: StorageReport) -> str:
    """Return what the first failed step of a test said, or nothing."""
    failed = (one for one in report.findings if one.outcome is StepOutcome.FAILED)
    return next((f"{one.step.words}: {one.message}" for one in failed), "")


def _allow_no_deleting(report: StorageReport) -> StorageReport:
    """Take it for a warning that our key may not delete: such a key is the safer one to back up with."""
    found = report.finding(Step.DELETE)
    if found.outcome is not StepOutcome.FAILED or found.value != StorageDenied.code:
        return report
    kept = replace(
        found,
        outcome=StepOutcome.WARNING,
        message="the key may not delete, which is the safer way; what the test wrote stays until a prune",
    )
    return replace(report, findings=tuple(kept if one is found else one for one in report.findings))


def _is_due(session: Session, installation: Installation) -> bool:
    if not engine.storage_address(session, installation.settings):
        return False
    now, asked = installation.clock.now(), _time_of(session, ASKED_KEY)
    if asked is not None and now - asked < _AGAIN_AFTER:
        return False
    report = newest_test(session, installation.settings)
    if report is None:
        return True
    wait = _AGAIN_AFTER if report.outcome is StepOutcome.FAILED else EVERY
    return now - report.at >= wait


def _claim(session: Session, installation: Installation) -> bool:
    """Note that a test is asked for; False when somebody else just did."""
    seen, now = _time_of(session, ASKED_KEY), installation.clock.now()
    row = StoredSetting
    if seen is None:
        session.add(StoredSetting(name=ASKED_KEY, value="", updated_at=now))
        try:
            session.commit()
        except IntegrityError:
            session.rollback()
            return False
        return True
    change = update(row).where(row.name == ASKED_KEY, row.updated_at == seen)
    change = change.values(updated_at=now, updated_by="").returning(row.name)
    won = bool(session.execute(change, execution_options={"synchronize_session": False}).all())
    session.commit()
    session.expire_all()
    return won


def _hand_on(installation: Installation) -> None:
    if installation.queue is None:
        perform_test(installation)
    else:
        installation.queue.enqueue(STORAGE_TEST_JOB, new_ulid(installation.clock.now()))


def _keep(session: Session, installation: Installation, address: str, report: StorageReport) -> None:
    value = {"address": address, "report": report.as_plain()}
    write_value(session, installation.clock, REPORT_KEY, value)
    session.commit()


def _time_of(session: Session, name: str) -> datetime | None:
    row = session.get(StoredSetting, name)
    return row.updated_at if row is not None else None
