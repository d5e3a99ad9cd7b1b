"""A small host app with the pages mounted, for tests that look at the pages."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flask import Flask, request, session, url_for

from backup_admin import BackupAdmin, jobs
from backup_admin.control import onboarding, perform, perform_restore, planning, storage_tests
from backup_admin.control.installation import (
    BACKUP_JOB,
    PLAN_JOB,
    RESTORE_JOB,
    STORAGE_TEST_JOB,
    UNDO_JOB,
    VERIFY_JOB,
    Installation,
    QueueUnavailable,
)
from backup_admin.core.clock import SystemClock
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta
    from pathlib import Path

    from flask.testing import FlaskClient

    from backup_admin.access.permissions import Actor
    from backup_admin.core.clock import Clock

PREFIX = "/backup-admin"
APP_NAME = "Gallery"


class ShiftedClock(SystemClock):
    """The clock of the machine, which a test can put forward."""

    def __init__(self) -> None:
        self.shift: timedelta | None = None

    def now(self) -> datetime:
        """Return the time, shifted."""
        now = super().now()
        return now + self.shift if self.shift is not None else now


@dataclass(slots=True)
class ListQueue:
    """A queue that keeps what it is given, until a test works it off."""

    waiting: list[tuple[str, str]] = field(default_factory=list)
    broken: bool = False

    def enqueue(self, job: str, row_id: str) -> None:
        """Keep a job."""
        if self.broken:
            raise QueueUnavailable("The queue server does not answer.")
        self.waiting.append((job, row_id))

    def knows(self, row_id: str) -> bool:
        """Say whether a row waits."""
        return any(waiting == row_id for _, waiting in self.waiting)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in to the host; the role is its name."""

    name: str

    def get_id(self) -> str:
        """Return the stable id."""
        return f"id-{self.name}"


class SessionUsers:
    """The people of the host: a name in the session."""

    def current(self) -> Any:
        """Return who is signed in."""
        name = session.get("person")
        return Person(name) if name else None

    def id(self, user: Any) -> str:
        """Return the stable id."""
        return str(user.get_id())

    def display(self, user: Any) -> str:
        """Return the name."""
        return str(user.name)

    def sign_in_url(self, back: str) -> str | None:
        """Return the host's own page."""
        return url_for("sign_in", next=back)


@dataclass(frozen=True, slots=True)
class Host:
    """The app, and what a test needs of it."""

    app: Flask
    queue: ListQueue
    folder: Path

    @property
    def installation(self) -> Installation:
        """Return what the app has of us."""
        return jobs.installation_of(self.app)

    def client(self, person: str | None = "admin") -> FlaskClient:
        """Return a client, signed in as a person with the role of that name."""
        client = self.app.test_client()
        if person is not None:
            with client.session_transaction() as data:
                data["person"] = person
        return client

    def read_only(self) -> None:
        """Let the deployment only show."""
        self._set(read_only=True)

    def allow(self, *networks: str) -> None:
        """Let restores come from these addresses only."""
        self._set(restore_ip_allowlist=networks)

    def _set(self, **values: Any) -> None:
        settings = replace(self.installation.settings, **values)
        self.app.extensions[jobs.INSTALLATION] = replace(self.installation, settings=settings)

    def work(self) -> None:
        """Do what waits in the queue."""
        work_for(self.app)

    def set_up(self, actor: Actor) -> None:
        """Make the repository and confirm its recovery key."""
        with self.app.app_context():
            session_, installation = self.installation.database.session(), self.installation
            made = onboarding.make_repository(session_, installation, actor)
            typed = tuple(made.groups[number - 1].reveal() for number in made.asked)
            onboarding.confirm_recovery_key(session_, installation, typed, actor)


def work_for(app: Flask) -> None:
    """Do what waits in the queue of an app."""
    installation = jobs.installation_of(app)
    queue = installation.queue
    assert isinstance(queue, ListQueue)
    while queue.waiting:
        job, row_id = queue.waiting.pop(0)
        with app.app_context():
            _WORKERS[job](installation, row_id)


_WORKERS: dict[str, Callable[[Installation, str], None]] = {
    BACKUP_JOB: perform.perform_backup,
    VERIFY_JOB: perform.perform_verify,
    PLAN_JOB: planning.perform_plan,
    RESTORE_JOB: perform_restore.perform_restore,
    UNDO_JOB: perform_restore.perform_undo,
    STORAGE_TEST_JOB: lambda installation, _: storage_tests.perform_test(installation),
}


def create_host(folder: Path, *, clock: Clock | None = None, **config: Any) -> Host:
    """Create the app in an empty folder; its control database is there."""
    _fill(folder)
    app = Flask("gallery", instance_path=str(folder / "instance"))
    app.config.from_mapping(_config(folder))
    app.config.update(config)
    app.add_url_rule("/", "index", lambda: "The page of the host")
    app.add_url_rule("/sign-in", "sign_in", sign_in)
    app.add_url_rule("/form", "form", lambda: f"Got {request.form['value']}", methods=["POST"])
    backup_admin = BackupAdmin(app, users=SessionUsers(), clock=clock)
    backup_admin.permission_loader(lambda person: [person.name])
    queue = ListQueue()
    app.extensions[jobs.INSTALLATION] = replace(jobs.installation_of(app), queue=queue)
    upgrade(jobs.installation_of(app).database)
    return Host(app, queue, folder)


def sign_in() -> str:
    """Sign in to the host as the person with the role of that name."""
    session["person"] = request.args.get("as", "admin")
    return "Signed in"


def _config(folder: Path) -> dict[str, Any]:
    return {
        "SECRET_KEY": "a secret of the host",
        "TESTING": False,
        "PROPAGATE_EXCEPTIONS": False,
        "BACKUP_ADMIN_APP_NAME": APP_NAME,
        "BACKUP_ADMIN_ENVIRONMENT": "production",
        "BACKUP_ADMIN_STATE_DIR": str(folder / "state"),
        "BACKUP_ADMIN_STORAGE": str(folder / "backups"),
        "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
        "BACKUP_ADMIN_DATABASES": {"gallery": str(folder / "gallery.db")},
        "BACKUP_ADMIN_FILES": {"photos": {"path": str(folder / "photos"), "exclude": ["temp/"]}},
    }


def _fill(folder: Path) -> None:
    photos = folder / "photos" / "2026"
    photos.mkdir(parents=True)
    for number in range(12):
        (photos / f"IMG_{number:04}.jpg").write_bytes(bytes([number]) * 20_000)
    with closing(sqlite3.connect(folder / "gallery.db")) as database, database:
        for table, rows in (("events", 12), ("photos", 340), ("guests", 57)):
            database.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
            database.executemany(
                f"INSERT INTO {table} (name) VALUES (?)", ((f"{table} {n}",) for n in range(rows))
            )
