"""What the queue calls, and the worker that calls it. Arguments are ids, nothing else."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rq.scheduler
from flask import current_app
from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

from backup_admin.control import (
    app_clusters,
    perform,
    perform_restore,
    planning,
    recovery,
    runs,
    schedules,
    storage_tests,
)
from backup_admin.control.companions import Companions, die_with
from backup_admin.control.installation import (
    BACKUP_JOB,
    CLUSTER_JOB,
    PLAN_JOB,
    RESTORE_JOB,
    STORAGE_TEST_JOB,
    UNDO_JOB,
    VERIFY_JOB,
    Installation,
    QueueUnavailable,
)
from backup_admin.control.liveness import ProcessRole, say_alive, say_gone
from backup_admin.control.stream_loop import StopOnSignal, keep_streaming
from backup_admin.core.errors import BackupAdminError, ConfigurationError
from backup_admin.core.ids import is_ulid
from backup_admin.records.upgrade import require_current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from flask import Flask

    from backup_admin.core.secret import Secret

logger = logging.getLogger(__name__)

INSTALLATION = "backup_admin.installation"
"""Under this name `app.extensions` holds the `Installation`."""
_ALLOWED = (BACKUP_JOB, VERIFY_JOB, CLUSTER_JOB, PLAN_JOB, RESTORE_JOB, UNDO_JOB, STORAGE_TEST_JOB)
_FAILURE_TTL = 86_400
_WORKER_TTL = 20
_MONITORING_SECONDS = 5
_RECONCILE_SECONDS = 10
_TICK_SECONDS = 1
_WAITING = (JobStatus.QUEUED, JobStatus.STARTED, JobStatus.DEFERRED, JobStatus.SCHEDULED)

_bound: dict[str, Flask] = {}


class JobTookTooLong(BackupAdminError):
    """A job was still at work when its time was over."""

    code = "timeout"


class ForeignJob(BackupAdminError):
    """The queue held a job that is none of ours; it was not carried out."""

    code = "foreign_job"


def run_backup(run_id: str) -> None:
    """Make the snapshot a row of `backup_runs` asks for."""
    with _installation() as installation:
        perform.perform_backup(installation, run_id)


def run_verify(run_id: str) -> None:
    """Read back the snapshot a row of `backup_runs` names."""
    with _installation() as installation:
        perform.perform_verify(installation, run_id)


def run_cluster(run_id: str) -> None:
    """Take the base backup a row of `backup_runs` asks for."""
    with _installation() as installation:
        perform.perform_cluster(installation, run_id)


def run_plan(operation_id: str) -> None:
    """Make the plan that a draft of `restore_operations` asks for."""
    with _installation() as installation:
        planning.perform_plan(installation, operation_id)


def run_restore(operation_id: str) -> None:
    """Carry out the plan of a row of `restore_operations`."""
    with _installation() as installation:
        perform_restore.perform_restore(installation, operation_id)


def run_undo(operation_id: str) -> None:
    """Put back the state before the restore of a row of `restore_operations`."""
    with _installation() as installation:
        perform_restore.perform_undo(installation, operation_id)


def run_storage_test(_test_id: str) -> None:
    """Test the storage in use; the id only names the job."""
    with _installation() as installation:
        storage_tests.perform_test(installation)


def bind(app: Flask) -> None:
    """Name the app that jobs of this process, and of its children, work for."""
    _bound["app"] = app


def installation_of(app: Flask) -> Installation:
    """Return what `BackupAdmin` made of the app; raise `ConfigurationError` without one."""
    found = app.extensions.get(INSTALLATION)
    if not isinstance(found, Installation):
        raise ConfigurationError(f"The app {app.name!r} has no backup_admin; add: BackupAdmin(app)")
    return found


class RqQueue:
    """Our queue on a Redis server. It carries ids; the rows carry the truth."""

    def __init__(self, url: Secret, name: str, *, job_timeout: int) -> None:
        self._redis = Redis.from_url(url.reveal(), socket_connect_timeout=2, socket_timeout=5)
        self._queue = Queue(name, connection=self._redis, serializer=JSONSerializer)
        self._job_timeout = job_timeout

    def enqueue(self, job: str, row_id: str) -> None:
        """Hand on one row by its id, unless the queue has it already."""
        if self.knows(row_id):
            return
        with _translated():
            self._queue.enqueue_call(
                job,
                args=(row_id,),
                job_id=row_id,
                timeout=self._job_timeout,
                result_ttl=0,
                failure_ttl=_FAILURE_TTL,
                description=job.rpartition(".")[2],
            )

    def knows(self, row_id: str) -> bool:
        """Say whether the row waits in the queue or runs."""
        with _translated():
            try:
                job = Job.fetch(row_id, connection=self._redis, serializer=JSONSerializer)
            except NoSuchJobError:
                return False
            return job.get_status() in _WAITING


class OwnJob(Job):
    """A job that can be nothing but a call of our functions with one id.

    Whoever can write to the Redis server could otherwise name any function of
    any library, also as callback.
    """

    success_callback = None
    failure_callback = None
    stopped_callback = None

    def perform(self) -> Any:
        """Call our function; raise `ForeignJob` for anything else."""
        arguments = tuple(self.args or ())
        ours = self.func_name in _ALLOWED and len(arguments) == 1 and not self.kwargs
        if not ours or not isinstance(arguments[0], str) or not is_ulid(arguments[0]):
            raise ForeignJob("The queue held a job that is none of ours.")
        return super().perform()

    def send_webhooks(self, *_arguments: Any, **_options: Any) -> None:
        """Call nobody: ours have no webhooks."""


class _Deadline(UnixSignalDeathPenalty):
    """RQ's alarm, which ends a job in our words.

    RQ sets the same alarm around other things, and waits there for its own exception:
    the worker wakes by it every few seconds of a job, to say that it is alive.
    """

    def handle_death_penalty(self, signum: int, frame: FrameType | None) -> None:
        if not issubclass(self._exception, JobTimeoutException):
            super().handle_death_penalty(signum, frame)  # type: ignore[no-untyped-call]  # RQ leaves it untyped
        hours = self._timeout / 3600
        raise JobTookTooLong(f"Stopped after {hours:.1f} hours; see BACKUP_ADMIN_JOB_TIMEOUT.")


class BackupWorker(Worker):
    """RQ's worker, telling the control database that it is alive."""

    death_penalty_class = _Deadline
    installation: Installation
    companions: Companions
    default_worker_ttl: int

    def request_stop(self, signum: int, frame: Any) -> None:
        """Stop after the job at hand.

        An idle worker learns of it by an exception from the signal handler; where
        it meets code that swallows it, the flag ends the loop at its next round.
        """
        self._stop_requested = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]  # RQ leaves it untyped

    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        """Tell Redis and the control database; start again what ended beside us."""
        super().heartbeat(timeout, pipeline)
        self.companions.revive()
        with self.installation.database.new_session() as session:
            say_alive(session, self.installation.clock, ProcessRole.WORKER, perform.process_name())


