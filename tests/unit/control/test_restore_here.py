"""A restore from the command line: planned without a trace, carried out with a row and an audit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.access.audit import AuditOutcome
from backup_admin.control import engine, restore_here
from backup_admin.control.wizard import Review, find_operation
from backup_admin.core.errors import Busy, ConfigurationError, RestoreRefused, UsageError
from backup_admin.operations.issues import Issue, Level
from backup_admin.operations.plans import RestorePlan, Selection
from backup_admin.records import BackupManifest, RestoreOperation, RestoreStatus
from tests.installations import ADMIN, Host, back_up

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.operations.restore_report import RestoreReport
    from backup_admin.repository.repository import Repository


class Desk:
    """Somebody at the command line of an app with one backup and changes since."""

    def __init__(self, host: Host, session: Session) -> None:
        back_up(host)
        (host.uploads / "one.txt").write_bytes(b"changed")
        with closing(sqlite3.connect(host.database_file)) as connection:
            connection.execute("DELETE FROM photos WHERE title = 'a'")
            connection.commit()
        self.host, self.session, self.installation = host, session, host.installation
        self.repository: Repository = engine.open_repository(session, host.installation)

    def plan(self, selection: Selection = Selection((), ())) -> Review[RestorePlan]:  # noqa: B008 - frozen
        newest = self.repository.find_snapshot("latest").id
        return restore_here.plan_here(self.session, self.installation, self.repository, newest, selection)

    def carry_out(self, review: Review[RestorePlan]) -> RestoreReport:
        return restore_here.carry_out_here(self.session, self.installation, self.repository, review, ADMIN)

    def rows(self) -> list[RestoreOperation]:
        return self.session.query(RestoreOperation).all()

    def live(self) -> tuple[bytes, list[str]]:
        with closing(sqlite3.connect(self.host.database_file)) as connection:
            titles = [row[0] for row in connection.execute("SELECT title FROM photos ORDER BY id")]
        return (self.host.uploads / "one.txt").read_bytes(), titles

    def audited(self) -> list[tuple[str, AuditOutcome]]:
        page = self.installation.audit().read_page(action="restore.")
        return [(entry.action, entry.outcome) for entry in page]


@pytest.fixture
def desk(host: Host, session: Session) -> Desk:
    """Somebody at the command line."""
    return Desk(host, session)


BEFORE = (b"one", ["a", "b", "c"])
CHANGED = (b"changed", ["b", "c"])


def test_a_plan_leaves_no_row_and_touches_nothing(desk: Desk) -> None:
    review = desk.plan()

    (database,), (tree,) = review.plan.databases, review.plan.files
    assert (database.name, tree.name) == ("main", "uploads")
    assert not review.blocked
    assert (desk.rows(), desk.audited(), desk.live()) == ([], [], CHANGED)


def test_a_restore_has_a_row_an_audit_and_the_hosts_hooks(desk: Desk) -> None:
    told: list[object] = []
    desk.installation.hooks.maintenance.append(told.append)
    desk.installation.hooks.restore_checks.append(("rows", lambda: "ok"))
    desk.installation.hooks.after_restore.append(told.append)

    review = desk.plan()
    report = desk.carry_out(review)

    (row,) = desk.rows()
    assert (report.outcome, report.exit_code, report.restore_id) == ("restored", 0, row.id)
    assert desk.live() == BEFORE
    assert told == [True, False, "restored"]
    assert "rows" in [line.topic for line in report.checks]
    assert (row.status, row.restored_by, row.plan_digest) == (
        RestoreStatus.RESTORED,
        ADMIN.id,
        review.digest,
    )
    assert row.source_backup_id is not None
    assert desk.audited() == [("restore.finish", AuditOutcome.DONE), ("restore.start", AuditOutcome.DONE)]
    safety = desk.session.query(BackupManifest).filter_by(snapshot_id=report.safety_snapshot).one()
    assert safety.kind == "safety"


@pytest.mark.parametrize(
    ("selection", "after"),
    [
        (Selection(("uploads",), ()), (BEFORE[0], CHANGED[1])),
        (Selection((), ("main",)), (CHANGED[0], BEFORE[1])),
    ],
)
def test_only_what_is_named_comes_back(desk: Desk, selection: Selection, after: object) -> None:
    desk.carry_out(desk.plan(selection))

    assert desk.live() == after
    assert desk.rows()[0].restore_type == "partial"


def test_a_name_the_snapshot_lacks_is_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="nothere"):
        desk.plan(Selection(("nothere",), ()))


def test_a_blocked_plan_is_refused_and_audited(desk: Desk) -> None:
    review = replace(desk.plan(), issues=(Issue(Level.BLOCK, "Space", "The disk is full."),))

    with pytest.raises(RestoreRefused, match=r"The disk is full\. Nothing was touched"):
        desk.carry_out(review)

    assert (desk.rows(), desk.live()) == ([], CHANGED)
    assert desk.audited() == [("restore.start", AuditOutcome.DENIED)]


def test_one_restore_at_a_time(desk: Desk) -> None:
    now = desk.host.clock.now()
    desk.session.add(
        RestoreOperation(id="other", created_at=now, updated_at=now, status=RestoreStatus.RUNNING)
    )
    desk.session.commit()

    with pytest.raises(Busy, match="Another restore"):
        desk.carry_out(desk.plan())

    assert desk.live() == CHANGED
    assert len(desk.rows()) == 1


def test_where_nothing_may_change_nothing_is_restored(desk: Desk) -> None:
    settings = replace(desk.installation.settings, read_only=True)
    desk.installation = replace(desk.installation, settings=settings)

    with pytest.raises(ConfigurationError, match="READ_ONLY"):
        desk.carry_out(desk.plan())

    assert (desk.rows(), desk.live()) == ([], CHANGED)


def test_a_failed_check_puts_everything_back_and_keeps_its_status(desk: Desk) -> None:
    desk.installation.hooks.restore_checks.append(("login", lambda: "nobody can sign in"))

    report = desk.carry_out(desk.plan())

    assert (report.outcome, report.exit_code, report.error_code) == ("rolled_back", 4, "verification_failed")
    assert desk.live() == CHANGED
    assert desk.rows()[0].status is RestoreStatus.ROLLED_BACK
    assert desk.audited()[0] == ("restore.finish", AuditOutcome.FAILED)


def test_what_stops_a_restore_before_it_begins_is_raised_and_noted(desk: Desk) -> None:
    review = desk.plan()
    with desk.installation.state.lock("restore"), pytest.raises(Busy):
        desk.carry_out(review)

    assert desk.rows()[0].status is RestoreStatus.FAILED
    assert desk.live() == CHANGED
    assert desk.carry_out(desk.plan()).outcome == "restored"


def test_an_undo_brings_the_state_from_before_back(desk: Desk) -> None:
    done = desk.carry_out(desk.plan())

    report = restore_here.undo_at_once(desk.session, desk.installation, done.restore_id, ADMIN)

    assert (report.outcome, report.exit_code, desk.live()) == ("undone", 0, CHANGED)
    assert find_operation(desk.session, done.restore_id).status is RestoreStatus.UNDONE
    with pytest.raises(UsageError, match="undone"):
        restore_here.undo_at_once(desk.session, desk.installation, done.restore_id, ADMIN)
