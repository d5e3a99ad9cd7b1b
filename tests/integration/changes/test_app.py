"""An app with a PostgreSQL database: its scheduled runs are skipped while nothing changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.control import perform, runs, schedules
from backup_admin.control.schedules import ScheduleForm
from backup_admin.records import BackupRun, RunStatus
from tests.installations import ADMIN, Host, back_up, make_host, set_up

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


def tick(host: Host) -> BackupRun:
    host.clock.advance(hours=1)
    with host.installation.database.new_session() as session:
        (run_id,) = schedules.tick(session, host.installation)
    perform.perform_backup(host.installation, run_id)
    with host.installation.database.new_session() as session:
        return runs.find_run(session, run_id)


def test_a_scheduled_run_is_skipped_until_a_row_changes(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.new_database()
    address = postgres.address(name)
    with psycopg.connect(address, autocommit=True) as app:
        app.execute("CREATE TABLE photos (id serial PRIMARY KEY, path text)")
        app.execute("CREATE TABLE sessions (id serial PRIMARY KEY, token text)")
        host = make_host(
            tmp_path,
            BACKUP_ADMIN_DATABASES={"main": address},
            BACKUP_ADMIN_FILES=None,
            BACKUP_ADMIN_CHANGE_IGNORE_TABLES="main.sessions",
        )
        set_up(host)
        assert back_up(host).status is RunStatus.COMPLETED
        with host.installation.database.new_session() as session:
            form = ScheduleForm("often", "0 * * * *", "UTC")
            schedules.create_schedule(session, host.installation, form, ADMIN)
        app.execute("INSERT INTO sessions (token) VALUES ('a')")
        assert tick(host).status is RunStatus.SKIPPED
        app.execute("INSERT INTO photos (path) VALUES ('a')")

        run = tick(host)

        assert (run.status, run.reason) == (
            RunStatus.COMPLETED,
            "Database main: the sequence photos_id_seq moved.",
        )
        assert tick(host).status is RunStatus.SKIPPED
