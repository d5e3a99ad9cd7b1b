"""Tables and rows: asked for, tried out, confirmed by a present person, carried out, and how that ends."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.access.audit import AuditOutcome
from backup_admin.access.step_up import Purpose
from backup_admin.control import engine, perform_restore, recovery, restore_here, restores, runs, wizard
from backup_admin.control.journals import unfinished
from backup_admin.control.rows_choice import RowsChoice, problems_of
from backup_admin.control.rows_ended import ALL_OR_NOTHING
from backup_admin.control.wizard import RestoreType
from backup_admin.core.canonical import dump_canonical
from backup_admin.core.errors import Busy, NotPermitted, RestoreRefused, StorageUnavailable, UsageError
from backup_admin.operations.issues import Level
from backup_admin.operations.journal import Journal, Step
from backup_admin.operations.plans import RestorePlan
from backup_admin.operations.rows_asked import AskedRows
from backup_admin.operations.rows_plan import RowsPlan
from backup_admin.records import BackupManifest, RestoreOperation, RestoreStatus
from backup_admin.sources.sqlite_rows import undo_in_sqlite
from tests.installations import ADMIN, FakeClock, Host, back_up
from tests.unit.control.test_restores import Person, confirmation

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.control.wizard import Review

EVENT_1 = RowsChoice("main", rows="events:1")


def sql(host: Host, *statements: str) -> list[tuple[object, ...]]:
    """Do something to the live database and return what the last statement finds."""
    with closing(sqlite3.connect(host.database_file, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        for statement in statements:
            found = connection.execute(statement).fetchall()
    return found


def everything(host: Host) -> list[str]:
    """Return all of the live database as SQLite writes it."""
    with closing(sqlite3.connect(host.database_file)) as connection:
        return sorted(connection.iterdump())


class Desk(Person):
    """An administrator of an app with events and pictures of them, who walks through the wizard."""

    def __init__(self, host: Host, session: Session) -> None:
        super().__init__(host, session)
        sql(
            host,
            "DROP TABLE photos",
            "CREATE TABLE events (id INTEGER PRIMARY KEY, slug TEXT UNIQUE, title TEXT)",
            "CREATE TABLE photos (id INTEGER PRIMARY KEY, path TEXT, "
            "event_id INTEGER NOT NULL REFERENCES events ON DELETE CASCADE)",
            "INSERT INTO events VALUES (1, 'one', 'One'), (2, 'two', 'Two')",
            "INSERT INTO photos VALUES (11, 'one.txt', 1), (12, 'two.txt', 1), (21, 'two.txt', 2)",
        )
        back_up(host)
        self.before = everything(host)
        self.installation = host.installation

    def ask(self, choice: RowsChoice) -> str:
        """Go to step 4."""
        operation = wizard.create_draft(self.session, self.installation, ADMIN)
        newest = self.session.query(BackupManifest).order_by(BackupManifest.created_at).first()
        assert newest is not None
        wizard.choose_snapshot(self.session, self.installation, operation.id, newest.snapshot_id)
        wizard.choose_type(self.session, self.installation, operation.id, RestoreType.ROWS)
        held = wizard.held_rows(self.session, self.installation, operation.id)
        assert wizard.choose_rows(self.session, self.installation, operation.id, choice, held) == {}
        wizard.review(self.session, self.installation, operation.id)
        return operation.id

    def review_of(self, operation_id: str) -> tuple[RowsPlan, Review[RowsPlan]]:
        found = wizard.stored_review(self.row(operation_id))
        assert found is not None
        assert isinstance(found.plan, RowsPlan)
        return found.plan, wizard.Review(found.plan, found.issues, found.digest)

    def carry_out(self, operation_id: str) -> RestoreOperation:
        self.start(operation_id)
        perform_restore.perform_restore(self.installation, operation_id)
        return self.row(operation_id)

    def undo(self, operation_id: str) -> RestoreOperation:
        self.prove(Purpose.UNDO, operation_id)
        restores.undo(self.session, self.installation, operation_id, confirmation())
        perform_restore.perform_undo(self.installation, operation_id)
        return self.row(operation_id)

    def row(self, operation_id: str) -> RestoreOperation:
        self.session.expire_all()
        return wizard.find_operation(self.session, operation_id)

    def audited(self) -> list[tuple[str, AuditOutcome]]:
        return [(one.action, one.outcome) for one in self.installation.audit().read_page(action="restore.")]


@pytest.fixture
def desk(host: Host, session: Session) -> Desk:
    return Desk(host, session)


def test_a_deleted_row_comes_back_with_what_belonged_to_it(desk: Desk) -> None:
    told: list[object] = []
    desk.installation.hooks.maintenance.append(told.append)
    desk.installation.hooks.after_restore.append(told.append)
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    (desk.host.uploads / "one.txt").unlink()
    harmed = everything(desk.host)

    operation_id = desk.ask(replace(EVENT_1, linked="photos.path=uploads"))
    plan, review = desk.review_of(operation_id)
    assert everything(desk.host) == harmed
    done = desk.carry_out(operation_id)

    assert [(one.table, one.insert) for one in plan.report.tables] == [("events", 1), ("photos", 2)]
    assert (review.blocked, review.digest) == (False, plan.digest)
    assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
    assert everything(desk.host) == desk.before
    assert (desk.host.uploads / "one.txt").read_bytes() == b"one"
    assert [(line["topic"], line["found"], line["ok"]) for line in done.checks] == [
        ("events", "1 new", True),
        ("photos", "2 new", True),
        ("Files of photos.path=uploads", "1 file put back, 1 file there already", True),
    ]
    assert told == ["restored"]  # the app was never closed
    assert desk.audited() == [("restore.finish", AuditOutcome.DONE), ("restore.start", AuditOutcome.DONE)]
    (start,) = desk.installation.audit().read_page(action="restore.start")
    assert start.details["asked"] == "events:1, in main"


def test_its_safety_backup_holds_the_database_as_it_was(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1", "UPDATE events SET title = 'changed'")
    harmed = everything(desk.host)
    done = desk.carry_out(desk.ask(EVENT_1))
    assert everything(desk.host) != harmed

    seen = restores.progress(desk.session, desk.installation, done.id)
    kept = desk.session.query(BackupManifest).filter_by(snapshot_id=done.safety_snapshot_id).one()
    assert (seen.can_undo, seen.undo_until, kept.kind) == (True, done.undo_until, "safety")
    back = wizard.create_draft(desk.session, desk.installation, ADMIN).id
    wizard.choose_snapshot(desk.session, desk.installation, back, kept.snapshot_id)
    wizard.choose_type(desk.session, desk.installation, back, RestoreType.DATABASE_ONLY)
    wizard.review(desk.session, desk.installation, back)
    assert desk.carry_out(back).status is RestoreStatus.RESTORED
    assert everything(desk.host) == harmed
    # What the rows went into is another database now, until that is undone.
    assert desk.undo(done.id).error_message.startswith(f"Restore {done.id} cannot be undone")
    assert everything(desk.host) == harmed
    assert desk.undo(back).status is RestoreStatus.UNDONE
    assert desk.undo(done.id).status is RestoreStatus.UNDONE
    assert everything(desk.host) == harmed


def test_the_undo_takes_back_rows_and_files_and_nothing_else(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1", "INSERT INTO events VALUES (1, 'one', 'mine')")
    (desk.host.uploads / "one.txt").unlink()
    two = (desk.host.uploads / "two.txt").read_bytes()
    (desk.host.uploads / "two.txt").write_bytes(b"mine")
    harmed = everything(desk.host)
    choice = replace(EVENT_1, linked="photos.path=uploads", on_conflict="overwrite")
    done = desk.carry_out(desk.ask(choice))
    assert (everything(desk.host), done.undo_until) == (
        desk.before,
        desk.host.clock.now() + timedelta(hours=24),
    )
    assert (desk.host.uploads / "two.txt").read_bytes() == two
    sql(desk.host, "INSERT INTO events VALUES (7, 'seven', 'since')")
    kept = sorted(path.name for path in desk.installation.state.restores.iterdir())

    undone = desk.undo(done.id)

    sql(desk.host, "DELETE FROM events WHERE id = 7")
    assert (undone.status, undone.error_message, undone.warnings) == (RestoreStatus.UNDONE, "", [])
    assert "(events: 1 put back; photos: 2 deleted; files that came with them: 2 files" in undone.message
    assert everything(desk.host) == harmed
    assert sorted(path.name for path in desk.host.uploads.iterdir()) == ["two.txt"]
    assert (desk.host.uploads / "two.txt").read_bytes() == b"mine"
    assert kept == [f"restore-{done.id}.journal", f"rows-{done.id}.files", f"rows-{done.id}.record"]
    assert [path.name for path in desk.installation.state.restores.iterdir()] == kept[:1]
    (finish,) = desk.installation.audit().read_page(action="undo.")
    assert (finish.action, finish.outcome) == ("undo.finish", AuditOutcome.DONE)


def test_a_row_or_file_that_somebody_changed_since_is_not_touched_by_the_undo(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    (desk.host.uploads / "one.txt").unlink()
    done = desk.carry_out(desk.ask(replace(EVENT_1, linked="photos.path=uploads")))
    sql(desk.host, "UPDATE photos SET path = 'since' WHERE id = 11")
    (desk.host.uploads / "one.txt").write_bytes(b"since")
    after = everything(desk.host)
    ended = done.completed_at
    desk.host.clock.advance(minutes=30)

    refused = desk.undo(done.id)

    assert (refused.completed_at, refused.undone_at) == (ended, None)
    assert (refused.status, everything(desk.host)) == (RestoreStatus.RESTORED, after)
    assert "no longer what it left: photos 11. Nothing was changed." in refused.error_message
    assert restores.progress(desk.session, desk.installation, done.id).can_undo
    (finish,) = desk.installation.audit().read_page(action="undo.")
    assert (finish.action, finish.outcome) == ("undo.finish", AuditOutcome.FAILED)
    sql(desk.host, "UPDATE photos SET path = 'one.txt' WHERE id = 11")
    undone = desk.undo(done.id)
    assert undone.status is RestoreStatus.UNDONE
    assert undone.warnings == ["one.txt: it was changed since, and stays"]
    assert (desk.host.uploads / "one.txt").read_bytes() == b"since"


def test_what_is_kept_for_an_undo_goes_with_its_time(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    done = desk.carry_out(desk.ask(EVENT_1))
    assert recovery.remove_old_states(desk.installation) == ()
    desk.host.clock.advance(hours=25)

    assert recovery.remove_old_states(desk.installation) == (done.id,)

    assert [path.suffix for path in desk.installation.state.restores.iterdir()] == [".journal"]
    with pytest.raises(RestoreRefused, match="no longer kept"):
        desk.undo(done.id)
    assert everything(desk.host) == desk.before


@pytest.mark.parametrize("moment", ["before its record", "before its commit", "after its commit"])
def test_after_a_crash_it_is_found_out_whether_the_rows_are_there(
    desk: Desk, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    harmed, operation_id = everything(desk.host), desk.ask(EVENT_1)
    desk.start(operation_id)
    steps = Journal.write

    def die_first(journal: Journal, step: Step, **data: object) -> None:
        if step is not Step.PLANNED and moment == "before its record":
            raise SystemExit
        if step in (Step.COMMITTED, Step.ROLLED_BACK):
            raise SystemExit
        steps(journal, step, **data)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", die_first)
        with pytest.raises(SystemExit):
            perform_restore.perform_restore(desk.installation, operation_id)
    assert (everything(desk.host) == desk.before) == (moment != "before its record")
    if moment == "before its commit":  # as the transaction of a dead process: gone, with its record there
        record = desk.installation.state.restores / f"rows-{operation_id}.record"
        assert undo_in_sqlite(desk.host.database_file, record, desk.host.folder, dry=False).left == 3
        assert everything(desk.host) == harmed
    desk.host.clock.advance(minutes=2)
    runs.reconcile(desk.session, desk.installation)
    assert recovery.needs_recovery(desk.session, desk.installation)

    recovery.recover_restores(desk.installation)

    done = desk.row(operation_id)
    if moment == "after its commit":
        assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
        assert everything(desk.host) == desk.before
        assert desk.undo(operation_id).status is RestoreStatus.UNDONE
    else:
        assert done.status is RestoreStatus.ROLLED_BACK
        assert "Nothing live was changed." in done.error_message
    assert everything(desk.host) == harmed
    assert [path.suffix for path in desk.installation.state.restores.iterdir()] == [".journal"]
    assert desk.carry_out(desk.ask(EVENT_1)).status is RestoreStatus.RESTORED


def test_an_undo_that_died_after_its_transaction_is_finished(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    (desk.host.uploads / "one.txt").unlink()
    harmed = everything(desk.host)
    done = desk.carry_out(desk.ask(replace(EVENT_1, linked="photos.path=uploads")))
    ended = done.completed_at
    desk.host.clock.advance(minutes=30)
    steps = Journal.write

    def die_first(journal: Journal, step: Step, **data: object) -> None:
        if step is not Step.UNDOING:
            raise SystemExit
        steps(journal, step, **data)

    def die(_path: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", die_first)
        patch.setattr("backup_admin.operations.rows_undo.undo_links", die)
        with pytest.raises(SystemExit):
            desk.undo(done.id)
    assert (everything(desk.host), (desk.host.uploads / "one.txt").exists()) == (harmed, True)
    desk.host.clock.advance(minutes=2)
    runs.reconcile(desk.session, desk.installation)

    recovery.recover_restores(desk.installation)

    undone = desk.row(done.id)
    assert (undone.status, undone.completed_at) == (RestoreStatus.UNDONE, ended)
    assert undone.undone_at not in (None, ended)
    assert (everything(desk.host), (desk.host.uploads / "one.txt").exists()) == (harmed, False)


@pytest.mark.parametrize(
    ("choice", "after"),
    [
        (EVENT_1, [(1, "one", "changed"), (2, "two", "Two"), (3, "three", "Three")]),
        (
            replace(EVENT_1, on_conflict="overwrite"),
            [(1, "one", "One"), (2, "two", "Two"), (3, "three", "Three")],
        ),
        (RowsChoice("main", ("events",), on_conflict="replace"), [(1, "one", "One"), (2, "two", "Two")]),
    ],
)
def test_what_is_live_and_different_becomes_what_was_chosen(
    desk: Desk, choice: RowsChoice, after: list[tuple[object, ...]]
) -> None:
    sql(
        desk.host,
        "UPDATE events SET title = 'changed' WHERE id = 1",
        "INSERT INTO events VALUES (3, 'three', 'Three')",
        "DELETE FROM photos WHERE id = 11",
    )

    done = desk.carry_out(desk.ask(choice))

    assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
    assert sql(desk.host, "SELECT * FROM events ORDER BY id") == after


def test_clashes_and_nothing_to_do_block(desk: Desk) -> None:
    same = desk.ask(EVENT_1)
    sql(desk.host, "DELETE FROM events WHERE id = 1", "INSERT INTO events VALUES (9, 'one', 'Other')")
    clash = desk.ask(EVENT_1)

    said = {
        operation_id: [
            issue.message for issue in desk.review_of(operation_id)[1].issues if issue.level is Level.BLOCK
        ]
        for operation_id in (same, clash)
    }
    assert said[same] == ["All of it is live already; there is nothing to restore."]
    assert "the live row 9 has the same" in said[clash][0]
    for operation_id in (same, clash):
        desk.prove(Purpose.RESTORE, desk.digest(operation_id))
        with pytest.raises(RestoreRefused, match="Nothing was touched"):
            restores.start(desk.session, desk.installation, operation_id, confirmation())
    assert desk.audited()[0] == ("restore.start", AuditOutcome.DENIED)


def test_the_gate_is_that_of_every_restore(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    harmed, operation_id = everything(desk.host), desk.ask(EVENT_1)

    def start() -> None:
        restores.start(desk.session, desk.installation, operation_id, confirmation())

    with pytest.raises(NotPermitted, match="fresh code"):
        start()
    desk.host.clock.advance(minutes=31)
    desk.prove(Purpose.RESTORE, desk.digest(operation_id))
    with pytest.raises(UsageError, match="30 minutes"):
        start()
    wizard.review(desk.session, desk.installation, operation_id)
    row = desk.row(operation_id)
    row.plan = row.plan.replace('["events","1"]', '["events","2"]')
    desk.session.commit()
    with pytest.raises(UsageError, match="not the one that was reviewed"):
        start()
    assert everything(desk.host) == harmed
    assert desk.host.queue.jobs == {}


def test_a_plan_changed_after_the_start_is_not_carried_out(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    harmed, operation_id = everything(desk.host), desk.ask(EVENT_1)
    desk.start(operation_id)
    row = desk.row(operation_id)
    row.plan = row.plan.replace('["events","1"]', '["events","2"]')
    desk.session.commit()

    perform_restore.perform_restore(desk.installation, operation_id)

    assert desk.row(operation_id).status is RestoreStatus.FAILED
    assert everything(desk.host) == harmed


def test_a_plan_of_before_there_were_rows_is_read_as_it_was(desk: Desk) -> None:
    whole = desk.plan()
    assert '"kind"' not in desk.row(whole).plan
    assert isinstance(wizard.stored_plan(desk.row(whole)), RestorePlan)
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    rows = desk.row(desk.ask(EVENT_1))
    plan = wizard.stored_plan(rows)
    assert '"kind":"rows"' in rows.plan
    assert dump_canonical(plan.to_json()).decode() == rows.plan


def test_what_came_between_is_told(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(EVENT_1)
    desk.start(operation_id)
    sql(desk.host, "INSERT INTO events VALUES (1, 'one', 'One')")
    perform_restore.perform_restore(desk.installation, operation_id)

    done = desk.row(operation_id)
    assert done.status is RestoreStatus.RESTORED
    assert [(line["topic"], line["ok"]) for line in done.checks] == [("events", False), ("photos", True)]
    assert any("changed after this was planned" in warning for warning in done.warnings)


def test_a_clash_that_came_between_ends_it_with_nothing_changed(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(EVENT_1)
    desk.start(operation_id)
    sql(desk.host, "INSERT INTO events VALUES (9, 'one', 'Other')")
    harmed = everything(desk.host)
    perform_restore.perform_restore(desk.installation, operation_id)

    done = desk.row(operation_id)
    assert (done.status, everything(desk.host)) == (RestoreStatus.FAILED, harmed)
    assert "the live row 9 has the same" in done.error_message
    assert desk.audited()[0] == ("restore.finish", AuditOutcome.FAILED)


def test_it_is_cancelled_while_nothing_was_written(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    harmed, operation_id = everything(desk.host), desk.ask(EVENT_1)
    desk.start(operation_id)
    row = desk.row(operation_id)
    row.status, row.stage = RestoreStatus.RUNNING, "safety_backup"
    desk.session.commit()
    restores.cancel(desk.session, desk.installation, operation_id, ADMIN)
    row = desk.row(operation_id)
    assert row.cancel_requested
    row.stage = "swap"
    desk.session.commit()
    with pytest.raises(UsageError, match="past the point"):
        restores.cancel(desk.session, desk.installation, operation_id, ADMIN)
    assert everything(desk.host) == harmed


class SlowClock(FakeClock):
    """A clock on which whoever waits for something really waits."""

    def sleep(self, seconds: float) -> None:
        time.sleep(0.1)
        super().sleep(seconds)


def test_a_cancelled_one_has_written_nothing(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    harmed, operation_id = everything(desk.host), desk.ask(EVENT_1)
    desk.start(operation_id)
    desk.row(operation_id).cancel_requested = True
    desk.session.commit()
    slow = replace(desk.installation, clock=SlowClock(desk.host.clock.moment))

    with desk.installation.state.lock("backup"):
        perform_restore.perform_restore(slow, operation_id)

    assert desk.row(operation_id).status is RestoreStatus.CANCELLED
    assert everything(desk.host) == harmed


def test_a_process_that_is_told_to_end_says_that_the_rows_are_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(EVENT_1)
    desk.start(operation_id)

    def end(*_words: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backup_admin.operations.restore_rows.follow_links", end)
    with pytest.raises(KeyboardInterrupt):
        perform_restore.perform_restore(desk.installation, operation_id)

    done = desk.row(operation_id)
    assert (done.status, everything(desk.host)) == (RestoreStatus.RESTORED, desk.before)
    assert done.error_message == "It was ended at once, by a signal."


def test_files_that_cannot_be_read_any_more_take_no_row_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(replace(EVENT_1, linked="photos.path=uploads"))
    desk.start(operation_id)

    def gone(*_words: object) -> None:
        raise StorageUnavailable("The storage does not answer.")

    monkeypatch.setattr("backup_admin.operations.linked_files.branch_entries", gone)
    perform_restore.perform_restore(desk.installation, operation_id)

    done = desk.row(operation_id)
    assert (done.status, everything(desk.host)) == (RestoreStatus.RESTORED, desk.before)
    assert any("did not all come back: The storage does not answer." in one for one in done.warnings)


def test_a_row_whose_process_died_is_interrupted_and_nobody_waits_for_its_end(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(EVENT_1)
    desk.start(operation_id)
    row = desk.row(operation_id)
    row.status, row.heartbeat_at = RestoreStatus.RUNNING, desk.host.clock.now()
    desk.session.commit()
    desk.host.clock.advance(minutes=2)

    runs.reconcile(desk.session, desk.installation)

    done = desk.row(operation_id)
    assert done.status is RestoreStatus.INTERRUPTED
    assert done.error_message.endswith(ALL_OR_NOTHING)
    assert unfinished(desk.installation) == ()
    assert not recovery.needs_recovery(desk.session, desk.installation)
    assert recovery.recover_restores(desk.installation) == ()
    assert desk.carry_out(desk.ask(EVENT_1)).status is RestoreStatus.RESTORED
    assert everything(desk.host) == desk.before


@pytest.mark.parametrize(
    ("choice", "field", "said"),
    [
        (RowsChoice("other", rows="events:1"), "database", "Choose one"),
        (RowsChoice("main"), "tables", "Tick a table"),
        (RowsChoice("main", ("nothere",)), "tables", "no table 'nothere'"),
        (RowsChoice("main", rows="events:1\nevents"), "rows", "Line 2: write table:key"),
        (
            RowsChoice("main", rows="\nevent:1"),
            "rows",
            "Line 2: the backup has no table 'event' in main. Is it events?",
        ),
        (RowsChoice("main", rows="events:1\n" * 1001), "rows", "1,001 rows"),
        (RowsChoice("main", rows="events:1", on_conflict="no"), "on_conflict", "Choose one"),
        (RowsChoice("main", rows="events:1", on_conflict="replace"), "on_conflict", "whole tables only"),
        (RowsChoice("main", ("events",), on_conflict="copy"), "on_conflict", "single rows only"),
        (RowsChoice("main", rows="events:1", linked="photos"), "linked", "Line 1: write table.column=folder"),
        (RowsChoice("main", rows="events:1", linked="photos.path=no"), "linked", "no folder 'no'"),
    ],
)
def test_each_field_says_what_is_wrong_with_it(desk: Desk, choice: RowsChoice, field: str, said: str) -> None:
    draft = wizard.create_draft(desk.session, desk.installation, ADMIN).id
    newest = engine.open_repository(desk.session, desk.installation).find_snapshot("latest").id
    wizard.choose_snapshot(desk.session, desk.installation, draft, newest)
    held = wizard.held_rows(desk.session, desk.installation, draft)

    problems = problems_of(choice, held)

    assert list(problems) == [field]
    assert said in problems[field]


def test_an_answer_that_cannot_be_tried_out_makes_an_earlier_plan_void(desk: Desk) -> None:
    sql(desk.host, "DELETE FROM events WHERE id = 1")
    operation_id = desk.ask(EVENT_1)
    held = wizard.held_rows(desk.session, desk.installation, operation_id)
    wrong = replace(EVENT_1, rows="events:77")
    assert wizard.choose_rows(desk.session, desk.installation, operation_id, wrong, held) == {}
    with pytest.raises(RestoreRefused, match="no row of events with the key '77'"):
        wizard.review(desk.session, desk.installation, operation_id)
    assert desk.row(operation_id).plan == ""
    assert RowsChoice.from_plain(desk.row(operation_id).selection) == wrong
    with pytest.raises(UsageError, match="choose those"):
        wizard.choose_components(desk.session, desk.installation, operation_id, wizard.Choice())


def test_the_command_does_the_same_with_a_row_and_an_audit(desk: Desk) -> None:
    repository = engine.open_repository(desk.session, desk.installation)
    newest = repository.find_snapshot("latest").id

    def plan(*rows: str) -> Review[RowsPlan]:
        asked = AskedRows((), rows, "skip")
        return restore_here.plan_rows_here(desk.session, desk.installation, repository, newest, asked)

    def carry_out(review: Review[RowsPlan]) -> tuple[str, int]:
        done = restore_here.carry_out_rows_here(desk.session, desk.installation, repository, review, ADMIN)
        return done.outcome, done.exit_code

    assert carry_out(plan("main.events:1")) == ("nothing_to_do", 0)
    assert desk.audited() == []
    sql(desk.host, "DELETE FROM events WHERE id = 1", "INSERT INTO events VALUES (9, 'one', 'Other')")
    assert carry_out(plan("main.events:1")) == ("refused", 1)
    assert desk.audited() == [("restore.start", AuditOutcome.DENIED)]
    assert desk.session.query(RestoreOperation).count() == 0
    sql(desk.host, "DELETE FROM events WHERE id = 9")
    review = plan("main.events:1")
    with desk.installation.state.lock("restore"), pytest.raises(Busy):
        carry_out(review)
    assert carry_out(review) == ("restored", 0)
    assert everything(desk.host) == desk.before
    found = desk.session.query(RestoreOperation).order_by(RestoreOperation.status).all()
    assert [(one.restore_type, one.status) for one in found] == [
        ("rows", RestoreStatus.FAILED),
        ("rows", RestoreStatus.RESTORED),
    ]
