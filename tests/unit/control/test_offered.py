"""What the first step of a restore offers, from rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import catalogue, offered, overview
from tests.installations import make_host
from tests.unit.web import seeds

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

    from backup_admin.core.settings import Settings

NOW = datetime(2026, 11, 23, 16, 40, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an app that protects the database `main` and the folder `uploads`."""
    return make_host(tmp_path).installation.settings


def test_what_is_missing_in_the_repository_cannot_be_chosen(session: Session, settings: Settings) -> None:
    run = seeds.add_run(session, NOW)
    row = overview.manifest_of(session, run.snapshot_id)
    assert row is not None
    row.present = False

    shown = offered.snapshot_row(row, settings)

    assert (shown.states, shown.blocked) == (("missing",), True)


def test_what_restores_replaced_is_offered_apart_and_is_never_the_latest(
    session: Session, settings: Settings
) -> None:
    good = seeds.add_run(session, NOW)
    safety = seeds.add_safety(session, NOW)

    rows, older = offered.backups(session, settings)
    apart = offered.safety_backups(session, settings)

    assert [(row.snapshot_id, row.newest_good) for row in rows] == [(good.snapshot_id, True)]
    assert [(row.snapshot_id, row.newest_good) for row in apart] == [(safety.snapshot_id, False)]
    assert (apart[0].states, older) == (("verified", "safety"), "")
    assert {row.snapshot_id for row in offered.newest(session, settings)} == {
        good.snapshot_id,
        safety.snapshot_id,
    }


def test_pages_show_each_backup_once_and_no_safety_backup(session: Session, settings: Settings) -> None:
    made = []
    for hour in range(60):
        made.append(seeds.add_run(session, NOW - timedelta(hours=hour)).snapshot_id)
        seeds.add_safety(session, NOW - timedelta(hours=hour, minutes=1))

    seen: list[str] = []
    before = ""
    while True:
        rows, before = offered.backups(session, settings, before=before)
        seen += [row.snapshot_id for row in rows]
        if not before:
            break

    assert seen == made


def test_what_a_backup_does_not_hold_of_the_app_is_named(session: Session, settings: Settings) -> None:
    safety = seeds.add_safety(session, NOW)  # one database, gallery, and no folder

    assert offered.missing_parts(safety, settings) == ("database main", "folder uploads")
    safety.database_dump_path = "other, main"
    assert offered.missing_parts(safety, settings) == ("folder uploads",)
    safety.files_manifest = {"uploads": {}}
    assert offered.missing_parts(safety, settings) == ()
    safety.database_dump_path, safety.manifest_version = "", ""
    assert offered.missing_parts(safety, settings) == ()


def test_verification_means_a_backup_unless_there_is_only_what_a_restore_replaced(session: Session) -> None:
    safety = seeds.add_safety(session, NOW)
    assert catalogue.newest_snapshot_id(session) == safety.snapshot_id

    run = seeds.add_run(session, NOW - timedelta(days=3))
    assert catalogue.newest_snapshot_id(session) == run.snapshot_id
