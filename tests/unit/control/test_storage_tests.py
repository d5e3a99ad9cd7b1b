"""The storage is tested when it is chosen, when somebody asks, and each week; pages read what was kept."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from backup_admin.control import engine, onboarding, storage_tests, verdict
from backup_admin.control.installation import STORAGE_TEST_JOB, Installation
from backup_admin.control.stored import read_value, write_value
from backup_admin.core.errors import ConfigurationError, StorageDenied
from backup_admin.storage.memory import MemoryStorage
from backup_admin.storage.storage_report import Step, StepOutcome, StorageReport
from tests.installations import ADMIN, Host

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def newest(session: Session, host: Host) -> StorageReport | None:
    session.expire_all()
    return storage_tests.newest_test(session, host.installation.settings)


def without_queue(host: Host) -> Installation:
    return replace(host.installation, queue=None)


def lose_storage(host: Host) -> None:
    shutil.rmtree(host.folder / "storage")
    (host.folder / "storage").touch()


def test_a_storage_that_is_chosen_is_tested(session: Session, bare_host: Host) -> None:
    assert newest(session, bare_host) is None

    onboarding.choose_storage(session, bare_host.installation, str(bare_host.folder / "storage"), ADMIN)

    report = newest(session, bare_host)
    assert report is not None
    assert report.finding(Step.READ).outcome is StepOutcome.OK
    assert report.at == bare_host.clock.now()
    assert [path for path in (bare_host.folder / "storage").rglob("*") if path.is_file()] == []


def test_the_test_of_another_storage_says_nothing_of_this_one(session: Session, host: Host) -> None:
    engine.keep_address(session, host.installation, "/srv/elsewhere", by="Ada")
    session.commit()

    assert newest(session, host) is None


def test_a_test_that_is_asked_for_is_handed_to_the_worker_once(session: Session, host: Host) -> None:
    host.clock.advance(hours=2)

    assert storage_tests.ask_for_test(session, host.installation, ADMIN)
    assert storage_tests.ask_for_test(session, host.installation, ADMIN)

    assert list(host.queue.jobs.values()) == [STORAGE_TEST_JOB]
    assert storage_tests.waits(session, host.installation)
    host.clock.advance(seconds=1)
    storage_tests.perform_test(host.installation)
    session.expire_all()
    assert not storage_tests.waits(session, host.installation)
    report = newest(session, host)
    assert report is not None
    assert report.at == host.clock.now()
    assert host.installation.audit().read_page()[0].action == "storage.test"


def test_without_a_queue_it_is_tested_at_once(session: Session, host: Host) -> None:
    host.clock.advance(hours=2)

    assert not storage_tests.ask_for_test(session, without_queue(host), ADMIN)

    report = newest(session, host)
    assert report is not None
    assert report.at == host.clock.now()


def test_a_test_the_queue_lost_can_be_asked_for_again(session: Session, host: Host) -> None:
    storage_tests.ask_for_test(session, host.installation, ADMIN)
    host.clock.advance(hours=2)

    assert not storage_tests.waits(session, host.installation)


def test_without_a_storage_there_is_nothing_to_test(session: Session, bare_host: Host) -> None:
    with pytest.raises(ConfigurationError, match="No storage is set"):
        storage_tests.ask_for_test(session, bare_host.installation, ADMIN)
    assert not storage_tests.tick(session, bare_host.installation)


def test_the_scheduler_tests_once_a_week(session: Session, host: Host) -> None:
    host.clock.advance(days=6, hours=23)
    assert not storage_tests.tick(session, host.installation)

    host.clock.advance(hours=1)
    assert storage_tests.tick(session, host.installation)

    assert not storage_tests.tick(session, host.installation)
    assert list(host.queue.jobs.values()) == [STORAGE_TEST_JOB]


def test_of_two_schedulers_one_starts_the_test(session: Session, host: Host) -> None:
    host.clock.advance(days=8)
    storage_tests.tick(session, host.installation)
    host.clock.advance(hours=2)

    with host.installation.database.new_session() as other:
        seen = storage_tests._time_of(other, storage_tests.ASKED_KEY)
        assert seen is not None
        assert storage_tests.tick(session, host.installation)
        host.clock.advance(seconds=1)
        assert not storage_tests.tick(other, host.installation)


def test_a_storage_that_a_deployment_names_is_tested_soon(session: Session, bare_host: Host) -> None:
    settings = replace(bare_host.installation.settings, storage=str(bare_host.folder / "storage"))
    pinned = replace(bare_host.installation, settings=settings, queue=None)

    assert storage_tests.tick(session, pinned)

    session.expire_all()
    assert storage_tests.newest_test(session, settings) is not None


def test_a_deployment_that_only_shows_tests_nothing(session: Session, host: Host) -> None:
    host.clock.advance(days=8)
    settings = replace(host.installation.settings, read_only=True)

    assert not storage_tests.tick(session, replace(host.installation, settings=settings))


def test_a_queue_that_is_down_is_asked_again_in_an_hour(session: Session, host: Host) -> None:
    host.clock.advance(days=8)
    host.queue.down = True
    assert not storage_tests.tick(session, host.installation)
    host.queue.down = False
    assert not storage_tests.tick(session, host.installation)

    host.clock.advance(hours=1)

    assert storage_tests.tick(session, host.installation)


def test_a_failed_test_is_a_risk_and_is_repeated_within_the_hour(session: Session, host: Host) -> None:
    lose_storage(host)
    storage_tests.perform_test(host.installation)

    report = newest(session, host)
    assert report is not None
    assert report.outcome is StepOutcome.FAILED
    risks = list(verdict._storage_risks(session, host.installation, host.clock.now()))
    assert len(risks) == 1
    assert risks[0].startswith("the test of the storage failed just now, ")
    assert str(host.folder / "storage") in risks[0]
    host.clock.advance(hours=1)
    assert storage_tests.tick(session, host.installation)


def test_a_storage_that_cannot_even_be_opened_is_reported(session: Session, host: Host) -> None:
    address = "s3://backups?endpoint=http://127.0.0.1:9"
    engine.keep_address(session, host.installation, address, by="Ada")
    session.commit()

    storage_tests.perform_test(host.installation)

    report = newest(session, host)
    assert report is not None
    assert report.finding(Step.REACH).outcome is StepOutcome.FAILED
    assert "private address" in storage_tests.first_failure(report)


def test_a_report_older_than_eight_days_is_a_risk(session: Session, host: Host) -> None:
    host.clock.advance(days=8)
    assert list(verdict._storage_risks(session, host.installation, host.clock.now())) == []

    host.clock.advance(seconds=1)

    risks = list(verdict._storage_risks(session, host.installation, host.clock.now()))
    assert risks == ["the storage was last tested 8 days ago."]


def test_warnings_are_no_risk(session: Session, host: Host) -> None:
    kept = read_value(session, storage_tests.REPORT_KEY)
    kept["report"]["findings"][0]["outcome"] = StepOutcome.WARNING.value
    write_value(session, host.clock, storage_tests.REPORT_KEY, {**kept})
    session.commit()

    assert list(verdict._storage_risks(session, host.installation, host.clock.now())) == []


class Undeletable(MemoryStorage):
    """A storage whose key may not delete, as is recommended."""

    def delete(self, name: str) -> None:
        raise StorageDenied("You may not delete.")


def test_a_key_that_may_not_delete_is_a_warning(session: Session, host: Host) -> None:
    address = engine.storage_address(session, host.installation.settings)

    storage_tests.examine_and_keep(session, host.installation, address, Undeletable())

    report = newest(session, host)
    assert report is not None
    assert report.outcome is StepOutcome.WARNING
    assert "stays until a prune" in report.finding(Step.DELETE).message


def test_a_report_of_another_version_counts_as_none(session: Session, host: Host) -> None:
    address = engine.storage_address(session, host.installation.settings)
    strange = {"address": address, "report": {"storage": "x", "at": "never", "findings": []}}
    write_value(session, host.clock, storage_tests.REPORT_KEY, strange)
    session.commit()

    assert newest(session, host) is None
    assert storage_tests.tick(session, host.installation)
