"""What the page about the storage shows beside its address, from the control database alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backup_admin.control import engine, s3_keys, storage_tests
from backup_admin.control.s3_keys import KeySource
from backup_admin.control.s3_settings import SCHEME
from backup_admin.core.errors import UsageError
from backup_admin.storage.s3_place import parse_s3_address
from backup_admin.storage.storage_report import Finding, Step, StepOutcome
from backup_admin.web.formats import count

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation
    from backup_admin.control.s3_keys import KeysInUse
    from backup_admin.storage.storage_report import StorageReport


@dataclass(frozen=True, slots=True)
class TestedStorage:
    """The last test of the storage. `judgement` goes on from "Tested two days ago:"."""

    at: datetime
    outcome: StepOutcome
    judgement: str
    one_writer: str
    """Why only one writer at a time may use it; empty when any number may."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class StorageView:
    """The test, whether one waits, the keys of buckets, and whether the storage in use needs such keys."""

    test: TestedStorage | None
    test_waits: bool
    keys: KeysInUse
    needs_keys: bool

    @property
    def keys_pinned(self) -> bool:
        """Say whether the deployment sets the keys of buckets."""
        return self.keys.source is KeySource.DEPLOYMENT

    @property
    def keys_kept(self) -> bool:
        """Say whether keys that were given on a page are kept."""
        return self.keys.source is KeySource.PAGE


def view_storage(session: Session, installation: Installation) -> StorageView:
    """Gather what the page shows."""
    report = storage_tests.newest_test(session, installation.settings)
    return StorageView(
        test=_view_test(report) if report is not None else None,
        test_waits=storage_tests.waits(session, installation),
        keys=s3_keys.look_at_keys(session, installation.settings),
        needs_keys=_needs_keys(engine.storage_address(session, installation.settings)),
    )


def _view_test(report: StorageReport) -> TestedStorage:
    names = report.finding(Step.PUT_IF_ABSENT)
    one_writer = names.message if names.outcome is StepOutcome.WARNING else ""
    return TestedStorage(report.at, report.outcome, _judgement(report), one_writer, report.findings)


def _judgement(report: StorageReport) -> str:
    if report.outcome is StepOutcome.FAILED:
        return f"failed at {storage_tests.first_failure(report)}"
    warnings = sum(finding.outcome is StepOutcome.WARNING for finding in report.findings)
    return "fit for a repository" + (f", with {count(warnings, 'warning')}." if warnings else ".")


def _needs_keys(address: str) -> bool:
    try:
        return address.startswith(SCHEME) and not parse_s3_address(address).profile
    except UsageError:
        return False
