"""Builders for what the control layer works with: an app folder, a clock, a queue."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyotp
from flask import Flask
from limits.storage import MemoryStorage

from backup_admin.access import second_factor, step_up
from backup_admin.access.permissions import Actor, Permission
from backup_admin.access.second_factor import Attempts
from backup_admin.access.step_up import Act, Purpose, login_id
from backup_admin.control import onboarding, perform, runs
from backup_admin.control.installation import Hooks, Installation, QueueUnavailable
from backup_admin.control.runs import NewRun
from backup_admin.core.settings import load_settings
from backup_admin.records import BackupRun, Database
from backup_admin.records.upgrade import upgrade
from backup_admin.repository.secrets import generate_application_key

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

START = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
ADMIN = Actor(
    id="7",
    name="Ada",
    address="10.0.0.5",
    login_id=login_id("a login"),
    request_id="r1",
    granted=frozenset(Permission),
)


@dataclass(slots=True)
class FakeClock:
    """A clock that only moves when told to, or slept on."""

    moment: datetime = START
    ticks: float = 1000.0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.ticks

    def sleep(self, seconds: float) -> None:
        self.advance(seconds=seconds)

    def advance(self, **parts: float) -> None:
        step = timedelta(**parts)
        self.moment += step
        self.ticks += step.total_seconds()


@dataclass(slots=True)
class FakeQueue:
    """A queue that remembers, forgets, or is down."""

    jobs: dict[str, str] = field(default_factory=dict)
    down: bool = False

    def enqueue(self, job: str, row_id: str) -> None:
        self._answer()
        self.jobs[row_id] = job

    def knows(self, row_id: str) -> bool:
        self._answer()
        return row_id in self.jobs

    def _answer(self) -> None:
        if self.down:
            raise QueueUnavailable("The queue server does not answer.")


@dataclass(slots=True)
class Host:
    """One app folder with a database, a folder of uploads and backup_admin."""

    folder: Path
    installation: Installation
    clock: FakeClock
    queue: FakeQueue
    app: Flask

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads"

    @property
    def database_file(self) -> Path:
        return self.folder / "app.db"


def make_host(folder: Path, **config: Any) -> Host:
    """Make an app with one database and one folder, a key, and a queue that remembers."""
    make_contents(folder)
    app = Flask("gallery", instance_path=str(folder / "instance"))
    values: dict[str, Any] = {
        "SECRET_KEY": "host secret",
        "BACKUP_ADMIN_KEY": generate_application_key().reveal(),
        "BACKUP_ADMIN_APP_NAME": "gallery",
        "BACKUP_ADMIN_DATABASES": {"main": str(folder / "app.db")},
        "BACKUP_ADMIN_FILES": {"uploads": str(folder / "uploads")},
        **config,
    }
    app.config.update({key: value for key, value in values.items() if value is not None})
    settings = load_settings(app.config, {}, instance=folder / "instance")
    database = Database(settings.database_uri)
    database.init_app(app)
    upgrade(database)
    clock, queue = FakeClock(), FakeQueue()
    attempts = Attempts(MemoryStorage())
    installation = Installation(settings, database, Hooks(), clock, attempts, queue)
    return Host(folder, installation, clock, queue, app)


def set_up(host: Host) -> None:
    """Choose a storage, make the repository and confirm the recovery key."""
    with host.installation.database.new_session() as session:
        if not host.installation.settings.storage:
            onboarding.choose_storage(session, host.installation, str(host.folder / "storage"), ADMIN)
        made = onboarding.make_repository(session, host.installation, ADMIN)
        typed = tuple(made.groups[number - 1].reveal() for number in made.asked)
        onboarding.confirm_recovery_key(session, host.installation, typed, ADMIN)


def back_up(host: Host, *, label: str = "") -> BackupRun:
    """Make a backup as a command does, and return its row."""
    with host.installation.database.new_session() as session:
        run = runs.create_run(session, host.installation, NewRun(label=label), ADMIN)
    perform.perform_backup(host.installation, run.id)
    return find_run(host, run.id)


def find_run(host: Host, run_id: str) -> BackupRun:
    """Return a row as it is now."""
    with host.installation.database.new_session() as session:
        return runs.find_run(session, run_id)


def make_contents(folder: Path) -> None:
    """Make a small live database and some files."""
    uploads = folder / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    (uploads / "one.txt").write_bytes(b"one")
    (uploads / "two.txt").write_bytes(b"two" * 1000)
    connection = sqlite3.connect(folder / "app.db")
    connection.execute("CREATE TABLE IF NOT EXISTS photos (id INTEGER PRIMARY KEY, title TEXT)")
    connection.executemany("INSERT INTO photos (title) VALUES (?)", [("a",), ("b",), ("c",)])
    connection.commit()
    connection.close()


def grant(session: Session, host: Host, purpose: Purpose, digest: str = "") -> None:
    """Enrol an authenticator and prove it for one purpose."""
    tools = host.installation.authenticators()
    made = second_factor.begin_enrolment(session, tools, user_id=ADMIN.id, account="a", issuer="b")
    totp = pyotp.TOTP(made.secret.reveal())
    code = totp.at(host.clock.now())
    second_factor.confirm_enrolment(session, tools, user_id=ADMIN.id, address="a", code=code)
    host.clock.advance(minutes=1)
    step_up.prove(
        session,
        tools,
        host.installation.audit(),
        actor=ADMIN,
        act=Act(purpose, digest),
        code=totp.at(host.clock.now()),
    )
