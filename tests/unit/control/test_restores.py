"""Restores: planned, confirmed by a present person, carried out, undone, recovered."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

import pyotp
import pytest

from backup_admin.access import second_factor, step_up
from backup_admin.access.audit import AuditFailed, AuditOutcome
from backup_admin.access.permissions import Actor, Role, role_permissions
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import perform_restore, recovery, restores, runs, wizard
from backup_admin.control.installation import QueueUnavailable
from backup_admin.control.journals import is_closed
from backup_admin.control.restores import Confirmation, Origin
from backup_admin.control.wizard import Choice, RestoreType
from backup_admin.core.errors import (
    BackupAdminError,
    Busy,
    NotPermitted,
    SnapshotMissing,
    StorageUnavailable,
    UsageError,
)
from backup_admin.operations.issues import Level
from backup_admin.operations.plans import RestorePlan
from backup_admin.records import BackupManifest, RestoreOperation, RestoreStatus, RunStatus
from tests.installations import ADMIN, Host, back_up, find_run, make_host, set_up

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy.orm import Session

HERE = Origin("10.0.0.5")


class Person:
    """An administrator with an authenticator, who walks through the wizard."""

    def __init__(self, host: Host, session: Session) -> None:
        self.host, self.session = host, session
        tools = host.installation.authenticators()
        made = second_factor.begin_enrolment(session, tools, user_id="7", account="a", issuer="b")
        self.totp = pyotp.TOTP(made.secret.reveal())
        code = self.totp.at(host.clock.now())
        second_factor.confirm_enrolment(session, tools, user_id="7", address="a", code=code)

    def plan(self, restore_type: RestoreType = RestoreType.FULL, choice: Choice | None = None) -> str:
        installation = self.host.installation
        operation = wizard.create_draft(self.session, installation, ADMIN)
        newest = self.session.query(BackupManifest).order_by(BackupManifest.created_at).first()
        assert newest is not None
        wizard.choose_snapshot(self.session, installation, operation.id, newest.snapshot_id)
        wizard.choose_type(self.session, installation, operation.id, restore_type)
        wizard.choose_components(self.session, installation, operation.id, choice or Choice())
        wizard.review(self.session, installation, operation.id)
        return operation.id

    def prove(self, purpose: Purpose, digest: str) -> None:
        self.host.clock.advance(minutes=1)
        tools, audit = self.host.installation.authenticators(), self.host.installation.audit()
        code = self.totp.at(self.host.clock.now())
        act = Act(purpose, digest)
        step_up.prove(self.session, tools, audit, actor=ADMIN, act=act, code=code)

    def digest(self, operation_id: str) -> str:
        return wizard.find_operation(self.session, operation_id).plan_digest

    def start(self, operation_id: str) -> RestoreOperation:
        self.prove(Purpose.RESTORE, self.digest(operation_id))
        return restores.start(self.session, self.host.installation, operation_id, confirmation())

    def restore(self) -> str:
        operation_id = self.plan()
        self.start(operation_id)
        perform_restore.perform_restore(self.host.installation, operation_id)
        self.session.expire_all()
        return operation_id


def confirmation(
    actor: Actor = ADMIN, origin: Origin = HERE, name: str = "gallery", reason: str = "a test"
) -> Confirmation:
    return Confirmation(actor, origin, name, reason)


@pytest.fixture
def person(host: Host, session: Session) -> Person:
    """An administrator of an app with one backup and changes since."""
    back_up(host)
    change_everything(host)
    return Person(host, session)


def change_everything(host: Host) -> None:
    (host.uploads / "one.txt").write_bytes(b"changed")
    (host.uploads / "two.txt").unlink()
    (host.uploads / "new.txt").write_bytes(b"new")
    with closing(sqlite3.connect(host.database_file)) as connection:
        connection.execute("DELETE FROM photos WHERE title = 'a'")
        connection.commit()


def contents(host: Host) -> tuple[dict[str, bytes], list[str]]:
    files = {path.name: path.read_bytes() for path in host.uploads.iterdir()}
    with closing(sqlite3.connect(host.database_file)) as connection:
        return files, [row[0] for row in connection.execute("SELECT title FROM photos ORDER BY id")]


BEFORE = ({"one.txt": b"one", "two.txt": b"two" * 1000}, ["a", "b", "c"])
CHANGED = ({"one.txt": b"changed", "new.txt": b"new"}, ["b", "c"])


def row(person: Person, operation_id: str) -> RestoreOperation:
    person.session.expire_all()
    return wizard.find_operation(person.session, operation_id)


def test_the_review_tells_what_changes_and_touches_nothing(person: Person) -> None:
    operation_id = person.plan()
    review = wizard.stored_review(row(person, operation_id))
    assert review is not None
    assert isinstance(review.plan, RestorePlan)
    (tree,), (database,) = review.plan.files, review.plan.databases
    assert (tree.added, tree.changed, tree.removed) == (1, 1, 1)
    assert [(t.table, t.rows_now, t.rows_then) for t in database.tables] == [("photos", 2, 3)]
    assert not review.blocked
    assert review.digest == review.plan.digest
    assert contents(person.host) == CHANGED


def test_a_confirmed_restore_brings_everything_back(person: Person) -> None:
    operation_id = person.restore()
    done = row(person, operation_id)
    assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
    assert contents(person.host) == BEFORE
    assert done.checks
    assert all(check["ok"] for check in done.checks)
    assert done.undo_until is not None
    assert done.reason == "a test"
    assert not is_closed(person.host.installation)
    safety = person.session.query(BackupManifest).filter_by(snapshot_id=done.safety_snapshot_id).one()
    assert (safety.kind, safety.present) == ("safety", True)
    entries = person.host.installation.audit().read_page(action="restore.")
    assert [(entry.action, entry.outcome) for entry in entries] == [
        ("restore.finish", AuditOutcome.DONE),
        ("restore.start", AuditOutcome.DONE),
    ]
    assert entries[1].details["plan"] == done.plan_digest
    assert entries[1].reason == "a test"


def test_a_restore_is_under_way_until_its_row_says_how_it_ended(person: Person) -> None:
    installation = person.host.installation
    seen: list[RestoreStatus] = []

    def look(_outcome: str) -> None:
        with installation.database.new_session() as session:
            (operation,) = session.query(RestoreOperation).all()
            seen.append(restores.progress(session, installation, operation.id).status)

    installation.hooks.after_restore.append(look)

    operation_id = person.restore()

    ended = restores.progress(person.session, installation, operation_id)
    assert (seen, ended.status) == ([RestoreStatus.RUNNING], RestoreStatus.RESTORED)
    assert ended.checks


def test_a_restore_can_be_undone_with_a_step_up_of_its_own(person: Person) -> None:
    operation_id = person.restore()
    installation = person.host.installation
    with pytest.raises(NotPermitted):
        restores.undo(person.session, installation, operation_id, confirmation())
    assert restores.progress(person.session, installation, operation_id).can_undo
    person.prove(Purpose.UNDO, operation_id)
    restores.undo(person.session, installation, operation_id, confirmation())
    perform_restore.perform_undo(installation, operation_id)
    done = row(person, operation_id)
    assert (done.status, done.error_message) == (RestoreStatus.UNDONE, "")
    assert contents(person.host) == CHANGED
    assert not restores.progress(person.session, installation, operation_id).can_undo


@pytest.mark.parametrize(
    ("restore_type", "choice", "after"),
    [
        (RestoreType.DATABASE_ONLY, None, (CHANGED[0], BEFORE[1])),
        (RestoreType.FILES_ONLY, None, (BEFORE[0], CHANGED[1])),
        (RestoreType.PARTIAL, Choice(files=("uploads",)), (BEFORE[0], CHANGED[1])),
        (RestoreType.PARTIAL, Choice(databases=("main",)), (CHANGED[0], BEFORE[1])),
    ],
)
def test_only_what_was_chosen_comes_back(
    person: Person, restore_type: RestoreType, choice: Choice | None, after: object
) -> None:
    operation_id = person.plan(restore_type, choice)
    person.start(operation_id)
    perform_restore.perform_restore(person.host.installation, operation_id)
    assert contents(person.host) == after


def refuse(person: Person, operation_id: str, given: Confirmation, error: type[BackupAdminError]) -> str:
    with pytest.raises(error) as caught:
        restores.start(person.session, person.host.installation, operation_id, given)
    (entry, *_) = person.host.installation.audit().read_page(action="restore.start")
    assert entry.outcome is AuditOutcome.DENIED
    assert entry.object == operation_id
    assert person.host.queue.jobs == {}
    assert contents(person.host) == CHANGED
    return str(caught.value)


def test_without_a_fresh_code_nothing_starts(person: Person) -> None:
    operation_id = person.plan()
    assert "fresh code" in refuse(person, operation_id, confirmation(), NotPermitted)


def test_without_the_permission_nothing_starts(person: Person) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    weak = replace(ADMIN, granted=role_permissions(Role.OPERATOR))
    assert "restore.execute" in refuse(person, operation_id, confirmation(weak), NotPermitted)


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [("Gallery", "a test", "typed name"), ("", "a test", "typed name"), ("gallery", "  ", "Say why")],
)
def test_name_and_reason_are_asked_for_and_a_mistake_costs_no_code(
    person: Person, name: str, reason: str, words: str
) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    given = confirmation(name=name, reason=reason)
    assert words in refuse(person, operation_id, given, UsageError)
    restores.start(person.session, person.host.installation, operation_id, confirmation())


def test_a_plan_that_changed_makes_the_code_worthless(person: Person) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    (person.host.uploads / "another.txt").write_bytes(b"x")
    wizard.review(person.session, person.host.installation, operation_id)
    with pytest.raises(NotPermitted):
        restores.start(person.session, person.host.installation, operation_id, confirmation())


def test_a_plan_changed_in_the_database_is_refused(person: Person) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    operation = row(person, operation_id)
    operation.plan = operation.plan.replace("uploads", "somewhere")
    person.session.commit()
    assert "not the one that was reviewed" in refuse(person, operation_id, confirmation(), UsageError)


def test_an_old_plan_must_be_looked_at_again(person: Person) -> None:
    operation_id = person.plan()
    person.host.clock.advance(minutes=31)
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    assert "30 minutes" in refuse(person, operation_id, confirmation(), UsageError)


def test_an_address_off_the_list_is_refused(tmp_path: Path, person: Person) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))
    settings = replace(person.host.installation.settings, restore_ip_allowlist=("192.168.0.0/16",))
    person.host.installation = replace(person.host.installation, settings=settings)
    assert "not on the list" in refuse(person, operation_id, confirmation(), NotPermitted)


def test_a_restore_is_started_once(person: Person) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    with pytest.raises(UsageError, match="queued already"):
        restores.start(person.session, person.host.installation, operation_id, confirmation())


def test_only_one_restore_is_under_way(person: Person) -> None:
    first, second = person.plan(), person.plan()
    person.start(first)
    with pytest.raises(Busy):
        person.start(second)
    assert row(person, second).status is RestoreStatus.DRAFT


def test_without_audit_log_nothing_starts(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    operation_id = person.plan()
    person.prove(Purpose.RESTORE, person.digest(operation_id))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("backup_admin.access.audit.write_all", full)
    with pytest.raises(AuditFailed):
        restores.start(person.session, person.host.installation, operation_id, confirmation())
    assert row(person, operation_id).status is RestoreStatus.DRAFT
    assert person.host.queue.jobs == {}


def test_a_queue_that_is_down_leaves_a_draft(person: Person) -> None:
    operation_id = person.plan()
    person.host.queue.down = True
    with pytest.raises(QueueUnavailable):
        person.start(operation_id)
    assert row(person, operation_id).status is RestoreStatus.DRAFT


def test_a_restore_the_queue_lost_does_not_start_later(person: Person) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    person.host.queue.jobs.clear()
    person.host.clock.advance(minutes=1)
    runs.reconcile(person.session, person.host.installation)
    lost = row(person, operation_id)
    assert (lost.status, "nothing was touched" in lost.error_message) == (RestoreStatus.FAILED, True)
    perform_restore.perform_restore(person.host.installation, operation_id)
    assert contents(person.host) == CHANGED


def test_a_waiting_restore_is_cancelled_at_once(person: Person) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    restores.cancel(person.session, person.host.installation, operation_id, ADMIN)
    perform_restore.perform_restore(person.host.installation, operation_id)
    assert row(person, operation_id).status is RestoreStatus.CANCELLED
    assert contents(person.host) == CHANGED


def test_a_failed_check_of_the_host_rolls_everything_back(person: Person) -> None:
    outcomes: list[str] = []
    maintenance: list[bool] = []
    hooks = person.host.installation.hooks
    hooks.restore_checks.append(("smoke", broken_check))
    hooks.after_restore.append(outcomes.append)
    hooks.maintenance.append(maintenance.append)
    operation_id = person.restore()
    done = row(person, operation_id)
    assert done.status is RestoreStatus.ROLLED_BACK
    assert "smoke" in done.error_message
    assert contents(person.host) == CHANGED
    assert outcomes == ["rolled_back"]
    assert (maintenance[0], maintenance[-1]) == (True, False)
    assert not is_closed(person.host.installation)


def broken_check() -> str:
    raise LookupError("no such page")


def test_a_hook_that_fails_afterwards_is_a_warning(person: Person) -> None:
    def fails(_outcome: str) -> None:
        raise LookupError("mail server")

    person.host.installation.hooks.after_restore.append(fails)
    done = row(person, person.restore())
    assert done.status is RestoreStatus.RESTORED
    assert any("mail server" in warning for warning in done.warnings)


class Killed(BaseException):
    """Stands for a killed process."""


def die_at(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(place, die)
    # The process is gone: nothing of it can put anything back.
    monkeypatch.setattr("backup_admin.operations.restore.put_back", die)


@pytest.mark.parametrize(
    ("place", "status", "after"),
    [
        ("backup_admin.operations.restore._Restore._verify_staged", RestoreStatus.ROLLED_BACK, CHANGED),
        ("backup_admin.operations.restore._Restore._swap", RestoreStatus.ROLLED_BACK, CHANGED),
        ("backup_admin.operations.restore._Restore._check", RestoreStatus.RESTORED, BEFORE),
        ("backup_admin.control.perform_restore._end", RestoreStatus.RESTORED, BEFORE),
    ],
)
def test_a_dead_restore_is_finished_or_undone_and_its_row_says_so(
    person: Person, place: str, status: RestoreStatus, after: object
) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, place)
        with pytest.raises(Killed):
            perform_restore.perform_restore(person.host.installation, operation_id)
    assert row(person, operation_id).status is RestoreStatus.RUNNING

    person.host.clock.advance(minutes=2)
    runs.reconcile(person.session, person.host.installation)
    recovery.recover_restores(person.host.installation)

    done = row(person, operation_id)
    assert done.status is status
    assert contents(person.host) == after
    assert not is_closed(person.host.installation)
    if status is RestoreStatus.RESTORED:
        assert done.undo_until is not None
        assert done.safety_snapshot_id
        assert restores.progress(person.session, person.host.installation, operation_id).can_undo
    assert not recovery.needs_recovery(person.session, person.host.installation)


def test_nothing_is_recovered_while_a_restore_is_at_work(person: Person) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    seen: list[object] = []

    def look() -> str:
        seen.append(recovery.recover_restores(person.host.installation))
        return "ok"

    person.host.installation.hooks.restore_checks.append(("look", look))
    perform_restore.perform_restore(person.host.installation, operation_id)
    assert seen == [()]
    assert row(person, operation_id).status is RestoreStatus.RESTORED


def test_the_kept_state_is_removed_when_its_time_is_over(person: Person) -> None:
    operation_id = person.restore()
    installation = person.host.installation
    assert recovery.remove_old_states(installation) == ()
    person.host.clock.advance(hours=25)
    assert recovery.remove_old_states(installation) == (operation_id,)
    assert not restores.progress(person.session, installation, operation_id).can_undo


def test_drafts_are_changed_only_while_they_are_drafts(person: Person) -> None:
    operation_id = person.plan()
    person.start(operation_id)
    installation = person.host.installation
    changes: tuple[Callable[[], object], ...] = (
        lambda: wizard.choose_type(person.session, installation, operation_id, RestoreType.PARTIAL),
        lambda: wizard.choose_components(person.session, installation, operation_id, Choice()),
        lambda: wizard.review(person.session, installation, operation_id),
    )
    for change in changes:
        with pytest.raises(UsageError, match="no longer be changed"):
            change()


def test_another_choice_makes_the_plan_void(person: Person) -> None:
    operation_id = person.plan()
    wizard.choose_type(person.session, person.host.installation, operation_id, RestoreType.FILES_ONLY)
    assert wizard.stored_review(row(person, operation_id)) is None
    person.prove(Purpose.RESTORE, "")
    with pytest.raises(UsageError, match="no plan"):
        restores.start(person.session, person.host.installation, operation_id, confirmation())


def test_unknown_and_missing_snapshots_are_refused(person: Person) -> None:
    operation = wizard.create_draft(person.session, person.host.installation, ADMIN)
    with pytest.raises(SnapshotMissing):
        wizard.choose_snapshot(person.session, person.host.installation, operation.id, "nothing")
    wizard.choose_type(person.session, person.host.installation, operation.id, RestoreType.PARTIAL)
    with pytest.raises(UsageError, match="at least one"):
        wizard.choose_components(person.session, person.host.installation, operation.id, Choice())


def test_old_drafts_are_dropped(person: Person) -> None:
    first = wizard.create_draft(person.session, person.host.installation, ADMIN)
    person.host.clock.advance(hours=25)
    wizard.create_draft(person.session, person.host.installation, ADMIN)
    with pytest.raises(UsageError):
        wizard.find_operation(person.session, first.id)


def test_what_can_be_chosen_is_what_snapshot_and_app_both_have(tmp_path: Path, person: Person) -> None:
    operation_id = person.plan()
    held = wizard.available(person.session, person.host.installation, operation_id)
    assert (held.files, held.databases, held.settings) == (("uploads",), ("main",), False)
    key = person.host.installation.key().reveal()
    smaller = make_host(person.host.folder, BACKUP_ADMIN_KEY=key, BACKUP_ADMIN_DATABASES=None)
    held = wizard.available(person.session, smaller.installation, operation_id)
    assert (held.files, held.databases) == (("uploads",), ())


def test_a_backup_after_the_restore_is_good(person: Person) -> None:
    person.restore()
    run = back_up(person.host)
    assert find_run(person.host, run.id).error_message == ""


def test_with_the_storage_lost_a_mirror_restores_and_the_next_backup_goes_on_there(tmp_path: Path) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=[str(tmp_path / "mirror")])
    set_up(host)
    assert back_up(host).status is RunStatus.COMPLETED
    before = contents(host)
    change_everything(host)
    (tmp_path / "storage").rename(tmp_path / "lost")
    with host.installation.database.new_session() as session:
        person = Person(host, session)
        operation_id = person.plan()
        review = wizard.stored_review(wizard.find_operation(session, operation_id))
        person.start(operation_id)
        perform_restore.perform_restore(host.installation, operation_id)
        session.expire_all()
        operation = wizard.find_operation(session, operation_id)

    assert review is not None
    assert (review.issues[0].level, review.issues[0].topic) == (Level.WARN, "storage")
    assert "a mirror, since" in review.issues[0].message
    assert operation.status is RestoreStatus.RESTORED, operation.error_message
    assert contents(host) == before
    assert back_up(host).status is RunStatus.DEGRADED
    (tmp_path / "lost").rename(tmp_path / "storage")
    assert back_up(host).status is RunStatus.COMPLETED


def test_without_a_mirror_that_helps_the_storage_is_what_is_told(tmp_path: Path) -> None:
    host = make_host(tmp_path, BACKUP_ADMIN_MIRRORS=[str(tmp_path / "mirror")])
    set_up(host)
    back_up(host)
    for name in ("storage", "mirror"):
        (tmp_path / name).rename(tmp_path / f"{name}-lost")
    with host.installation.database.new_session() as session:
        person = Person(host, session)

        with pytest.raises(StorageUnavailable, match=f"{tmp_path / 'storage'} is not there"):
            person.plan()
