"""Real workers, a real queue server, real kills: the row tells what happened."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import rq
from redis import Redis
from rq.serializers import DefaultSerializer, JSONSerializer

from backup_admin import jobs
from backup_admin.access.step_up import Act, Purpose
from backup_admin.control import (
    onboarding,
    perform,
    planning,
    restores,
    runs,
    schedules,
    storage_tests,
    verdict,
    wizard,
)
from backup_admin.control.journals import is_closed
from backup_admin.control.liveness import ProcessRole, last_seen
from backup_admin.control.restores import Confirmation, Origin
from backup_admin.control.rows_choice import RowsChoice
from backup_admin.control.runs import NewRun
from backup_admin.control.schedules import ScheduleForm
from backup_admin.control.wizard import Choice, RestoreType
from backup_admin.core.clock import SystemClock
from backup_admin.core.ids import new_ulid
from backup_admin.core.secret import Secret
from backup_admin.records import BackupRun, RestoreOperation, RestoreStatus, RunStatus, StepUp
from backup_admin.records.upgrade import upgrade
from tests.installations import ADMIN
from tests.integration.hosted import create_app, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from flask import Flask
    from sqlalchemy.orm import Session

    from backup_admin.control.installation import Installation

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Site:
    """One deployed app: its folder, its queue and the workers a test has started."""

    folder: Path
    redis_url: str
    queue: str
    app: Flask
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def installation(self) -> Installation:
        return jobs.installation_of(self.app)

    @property
    def redis(self) -> Redis:
        return Redis.from_url(self.redis_url)

    def session(self) -> Session:
        return self.installation.database.session()

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.hosted", str(self.folder), *options]
        log = (self.folder / "worker.log").open("ab")
        with log:
            worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        self.workers.append(worker)
        return worker

    def request(self) -> str:
        with self.app.app_context():
            return runs.request_run(self.session(), self.installation, NewRun(), ADMIN).id

    def run(self, run_id: str) -> BackupRun:
        with self.installation.database.new_session() as session:
            return runs.find_run(session, run_id)

    def restore(self, operation_id: str) -> RestoreOperation:
        with self.installation.database.new_session() as session:
            return wizard.find_operation(session, operation_id)

    def wait_for(self, true: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"not true in {seconds} s; {(self.folder / 'worker.log').read_text()}")
            time.sleep(0.05)

    def wait_for_run(self, run_id: str) -> BackupRun:
        active = (RunStatus.QUEUED, RunStatus.RUNNING)
        self.wait_for(lambda: self.run(run_id).status not in active)
        return self.run(run_id)

    def wait_for_restore(self, operation_id: str) -> RestoreOperation:
        active = (RestoreStatus.QUEUED, RestoreStatus.RUNNING)
        self.wait_for(lambda: self.restore(operation_id).status not in active)
        return self.restore(operation_id)

    def hang(self, name: str) -> None:
        (self.folder / f"hang-{name}").touch()

    def wait_until_it_hangs(self, name: str) -> None:
        self.wait_for((self.folder / f"hangs-{name}").exists)

    def release(self, name: str) -> None:
        (self.folder / f"hang-{name}").unlink()
        (self.folder / f"hangs-{name}").unlink(missing_ok=True)


@pytest.fixture
def site(tmp_path: Path, valkey: str) -> Iterator[Site]:
    """A deployed app whose set-up is finished; its workers end with the test."""
    queue = f"test-{uuid4().hex[:12]}"
    write_config(tmp_path, valkey, queue)
    app = create_app(tmp_path)
    site = Site(tmp_path, valkey, queue, app)
    upgrade(site.installation.database)
    with site.installation.database.new_session() as session:
        onboarding.choose_storage(session, site.installation, str(tmp_path / "storage"), ADMIN)
        made = onboarding.make_repository(session, site.installation, ADMIN)
        typed = tuple(made.groups[number - 1].reveal() for number in made.asked)
        onboarding.confirm_recovery_key(session, site.installation, typed, ADMIN)
    yield site
    for worker in site.workers:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


def test_a_backup_goes_through_queue_and_worker(site: Site) -> None:
    run_id = site.request()
    stored = site.redis.hget(f"rq:job:{run_id}", "data")
    assert isinstance(stored, bytes)
    name, _, arguments, options = json.loads(zlib.decompress(stored))
    assert (name, arguments, options) == ("backup_admin.jobs.run_backup", [run_id], {})
    site.start_worker()
    run = site.wait_for_run(run_id)
    assert (run.status, run.error_message) == (RunStatus.COMPLETED, "")
    assert run.bytes_read > 0
    assert run.worker
    site.wait_for(lambda: not site.redis.exists(f"rq:job:{run_id}"))


def test_a_test_of_the_storage_goes_through_queue_and_worker(site: Site) -> None:
    with site.app.app_context():
        before = storage_tests.newest_test(site.session(), site.installation.settings)
        assert before is not None
        assert storage_tests.ask_for_test(site.session(), site.installation, ADMIN)
    site.start_worker()

    def is_tested() -> bool:
        with site.installation.database.new_session() as session:
            found = storage_tests.newest_test(session, site.installation.settings)
            return found is not None and found.at > before.at

    site.wait_for(is_tested)


def test_the_verdict_sees_workers_come_and_go(site: Site) -> None:
    assert "no worker answers" in said(site)
    worker = site.start_worker()
    site.wait_for(lambda: "no worker answers" not in said(site))
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    assert "no worker answers" in said(site)


def said(site: Site) -> str:
    run_id = site_good_backup(site)
    assert run_id
    with site.installation.database.new_session() as session:
        return " ".join(verdict.judge(session, site.installation).details)


def site_good_backup(site: Site) -> str:
    """Make one good backup in this process, so that only the worker is missing."""
    with site.installation.database.new_session() as session:
        found = session.query(BackupRun).filter_by(status=RunStatus.COMPLETED).first()
        if found is not None:
            return found.id
        run = runs.create_run(session, site.installation, NewRun(), ADMIN)
    perform.perform_backup(site.installation, run.id)
    return run.id


def test_a_killed_job_is_told_at_once_and_the_next_one_works(site: Site) -> None:
    site.hang("settings")
    site.start_worker("--no-scheduler")
    run_id = site.request()
    site.wait_until_it_hangs("settings")
    horse = int(site.run(run_id).worker.rpartition(":")[2])
    started = time.monotonic()
    os.kill(horse, signal.SIGKILL)
    run = site.wait_for_run(run_id)
    assert time.monotonic() - started < 15
    assert (run.status, "killed" in run.error_message) == (RunStatus.INTERRUPTED, True)
    site.release("settings")
    assert site.wait_for_run(site.request()).status is RunStatus.COMPLETED


def test_a_worker_outlives_a_long_job_and_does_the_next_one(site: Site) -> None:
    worker = site.start_worker()
    site.hang("settings")
    run_id = site.request()
    site.wait_until_it_hangs("settings")
    seconds = 2 * jobs._MONITORING_SECONDS + 2  # RQ's alarm in the worker goes off twice meanwhile
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert worker.poll() is None, (site.folder / "worker.log").read_text()
        time.sleep(0.2)
    with site.installation.database.new_session() as session:
        heard = last_seen(session, site.installation.clock, ProcessRole.WORKER)
    assert heard.at is not None
    assert site.installation.clock.now() - heard.at < timedelta(seconds=seconds - 2)
    site.release("settings")
    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED
    assert site.wait_for_run(site.request()).status is RunStatus.COMPLETED
    assert worker.poll() is None


def test_a_job_whose_time_is_over_is_ended_and_its_worker_does_the_next_one(site: Site) -> None:
    worker = site.start_worker()
    site.hang("settings")
    seconds = jobs._MONITORING_SECONDS + 2  # the worker wakes by an alarm of its own before
    hasty = jobs.RqQueue(Secret(site.redis_url), site.queue, job_timeout=seconds)
    with site.installation.database.new_session() as session:
        run = runs.create_run(session, site.installation, NewRun(), ADMIN)
        runs.hand_on(session, replace(site.installation, queue=hasty), run)
        run_id = run.id
    site.wait_until_it_hangs("settings")
    run = site.wait_for_run(run_id)
    assert (run.status, "BACKUP_ADMIN_JOB_TIMEOUT" in run.error_message) == (RunStatus.FAILED, True)
    site.release("settings")
    assert site.wait_for_run(site.request()).status is RunStatus.COMPLETED
    assert worker.poll() is None


@dataclass(frozen=True)
class Later(SystemClock):
    """The clock of the machine, some time ahead."""

    by: timedelta

    def now(self) -> datetime:
        return super().now() + self.by


def test_worker_and_job_killed_together_leave_an_interrupted_run(site: Site) -> None:
    site.hang("settings")
    worker = site.start_worker("--no-scheduler")
    run_id = site.request()
    site.wait_until_it_hangs("settings")
    os.killpg(worker.pid, signal.SIGKILL)
    os.kill(int(site.run(run_id).worker.rpartition(":")[2]), signal.SIGKILL)
    worker.wait()
    with site.installation.database.new_session() as session:
        runs.reconcile(session, site.installation)
    assert site.run(run_id).status is RunStatus.RUNNING
    later = replace(site.installation, clock=Later(timedelta(seconds=90)))
    with site.installation.database.new_session() as session:
        runs.reconcile(session, later)
    assert site.run(run_id).status is RunStatus.INTERRUPTED
    site.release("settings")
    site.start_worker()
    assert site.wait_for_run(site.request()).status is RunStatus.COMPLETED


def test_a_job_whose_worker_died_ends_its_work_and_its_row(site: Site) -> None:
    site.hang("settings")
    worker = site.start_worker("--no-scheduler")
    run_id = site.request()
    site.wait_until_it_hangs("settings")
    worker.kill()
    worker.wait()
    site.release("settings")
    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED


def test_a_running_backup_hears_that_it_shall_stop(site: Site) -> None:
    site.hang("settings")
    site.start_worker("--no-scheduler")
    run_id = site.request()
    site.wait_until_it_hangs("settings")
    with site.installation.database.new_session() as session:
        runs.cancel_run(session, site.installation, run_id, ADMIN)
    time.sleep(1.5)
    site.release("settings")
    run = site.wait_for_run(run_id)
    assert (run.status, run.snapshot_id) == (RunStatus.CANCELLED, "")


def test_a_flushed_queue_loses_no_run(site: Site) -> None:
    run_id = site.request()
    site.redis.delete(f"rq:job:{run_id}", f"rq:queue:{site.queue}")
    later = replace(site.installation, clock=Later(timedelta(seconds=30)))
    with site.installation.database.new_session() as session:
        runs.reconcile(session, later)
    site.start_worker()
    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED


def test_the_loop_beside_the_worker_starts_what_is_due_and_ends_with_it(site: Site) -> None:
    with site.installation.database.new_session() as session:
        form = ScheduleForm("minutely", "* * * * *", "UTC")
        schedule = schedules.create_schedule(session, site.installation, form, ADMIN)
        schedule.next_run_at = site.installation.clock.now()
        session.commit()
    worker = site.start_worker()
    site.wait_for(lambda: count_runs(site) >= 1)
    companion = children(worker.pid)
    assert companion
    worker.kill()
    worker.wait()
    site.wait_for(lambda: not any(is_alive(pid) for pid in companion), 10)


def test_two_workers_and_two_loops_start_each_slot_once(site: Site) -> None:
    with site.installation.database.new_session() as session:
        form = ScheduleForm("nightly", "0 2 * * *", "UTC")
        schedule = schedules.create_schedule(session, site.installation, form, ADMIN)
        schedule.next_run_at = site.installation.clock.now()
        session.commit()
    site.start_worker()
    site.start_worker()
    site.wait_for(lambda: count_runs(site) >= 1)
    time.sleep(3)
    assert count_runs(site) == 1


@pytest.mark.parametrize("serializer", [JSONSerializer, DefaultSerializer])
def test_a_foreign_job_is_not_carried_out(site: Site, serializer: Any) -> None:
    target = site.folder / "pwned"
    queue = rq.Queue(site.queue, connection=site.redis, serializer=serializer)
    foreign = queue.enqueue_call("os.mkdir", args=(str(target),))
    ours = queue.enqueue_call("backup_admin.jobs.bind", args=(new_ulid(SystemClock().now()),))
    site.start_worker("--no-scheduler")
    run_id = site.request()
    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED
    assert not target.exists()
    for job in (foreign, ours):
        assert site.redis.hget(f"rq:job:{job.id}", "status") == b"failed"


def test_callbacks_of_a_job_are_not_called(site: Site) -> None:
    run_id = site.request()
    site.redis.hset(f"rq:job:{run_id}", "success_callback_name", "tests.integration.test_jobs.bad_callback")
    site.redis.hset(f"rq:job:{run_id}", "failure_callback_name", "tests.integration.test_jobs.bad_callback")
    site.start_worker("--no-scheduler")
    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED
    site.wait_for(lambda: not site.redis.exists(f"rq:job:{run_id}"))
    assert not (ROOT / "callback-was-here").exists()


def bad_callback(*_: object) -> None:
    (ROOT / "callback-was-here").touch()


def test_a_restore_runs_in_the_worker_and_can_be_undone(site: Site) -> None:
    site.start_worker()
    operation_id = confirmed_restore(site)
    done = site.wait_for_restore(operation_id)
    assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
    assert contents(site) == ("one", ["a", "b", "c"])
    grant(site, Act(Purpose.UNDO, operation_id))
    with site.installation.database.new_session() as session:
        restores.undo(session, site.installation, operation_id, confirmation())
    done = site.wait_for_restore(operation_id)
    assert (done.status, done.error_message) == (RestoreStatus.UNDONE, "")
    assert contents(site) == ("changed", ["b", "c"])


@pytest.mark.parametrize(
    ("place", "status", "after"),
    [
        ("maintenance", RestoreStatus.ROLLED_BACK, ("changed", ["b", "c"])),
        ("check", RestoreStatus.RESTORED, ("one", ["a", "b", "c"])),
    ],
)
def test_a_killed_restore_is_brought_to_an_end_by_the_next_worker(
    site: Site, place: str, status: RestoreStatus, after: object
) -> None:
    site.hang(place)
    worker = site.start_worker()
    operation_id = confirmed_restore(site)
    site.wait_until_it_hangs(place)
    assert is_closed(site.installation)
    client = site.app.test_client()
    horse = int(site.restore(operation_id).worker.rpartition(":")[2])
    os.killpg(worker.pid, signal.SIGKILL)
    os.kill(horse, signal.SIGKILL)
    worker.wait()
    assert client.get("/").status_code == 503
    site.release(place)
    site.start_worker()
    site.wait_for(lambda: site.restore(operation_id).status is status)
    assert contents(site) == after
    assert not is_closed(site.installation)
    assert client.get("/").status_code == 404


def test_a_restore_of_rows_whose_process_is_killed_is_found_out_about(site: Site) -> None:
    operation_id = confirmed_restore(site, RowsChoice("main", rows="photos:1"))
    site.start_worker()
    with closing(sqlite3.connect(site.folder / "app.db")) as busy:
        busy.execute("BEGIN IMMEDIATE")  # so it waits at the very place where it would write
        site.wait_for(lambda: site.restore(operation_id).stage == "swap")
        os.kill(int(site.restore(operation_id).worker.rpartition(":")[2]), signal.SIGKILL)
        site.wait_for(lambda: site.restore(operation_id).status is not RestoreStatus.RUNNING)
    site.wait_for(lambda: site.restore(operation_id).status is RestoreStatus.ROLLED_BACK)
    assert "Nothing live was changed." in site.restore(operation_id).error_message
    assert contents(site) == ("changed", ["b", "c"])
    again = confirmed_restore(site, RowsChoice("main", rows="photos:1"))
    done = site.wait_for_restore(again)
    assert (done.status, done.error_message) == (RestoreStatus.RESTORED, "")
    assert contents(site) == ("changed", ["a", "b", "c"])


def test_a_plan_is_made_by_the_worker_and_given_up_when_its_process_is_killed(site: Site) -> None:
    operation_id = confirmed_restore(site, RowsChoice("main", rows="photos:1"))
    site.start_worker()
    assert site.wait_for_restore(operation_id).status is RestoreStatus.RESTORED
    with closing(sqlite3.connect(site.folder / "app.db")) as connection, connection:
        connection.execute("DELETE FROM photos WHERE title = 'a'")
    installation = site.installation

    def ask() -> str:
        with installation.database.new_session() as session:
            draft = wizard.create_draft(session, installation, ADMIN).id
            wizard.choose_snapshot(session, installation, draft, site.restore(operation_id).snapshot_id)
            wizard.choose_type(session, installation, draft, RestoreType.ROWS)
            held = wizard.held_rows(session, installation, draft)
            wizard.choose_rows(session, installation, draft, RowsChoice("main", rows="photos:1"), held)
            planning.ask_for_plan(session, installation, draft)
        return draft

    good = ask()
    site.wait_for(lambda: not planning.is_planning(site.restore(good)))
    assert (site.restore(good).error_message, site.restore(good).plan != "") == ("", True)
    with closing(sqlite3.connect(site.folder / "app.db")) as busy:
        busy.execute("BEGIN IMMEDIATE")  # so it waits where it would write
        killed = ask()
        site.wait_for(lambda: site.restore(killed).stage == "plan")
        os.kill(int(site.restore(killed).worker.rpartition(":")[2]), signal.SIGKILL)
        site.wait_for(lambda: not planning.is_planning(site.restore(killed)))
    assert site.restore(killed).error_message.startswith("The plan was not made:")


def confirmed_restore(site: Site, rows: RowsChoice | None = None) -> str:
    """Make a backup, change everything, and confirm a full restore, or one of rows."""
    site_good_backup(site)
    (site.folder / "uploads" / "one.txt").write_text("changed")
    with closing(sqlite3.connect(site.folder / "app.db")) as connection:
        connection.execute("DELETE FROM photos WHERE title = 'a'")
        connection.commit()
    installation = site.installation
    with installation.database.new_session() as session:
        operation_id = wizard.create_draft(session, installation, ADMIN).id
        newest = session.query(BackupRun).filter_by(status=RunStatus.COMPLETED).one()
        wizard.choose_snapshot(session, installation, operation_id, newest.snapshot_id)
        kind = RestoreType.FULL if rows is None else RestoreType.ROWS
        wizard.choose_type(session, installation, operation_id, kind)
        if rows is None:
            wizard.choose_components(session, installation, operation_id, Choice())
        else:
            held = wizard.held_rows(session, installation, operation_id)
            assert wizard.choose_rows(session, installation, operation_id, rows, held) == {}
        digest = wizard.review(session, installation, operation_id).digest
    grant(site, Act(Purpose.RESTORE, digest))
    with installation.database.new_session() as session:
        restores.start(session, installation, operation_id, confirmation())
    return operation_id


def confirmation() -> Confirmation:
    return Confirmation(ADMIN, Origin("127.0.0.1"), "gallery", "a test")


def grant(site: Site, act: Act) -> None:
    """Stand in for a code: the step-up itself has tests of its own."""
    now = site.installation.clock.now()
    with site.installation.database.new_session() as session:
        session.add(
            StepUp(
                user_id=ADMIN.id,
                login_id=ADMIN.login_id,
                purpose=act.purpose.value,
                plan_digest=act.digest,
                created_at=now,
                expires_at=now + timedelta(minutes=5),
            )
        )
        session.commit()


def contents(site: Site) -> tuple[str, list[str]]:
    with closing(sqlite3.connect(site.folder / "app.db")) as connection:
        titles = [row[0] for row in connection.execute("SELECT title FROM photos ORDER BY id")]
    return (site.folder / "uploads" / "one.txt").read_text(), titles


def count_runs(site: Site) -> int:
    with site.installation.database.new_session() as session:
        return session.query(BackupRun).count()


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_delayed_job_is_started_by_rqs_own_scheduler(site: Site) -> None:
    with site.installation.database.new_session() as session:
        run_id = runs.create_run(session, site.installation, NewRun(), ADMIN).id
    queue = rq.Queue(site.queue, connection=site.redis, serializer=JSONSerializer)
    queue.enqueue_in(timedelta(seconds=1), "backup_admin.jobs.run_backup", run_id, job_id=run_id)

    site.start_worker()

    assert site.wait_for_run(run_id).status is RunStatus.COMPLETED


def test_no_process_outlives_a_killed_worker(site: Site) -> None:
    worker = site.start_worker()
    site.wait_for(lambda: len(children_of(worker.pid)) >= 2)
    children = children_of(worker.pid)

    worker.send_signal(signal.SIGKILL)
    worker.wait()

    site.wait_for(lambda: not any(is_alive(child) for child in children), seconds=20)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