def _bound_to_worker(run: Callable[[Any], None]) -> Callable[[Any], None]:
    """Let RQ's scheduler end with its worker: by itself it lives on when that is killed."""
    parent = os.getpid()

    def run_bound(scheduler: Any) -> None:
        if die_with(parent):
            run(scheduler)

    return run_bound


def work(app: Flask, *, burst: bool = False, with_scheduler_loop: bool = True) -> None:
    """Run a worker until it is told to stop; `burst` stops when nothing waits.

    The loop that starts due schedules and finds dead runs runs beside it, in a
    process that ends with this one, unless it is told not to. So do the streams.
    """
    bind(app)
    installation = installation_of(app)
    installation.require_private_state()
    require_current(installation.database)
    installation.require_queue()
    with app.app_context():
        recovery.recover_restores(installation)
    companions = Companions()
    if with_scheduler_loop:
        companions.start("scheduler", lambda: _schedule_alone(app))
    if not burst:
        _start_streams(companions, app)
    try:
        rq.scheduler.run = _bound_to_worker(rq.scheduler.run)
        worker = _worker(installation)
        worker.companions = companions
        with _translated():
            worker.work(burst=burst, with_scheduler=True, logging_level="WARNING")
    finally:
        companions.stop()
        with installation.database.new_session() as session:
            say_gone(session, ProcessRole.WORKER, perform.process_name())


