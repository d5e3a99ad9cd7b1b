"""An app whose restore was interrupted while its PostgreSQL server is down, and goes on when that is back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin import jobs
from backup_admin.access.step_up import Purpose
from backup_admin.control import perform_restore, recovery, restores, runs, wizard
from backup_admin.control.journals import is_closed
from backup_admin.operations.journal import Step, open_journal
from backup_admin.records import RestoreOperation, RestoreStatus
from tests.e2e.cli.test_postgres_server_lost import running_mortal
from tests.integration.postgres.test_app import Shop
from tests.unit.control.test_restores import Killed, Person, confirmation, die_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.cli.test_postgres_server_lost import Mortal

pytestmark = pytest.mark.integration
_NOT_LOGGED = ("CREATE UNLOGGED TABLE public.sessions (", "k\tv", "")


@pytest.fixture
def mortal(pytestconfig: pytest.Config) -> Iterator[Mortal]:
    with running_mortal(pytestconfig) as made:
        yield made


@pytest.fixture
def shop(tmp_path: Path, mortal: Mortal) -> Shop:
    return Shop(tmp_path, mortal.server)


@pytest.fixture
def person(shop: Shop) -> Iterator[Person]:
    with shop.host.installation.database.new_session() as session:
        yield Person(shop.host, session)


def content(shop: Shop) -> list[str]:
    """Return what is there but what a crash changes: places of sequences, a table that is not logged."""
    lines = "\n".join(shop.dump()).splitlines()
    return [line for line in lines if "pg_catalog.setval(" not in line and line not in _NOT_LOGGED]


def row(person: Person, operation_id: str) -> RestoreOperation:
    person.session.expire_all()
    return wizard.find_operation(person.session, operation_id)


def told(person: Person, operation_id: str) -> tuple[int, int]:
    """Return how many lines the journal of a restore has, and the audit log."""
    installation = person.host.installation
    lines = open_journal(installation.state, operation_id, installation.clock).lines
    return len(lines), len(installation.audit().read_page(action="restore."))


def tick(person: Person) -> None:
    person.host.clock.advance(seconds=10)
    jobs.tick_once(person.host.installation)


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("backup_admin.operations.restore._Restore._swap", RestoreStatus.ROLLED_BACK),
        ("backup_admin.operations.restore._Restore._check", RestoreStatus.RESTORED),
    ],
)
def test_an_interrupted_restore_goes_on_when_its_server_answers(
    shop: Shop, person: Person, mortal: Mortal, place: str, status: RestoreStatus
) -> None:
    installation, new = shop.host.installation, content(shop)
    shop.server.run("TRUNCATE photos, events CASCADE", shop.name)
    old = content(shop)
    operation_id = person.plan()
    person.start(operation_id)
    with pytest.MonkeyPatch.context() as patch:
        die_at(patch, place)
        with pytest.raises(Killed):
            perform_restore.perform_restore(installation, operation_id)
    if place.endswith("_swap"):  # it died after it wrote that it would, before it did
        journal = open_journal(installation.state, operation_id, installation.clock)
        journal.write(Step.SWAPPING, name="shop", kind="postgres")
    mortal.kill()
    person.host.clock.advance(minutes=2)
    runs.reconcile(person.session, installation)

    recovery.recover_restores(installation)  # as a worker does when it starts

    assert row(person, operation_id).status is RestoreStatus.NEEDS_ATTENTION
    state = restores.progress(person.session, installation, operation_id)
    assert state.waits_for_server
    assert "Nothing listens there" in state.message
    assert is_closed(installation)
    before = told(person, operation_id)
    for _ in range(3):
        tick(person)
    assert told(person, operation_id) == before
    assert row(person, operation_id).status is RestoreStatus.NEEDS_ATTENTION

    mortal.start()
    tick(person)

    assert row(person, operation_id).status is status
    assert not restores.progress(person.session, installation, operation_id).waits_for_server
    assert not is_closed(installation)
    assert content(shop) == (new if status is RestoreStatus.RESTORED else old)


def test_an_undo_that_lost_its_server_goes_on_when_that_answers(
    shop: Shop, person: Person, mortal: Mortal
) -> None:
    installation = shop.host.installation
    shop.server.run("TRUNCATE photos, events CASCADE", shop.name)
    old = content(shop)
    operation_id = person.restore()
    person.prove(Purpose.UNDO, operation_id)
    restores.undo(person.session, installation, operation_id, confirmation())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backup_admin.operations.undo.close", lambda *_: mortal.kill())
        perform_restore.perform_undo(installation, operation_id)

    assert row(person, operation_id).status is RestoreStatus.NEEDS_ATTENTION
    assert restores.progress(person.session, installation, operation_id).waits_for_server
    tick(person)
    assert row(person, operation_id).status is RestoreStatus.NEEDS_ATTENTION

    mortal.start()
    tick(person)

    assert row(person, operation_id).status is RestoreStatus.UNDONE
    assert content(shop) == old
