"""The control database beside a host's own, and its migrations."""

from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from flask import Flask
from flask_login import LoginManager
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_wtf import CSRFProtect
from sqlalchemy import Column, Integer, String, text
from sqlalchemy.exc import IntegrityError

from backup_admin.core.errors import ConfigurationError
from backup_admin.core.secret import Secret
from backup_admin.records import BackupRun, BackupSchedule, Base, Database, RunKind, RunStatus, Trigger
from backup_admin.records.database import EXTENSION
from backup_admin.records.upgrade import VERSION_TABLE, current_revision, is_current, require_current, upgrade
from tests.installations import START

if TYPE_CHECKING:
    from pathlib import Path


def make_database(folder: Path, app: Flask | None = None) -> Database:
    database = Database(Secret(f"sqlite:///{folder / 'state' / 'state.db'}"))
    database.init_app(app or Flask("host"))
    return database


def make_run(run_id: str, **values: Any) -> BackupRun:
    fields = {"target": "backup", "kind": RunKind.BACKUP, "trigger": Trigger.MANUAL, "created_at": START}
    return BackupRun(id=run_id, **{**fields, **values})


@pytest.mark.parametrize("host_first", [True, False])
def test_host_and_ours_work_side_by_side_in_either_order(tmp_path: Path, host_first: bool) -> None:
    app = Flask("host", instance_path=str(tmp_path / "instance"))
    app.config["SECRET_KEY"] = "x"
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'host.db'}"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"pool_size": 3}
    host = SQLAlchemy()
    ours = Database(Secret(f"sqlite:///{tmp_path / 'state' / 'state.db'}"))

    class Photo(host.Model):  # type: ignore[misc, name-defined] # publishes no types
        id = Column(Integer, primary_key=True)
        title = Column(String)

    def init_host() -> None:
        host.init_app(app)
        Migrate(app, host)
        LoginManager(app)
        CSRFProtect(app)

    for init in (
        (init_host, lambda: ours.init_app(app)) if host_first else (lambda: ours.init_app(app), init_host)
    ):
        init()
    upgrade(ours)

    assert app.extensions["sqlalchemy"] is host
    assert app.extensions[EXTENSION] is ours
    assert app.extensions["migrate"].db is host
    assert app.config["SQLALCHEMY_DATABASE_URI"] == f"sqlite:///{tmp_path / 'host.db'}"
    assert app.config["SQLALCHEMY_ENGINE_OPTIONS"] == {"pool_size": 3}
    with app.app_context():
        host.create_all()
        host.session.add(Photo(title="theirs"))
        ours.session.add(make_run("r1"))
        ours.session.commit()
        host.session.rollback()
    assert tables(tmp_path / "host.db") == {"photo"}
    assert "photo" not in tables(tmp_path / "state" / "state.db")
    with app.app_context():
        assert ours.session.get(BackupRun, "r1") is not None
        assert host.session.query(Photo).count() == 0


def test_a_host_without_database_keeps_an_untouched_configuration(tmp_path: Path) -> None:
    app = Flask("host")
    before = dict(app.config)
    make_database(tmp_path, app)
    assert dict(app.config) == before
    assert "sqlalchemy" not in app.extensions


def test_upgrade_makes_a_private_database_as_the_models_say(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    assert current_revision(database) == ""
    assert not (tmp_path / "state").exists()

    upgrade(database)
    upgrade(database)

    with database.own_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 10_000
    assert is_current(database)
    assert mode(tmp_path / "state") == 0o700
    for file in (tmp_path / "state").iterdir():
        assert mode(file) == 0o600, file.name


def test_an_old_database_is_told_and_never_migrated_silently(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    with pytest.raises(ConfigurationError, match="flask backup upgrade"):
        require_current(database)
    upgrade(database)
    with sqlite3.connect(tmp_path / "state" / "state.db") as connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '0000'")
    with pytest.raises(ConfigurationError, match="is at 0000"):
        require_current(database)


@pytest.mark.parametrize("address", ["mysql://x/y", "sqlite://", "sqlite:///relative.db", "nonsense"])
def test_an_address_that_cannot_hold_our_state_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="BACKUP_ADMIN_DATABASE_URI"):
        Database(Secret(address)).init_app(Flask("host"))


def test_a_second_active_run_of_a_target_is_refused_by_the_database(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    upgrade(database)
    with database.new_session() as session:
        session.add(make_run("r1"))
        session.commit()
        session.add(make_run("r2", status=RunStatus.RUNNING))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add(make_run("r3", status=RunStatus.COMPLETED))
        session.add(make_run("r4", target="verify", kind=RunKind.VERIFY))
        session.commit()


def test_a_slot_of_a_schedule_has_one_run_for_ever(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    upgrade(database)
    with database.new_session() as session:
        schedule = BackupSchedule(name="nightly", cron="0 2 * * *", created_at=START, updated_at=START)
        session.add(schedule)
        session.flush()
        done = {"status": RunStatus.COMPLETED, "schedule_id": schedule.id, "slot": "20260310T0200Z"}
        session.add(make_run("r1", **done))
        session.commit()
        session.add(make_run("r2", **done))
        with pytest.raises(IntegrityError):
            session.commit()


def test_times_come_back_aware_and_naive_ones_are_refused(tmp_path: Path) -> None:
    database = make_database(tmp_path)
    upgrade(database)
    with database.new_session() as session:
        session.add(make_run("r1"))
        session.commit()
    with database.new_session() as session:
        run = session.get(BackupRun, "r1")
        assert run is not None
        assert run.created_at == START
        assert run.status is RunStatus.QUEUED
        session.add(make_run("r2", created_at=START.replace(tzinfo=None)))
        with pytest.raises(Exception, match="without a zone"):
            session.flush()


def tables(file: Path) -> set[str]:
    with sqlite3.connect(file) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
