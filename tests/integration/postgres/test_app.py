"""An app that protects a PostgreSQL database: shown, backed up, restored and undone as its pages do it."""

from __future__ import annotations

import json
import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest

from backup_admin.access.step_up import Purpose
from backup_admin.control import engine, perform, perform_restore, restores, runs, wizard
from backup_admin.control.recovery import remove_old_states
from backup_admin.control.runs import NewRun
from backup_admin.control.wizard import Choice, RestoreType
from backup_admin.operations.plans import RestorePlan
from backup_admin.records import RestoreStatus, RunStatus
from tests.installations import ADMIN, Host, back_up, make_host, set_up
from tests.services.postgres import PASSWORD
from tests.services.postgres_oracle import GALLERY, dump_text
from tests.unit.control.test_restores import Person, confirmation
from tests.unit.web.conftest import ADMIN as SIGNED_IN
from tests.unit.web.forms import get
from tests.unit.web.host import create_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


class Shop:
    """An app with a database on a server."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.server = server
        self.name = server.new_database()
        with psycopg.connect(server.address(self.name), autocommit=True) as connection:
            connection.execute(GALLERY.encode())
        address = server.address(self.name).replace("postgresql:", "postgresql+psycopg:")
        self.host: Host = make_host(folder, BACKUP_ADMIN_DATABASES={"shop": address})
        set_up(self.host)
        run = back_up(self.host)
        assert run.status is RunStatus.COMPLETED, run.error_message

    def dump(self) -> list[str]:
        return dump_text(self.server, self.name)

    def old_databases(self) -> list[str]:
        with psycopg.connect(self.server.by_socket("postgres")) as connection:
            query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            return [str(name) for (name,) in connection.execute(query, (f"{self.name}__",))]


@pytest.fixture
def shop(tmp_path: Path, newest_postgres: PostgresServer) -> Shop:
    return Shop(tmp_path, newest_postgres)


@pytest.fixture
def person(shop: Shop) -> Iterator[Person]:
    with shop.host.installation.database.new_session() as session:
        yield Person(shop.host, session)


def test_a_database_on_a_server_comes_back_through_the_wizard_and_is_undone(
    shop: Shop, person: Person
) -> None:
    installation = shop.host.installation
    before = shop.dump()
    shop.server.run("TRUNCATE photos, events CASCADE", shop.name)
    harmed = shop.dump()

    operation_id = person.plan(RestoreType.PARTIAL, Choice(databases=("shop",)))
    review = wizard.stored_review(wizard.find_operation(person.session, operation_id))
    person.start(operation_id)
    perform_restore.perform_restore(installation, operation_id)
    person.session.expire_all()

    row = wizard.find_operation(person.session, operation_id)
    assert row.status is RestoreStatus.RESTORED, row.error_message
    assert shop.dump() == before
    assert review is not None
    assert isinstance(review.plan, RestorePlan)
    (part,) = review.plan.databases
    assert (part.engine, part.way) == ("postgresql", "rename")
    assert any("takes its name" in issue.message for issue in review.issues)
    assert len(shop.old_databases()) == 1

    person.prove(Purpose.UNDO, operation_id)
    restores.undo(person.session, installation, operation_id, confirmation())
    perform_restore.perform_undo(installation, operation_id)

    assert shop.dump() == harmed


def test_the_page_of_a_backup_gives_the_size_of_the_whole_database(
    tmp_path: Path, newest_postgres: PostgresServer
) -> None:
    name = newest_postgres.new_database()
    with psycopg.connect(newest_postgres.address(name), autocommit=True) as connection:
        connection.execute("CREATE TABLE large AS SELECT repeat('x', 300) FROM generate_series(1, 10000)")
    host = create_host(tmp_path, BACKUP_ADMIN_DATABASES={"shop": newest_postgres.address(name)})
    host.set_up(SIGNED_IN)
    with host.app.app_context():
        session = host.installation.database.session()
        run_id = runs.create_run(session, host.installation, NewRun(), SIGNED_IN).id
    perform.perform_backup(host.installation, run_id)

    page = get(host.client(), f"/backups/{run_id}").text

    (size,) = re.findall(r"1 table, 10,000 rows, ([0-9.]+ .B)", page)
    assert size.endswith("MB")
    assert 3.0 <= float(size.split()[0]) < 3.1


def test_what_was_kept_for_an_undo_goes_when_its_time_is_over(shop: Shop, person: Person) -> None:
    person.restore()
    assert len(shop.old_databases()) == 1

    shop.host.clock.advance(hours=100)

    assert len(remove_old_states(shop.host.installation)) == 1
    assert shop.old_databases() == []


def test_what_can_be_chosen_names_it_and_a_server_that_is_down_is_a_problem(
    shop: Shop, person: Person, tmp_path: Path
) -> None:
    installation = shop.host.installation
    operation = wizard.create_draft(person.session, installation, ADMIN)
    newest = engine.open_repository(person.session, installation).find_snapshot("latest")
    wizard.choose_snapshot(person.session, installation, operation.id, newest.id)
    away = make_host(
        tmp_path / "other", BACKUP_ADMIN_DATABASES={"shop": f"postgresql://app:{PASSWORD[:4]}x@127.0.0.1:1/x"}
    )

    assert wizard.available(person.session, installation, operation.id).databases == ("shop",)
    state, *_ = engine.describe_sources(person.session, installation)
    assert (state.place, state.problem) == (
        f"postgresql://app@127.0.0.1:{shop.server.port}/{shop.name}",
        "",
    )
    with away.installation.database.new_session() as session:
        state, *_ = engine.describe_sources(session, away.installation)
    assert "Nothing listens there" in state.problem
    assert PASSWORD[:4] not in state.problem + state.place


def test_a_password_is_in_no_command_line_and_no_file_of_a_restore(
    shop: Shop, person: Person, tmp_path: Path
) -> None:
    stop, seen = threading.Event(), set[bytes]()

    def look() -> None:
        while not stop.wait(0.002):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it has ended meanwhile
                    seen.add(process.read_bytes())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        operation_id = person.restore()
        person.prove(Purpose.UNDO, operation_id)
        restores.undo(person.session, shop.host.installation, operation_id, confirmation())
        perform_restore.perform_undo(shop.host.installation, operation_id)
    finally:
        stop.set()
        watcher.join()

    row = wizard.find_operation(person.session, operation_id)
    assert row.status is RestoreStatus.UNDONE, row.error_message
    assert any(b"pg_restore" in line for line in seen)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(path.suffix == ".journal" for path in written)
    for secret in (PASSWORD.encode(), quote(PASSWORD, safe="").encode(), json.dumps(PASSWORD)[1:-1].encode()):
        assert [line for line in seen if secret in line] == []
        assert [path for path, content in written.items() if secret in content] == []
