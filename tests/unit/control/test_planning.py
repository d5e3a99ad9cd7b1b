"""The plan of a restore is asked for, made by a worker, and given up when that dies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.control import planning, runs, wizard
from backup_admin.control.installation import PLAN_JOB
from backup_admin.control.wizard import RestoreType
from backup_admin.core.errors import UsageError
from backup_admin.operations.plan_restore import plan_restore
from backup_admin.records import RestoreStatus
from tests.installations import ADMIN, back_up
from tests.unit.control.test_restores import Person

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backup_admin.records import RestoreOperation
    from tests.installations import Host


@pytest.fixture
def person(host: Host, session: Session) -> Person:
    back_up(host)
    return Person(host, session)


def ask(person: Person) -> RestoreOperation:
    """Ask for a new plan of a draft that had one."""
    operation_id = person.plan()
    planning.ask_for_plan(person.session, person.host.installation, operation_id)
    return row(person, operation_id)


def row(person: Person, operation_id: str) -> RestoreOperation:
    person.session.expire_all()
    return wizard.find_operation(person.session, operation_id)


def give_up(person: Person) -> list[str]:
    return planning.give_up_plans(person.session, person.host.installation, runs.SILENT_AFTER)


def test_the_worker_makes_the_plan_that_was_asked_for(person: Person) -> None:
    asked = ask(person)
    assert (planning.is_planning(asked), asked.plan) == (True, "")
    assert person.host.queue.jobs[asked.id] == PLAN_JOB

    planning.perform_plan(person.host.installation, asked.id)

    done = row(person, asked.id)
    assert (planning.is_planning(done), done.status, done.stage) == (False, RestoreStatus.DRAFT, "")
    review = wizard.stored_review(done)
    assert review is not None
    assert not review.blocked


def test_a_draft_without_a_backup_is_refused_at_once(person: Person) -> None:
    draft = wizard.create_draft(person.session, person.host.installation, ADMIN)

    with pytest.raises(UsageError, match="Choose a backup first"):
        planning.ask_for_plan(person.session, person.host.installation, draft.id)

    assert not planning.is_planning(draft)


def test_a_plan_of_a_worker_that_died_is_given_up_and_says_so(person: Person) -> None:
    asked = ask(person)
    asked.heartbeat_at = person.host.clock.now()
    person.session.commit()
    assert give_up(person) == []
    person.host.clock.advance(minutes=2)

    assert give_up(person) == [f"The plan of restore {asked.id} was given up."]

    done = row(person, asked.id)
    assert not planning.is_planning(done)
    assert done.error_message.startswith("The plan was not made: the worker was stopped meanwhile.")
    planning.perform_plan(person.host.installation, asked.id)  # too late: nobody waits for it
    assert row(person, asked.id).plan == ""


def test_a_plan_that_the_queue_lost_is_handed_on_again(person: Person) -> None:
    asked = ask(person)
    person.host.clock.advance(minutes=2)
    assert give_up(person) == []
    person.host.queue.jobs.clear()

    assert len(give_up(person)) == 1

    assert person.host.queue.jobs[asked.id] == PLAN_JOB


def test_what_goes_wrong_stands_in_the_draft(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ask(person)

    def fail(*_words: object, **_options: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("backup_admin.control.wizard.plan_restore", fail)
    planning.perform_plan(person.host.installation, asked.id)

    done = row(person, asked.id)
    assert not planning.is_planning(done)
    assert done.error_message
    assert "secret" not in done.error_message


def test_a_choice_made_while_the_plan_is_made_is_planned_instead(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ask(person)
    seen = []

    def choose_meanwhile(*words: object, **options: object) -> object:
        seen.append(words)
        if len(seen) == 1:
            with person.host.installation.database.new_session() as other:
                wizard.choose_type(other, person.host.installation, asked.id, RestoreType.FILES_ONLY)
                planning.ask_for_plan(other, person.host.installation, asked.id)
        return plan_restore(*words, **options)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr("backup_admin.control.wizard.plan_restore", choose_meanwhile)
    planning.perform_plan(person.host.installation, asked.id)

    plan = wizard.stored_plan(row(person, asked.id))
    assert (len(seen), plan.databases) == (2, ())  # type: ignore[union-attr]  # it is one of parts