def schedule(app: Flask) -> None:
    """Do without a worker what runs beside one, until stopped."""
    companions = Companions()
    _start_streams(companions, app)
    try:
        scheduler_loop(app)
    finally:
        companions.stop()


def scheduler_loop(app: Flask, *, rounds: int | None = None) -> None:
    """Start what is due each second, and find dead runs every ten, until stopped."""
    installation = installation_of(app)
    clock = installation.clock
    reconciled = float("-inf")
    with app.app_context():
        while rounds is None or rounds > 0:
            reconcile_now = clock.monotonic() - reconciled >= _RECONCILE_SECONDS
            try:
                tick_once(installation, with_reconcile=reconcile_now)
            except Exception as error:  # noqa: BLE001 - the loop must outlive one bad round
                perform.failure(installation, error, "tick")
            if reconcile_now:
                reconciled = clock.monotonic()
            rounds = None if rounds is None else rounds - 1
            clock.sleep(_TICK_SECONDS)


def tick_once(installation: Installation, *, with_reconcile: bool = True) -> tuple[str, ...]:
    """Do what the loop does once; return the ids of the runs that were started."""
    with installation.database.new_session() as session:
        started = schedules.tick(session, installation)
        if with_reconcile:
            given_up = planning.give_up_plans(session, installation, runs.SILENT_AFTER)
            for said in (*runs.reconcile(session, installation), *given_up):
                logger.warning("reconciled", extra={"what": said})
            if recovery.needs_recovery(session, installation):
                recovery.recover_restores(installation)
            recovery.remove_old_states(installation)
            storage_tests.tick(session, installation)
            started += app_clusters.tick(session, installation)
            say_alive(session, installation.clock, ProcessRole.SCHEDULER, perform.process_name())
        if installation.queue is None:
            perform.perform_waiting(session, installation)
    return started


def _worker(installation: Installation) -> BackupWorker:
    url = installation.settings.redis_url
    assert url is not None  # noqa: S101 - there is a queue
    worker = BackupWorker(
        [installation.settings.queue],
        connection=Redis.from_url(url.reveal()),
        job_class=OwnJob,
        serializer=JSONSerializer,
        job_monitoring_interval=_MONITORING_SECONDS,
        maintenance_interval=_MONITORING_SECONDS,
        work_horse_killed_handler=_killed_handler(installation),
    )
    # One name in RQ 1 and 2, another in 3; as an attribute both can be set.
    worker.default_worker_ttl = worker.worker_ttl = _WORKER_TTL
    worker.installation = installation
    return worker


def _killed_handler(installation: Installation) -> Callable[[Job, int, int, Any], None]:
    def note(job: Job, _pid: int, status: int, _usage: Any) -> None:
        with installation.database.new_session() as session:
            if not planning.give_up_plan(session, job.id, installation.clock.now()):
                runs.give_up(session, installation, job.id, f"its process was killed (wait status {status})")

    return note


def _schedule_alone(app: Flask) -> None:
    _forget_connections(app)
    scheduler_loop(app)


def _start_streams(companions: Companions, app: Flask) -> None:
    installation = installation_of(app)

    def stream() -> None:
        _forget_connections(app)
        with app.app_context():
            keep_streaming(installation, StopOnSignal())

    if installation.settings.streams and not installation.settings.read_only:
        companions.start("streams", stream)


@contextmanager
def _installation() -> Iterator[Installation]:
    """Give a job its app; it runs in a child, so no connection is carried over."""
    app: Flask = _bound.get("app") or current_app._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001
    with app.app_context():
        _forget_connections(app)
        yield installation_of(app)


def _forget_connections(app: Flask) -> None:
    installation_of(app).database.forget_connections()
    host = app.extensions.get("sqlalchemy")
    if host is None:
        return
    with app.app_context():
        for engine in host.engines.values():
            engine.dispose(close=False)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise QueueUnavailable(
            "The queue server does not answer; check that it runs and that BACKUP_ADMIN_REDIS_URL is right."
        ) from error
