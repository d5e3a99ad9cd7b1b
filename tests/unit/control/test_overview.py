"""What the pages show, from rows alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from backup_admin.control import overview
from backup_admin.records import RestoreStatus, RunStatus
from tests.unit.web import seeds

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NOW = datetime(2026, 11, 23, 16, 40, tzinfo=UTC)


def test_an_empty_database_has_no_facts(session: Session) -> None:
    page = overview.dashboard(session, now=NOW, zone="UTC")

    assert (page.newest_good, page.restore_seconds, page.next_run) == (None, None, None)
    assert (page.stored, page.all_runs) == (overview.Stored(0, 0, 0), 0)
    assert len(page.days) == overview.DAYS


def test_only_what_was_read_back_counts_as_good(session: Session) -> None:
    good = seeds.add_run(session, NOW - timedelta(days=2))
    seeds.add_run(session, NOW - timedelta(days=1), RunStatus.DEGRADED)
    seeds.add_run(session, NOW, verified_at=None)

    assert overview.newest_good(session) == good.created_at


def test_a_damaged_snapshot_is_not_good(session: Session) -> None:
    run = seeds.add_run(session, NOW)
    row = overview.manifest_of(session, run.snapshot_id)
    assert row is not None
    row.problem = "2 chunks are gone"

    assert overview.newest_good(session) is None


def test_the_worst_of_a_day_is_shown_in_the_zone_of_the_deployment(session: Session) -> None:
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # already the 23rd in Berlin
    seeds.add_run(session, late, RunStatus.FAILED)
    seeds.add_run(session, NOW)

    berlin = overview.days(session, now=NOW, zone="Europe/Berlin")[-1]
    london = overview.days(session, now=NOW, zone="UTC")[-1]

    assert (berlin.status, berlin.runs, berlin.good) == ("failed", 2, 1)
    assert (london.status, london.runs) == ("completed", 1)


def test_paging_shows_each_backup_once(session: Session) -> None:
    made = [seeds.add_run(session, NOW - timedelta(hours=hour)).id for hour in range(60)]

    seen: list[str] = []
    before = ""
    while True:
        page = overview.backups(session, before=before)
        seen += [row.line.id for row in page.rows]
        before = page.older
        if not before:
            break

    assert seen == made


def test_an_unknown_place_in_the_list_starts_at_the_top(session: Session) -> None:
    run = seeds.add_run(session, NOW)

    assert overview.backups(session, before="nothing").rows[0].line.id == run.id


def test_what_a_restore_replaced_is_counted_apart_and_is_no_backup_of_everything(session: Session) -> None:
    good = seeds.add_run(session, NOW - timedelta(days=1))
    seeds.add_safety(session, NOW)

    page = overview.dashboard(session, now=NOW, zone="UTC")

    assert page.newest_good == page.unchanged_at == overview.newest_good(session) == good.created_at
    assert page.stored == overview.Stored(1, 1, 181 * seeds.MIB)
    assert page.protected_bytes == 21 * seeds.GIB
    assert [day.runs for day in page.days[-2:]] == [1, 0]


def test_restores_stand_before_backups_in_what_runs(session: Session) -> None:
    seeds.add_running(session, NOW)
    operation = seeds.add_restore(session, NOW, RestoreStatus.RUNNING)

    assert overview.active(session)[0].id == operation.id
    assert len(overview.active(session)) == 2


def test_drafts_are_shown_to_the_person_who_made_them(session: Session) -> None:
    draft = seeds.add_restore(session, NOW, RestoreStatus.DRAFT, snapshot_id="s")

    assert [line.id for line in overview.drafts(session, "id-admin")] == [draft.id]
    assert overview.drafts(session, "id-other") == ()
    assert overview.restores(session) == ()


def test_the_last_restore_tells_how_long_one_takes(session: Session) -> None:
    seeds.add_restore(session, NOW - timedelta(days=3), RestoreStatus.RESTORED)
    seeds.add_restore(session, NOW, RestoreStatus.FAILED)

    assert overview.dashboard(session, now=NOW, zone="UTC").restore_seconds == 96
