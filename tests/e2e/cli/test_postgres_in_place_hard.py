"""Live PostgreSQL databases that are restored where things are not as one expects them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from copy import copy
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration
_DYING = """
import os
from backup_admin.operations.journal import Journal

def write(self, step, **data):
    written(self, step, **data)
    if step.value == os.environ["DIE_AFTER"]:
        os._exit(9)

written, Journal.write = Journal.write, write
from backup_admin.cli.main import main
main()
"""
_FULL = """
import errno
from backup_admin.operations.journal import Journal

def append(self, raw):
    if any(self.path.parent.glob("*/new/contents.json")):
        raise OSError(errno.ENOSPC, "No space left on device")
    appended(self, raw)

appended, Journal._append = Journal._append, append
from backup_admin.cli.main import main
main()
"""
_BEFORE = ("planned", "staging", "staged", "verified", "quiescing", "safety_backup", "swapping", "swapped")
_AFTER = ("all_swapped", "checked", "committed")
WAYS = pytest.mark.parametrize("way", ["rename", "in_place"])


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


@contextmanager
def going(site: InPlace, way: str) -> Iterator[None]:
    """Let the role make databases, or not."""
    if way == "in_place":
        site.server.run(f"ALTER ROLE {OWNER} NOCREATEDB")
    try:
        yield
    finally:
        site.server.run(f"ALTER ROLE {OWNER} CREATEDB")


def rows(site: InPlace, database: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(site.server.by_socket(database)) as connection:
        return list(connection.execute(query.encode()).fetchall())


def restore_all(site: InPlace, **places: str) -> Done:
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    return site.call("restore", "latest", site.world.storage, "--in-place", "--yes", *named)


def test_databases_with_long_names_that_begin_alike_stay_apart(newest: InPlace) -> None:
    server = newest.server
    names = [f"customers_of_the_shop_in_europe_{letter}_{newest.name[-6:]}" for letter in "ab"]
    for name in names:
        server.run(f"CREATE DATABASE {name} OWNER {OWNER}")
        server.run(f"CREATE TABLE who (name text);\nINSERT INTO who VALUES ('{name}')", name, user=OWNER)
    places = dict(zip("ab", map(newest.address, names), strict=True))
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    newest.good("run", newest.world.storage, *named)
    for name in names:
        server.run("UPDATE who SET name = 'wrong'", name)

    done = restore_all(newest, **places)

    assert done.status == 0, done.out + done.err
    assert [rows(newest, name, "SELECT * FROM who") for name in names] == [[(name,)] for name in names]


def test_one_database_under_two_names_is_refused(newest: InPlace) -> None:
    other = newest.server.new_database()
    places = {"a": newest.address(newest.name), "b": newest.address(other)}
    named = [part for name, place in places.items() for part in ("--postgres", f"{name}={place}")]
    newest.good("run", newest.world.storage, *named)
    before = dump_text(newest.server, newest.name)

    done = restore_all(newest, a=places["a"], b=newest.server.by_socket(newest.name, user=OWNER))

    assert done.status == 1
    assert "a and b are one database" in done.error["message"]
    assert dump_text(newest.server, newest.name) == before
    assert newest.databases() == {newest.name}


def kill_after(site: InPlace, step: str, verb: str = "restore") -> None:
    """Let a process die as soon as its journal says that it came so far."""
    done = run_altered(site, _DYING, verb, DIE_AFTER=step)
    assert done.returncode == 9, done.stderr


def run_altered(site: InPlace, code: str, verb: str, **more: str) -> subprocess.CompletedProcess[str]:
    what = ("latest", site.world.storage, "--in-place") if verb == "restore" else ()
    return subprocess.run(
        [sys.executable, "-c", code, verb, *map(str, what), "--yes", *place_of(site)],
        env=os.environ | site.world.environment | {"BACKUP_ADMIN_STATE_DIR": str(site.world.state)} | more,
        capture_output=True,
        text=True,
        check=False,
    )


def place_of(site: InPlace) -> tuple[str, str]:
    return ("--postgres", f"app={site.address(site.name)}")


@WAYS
def test_what_a_program_writes_right_after_the_exchange_takes_nothing_back(newest: InPlace, way: str) -> None:
    newest.server.run("CREATE TABLE beats (at int)", newest.name, user=OWNER)
    newest.back_up()
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(newest.server.address(newest.name)) as connection:
                connection.autocommit = True
                while not stop.wait(0.002):
                    connection.execute("INSERT INTO beats VALUES (1)")

    program = threading.Thread(target=write)
    program.start()
    try:
        with going(newest, way):
            done = newest.restore()
    finally:
        stop.set()
        program.join()

    assert done.status == 0, done.out + done.err
    assert done.result["outcome"] == "restored"


def test_what_was_written_after_a_killed_restore_is_there_after_recover(newest: InPlace) -> None:
    newest.server.run("CREATE TABLE orders (id int)", newest.name, user=OWNER)
    newest.back_up()
    kill_after(newest, "all_swapped")
    newest.server.run("INSERT INTO orders VALUES (7)", newest.name, user=OWNER)

    recovered = newest.good("recover").result["restores"]

    assert [one["outcome"] for one in recovered] == ["restored"]
    assert rows(newest, newest.name, "SELECT * FROM orders") == [(7,)]


def test_recover_waits_for_a_server_that_lets_nobody_in(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    kill_after(newest, "all_swapped")
    password = newest.world.environment.pop("PGPASSWORD")

    without = newest.call("recover")
    newest.world.environment["PGPASSWORD"] = password
    recovered = newest.good("recover").result["restores"]

    assert without.status != 0
    assert [one["outcome"] for one in recovered] == ["restored"]
    assert dump_text(newest.server, newest.name) == before


def test_a_replacement_that_fails_is_over_and_lets_writers_in(newest: InPlace) -> None:
    # What a rule of the first table looks at comes after it.
    newest.server.run(
        "CREATE TABLE limits AS SELECT 5 AS most;\n"
        "CREATE FUNCTION most() RETURNS int LANGUAGE sql AS 'SELECT max(most) FROM public.limits';\n"
        "CREATE TABLE above (n int CHECK (coalesce(n <= most(), false)));\nINSERT INTO above VALUES (1)",
        newest.name,
        user=OWNER,
    )
    newest.back_up()
    before = dump_text(newest.server, newest.name)

    with going(newest, "in_place"):
        done = newest.restore()

    assert done.status == 1
    assert done.result["outcome"] == "rolled_back"
    assert dump_text(newest.server, newest.name) == before
    assert not list(newest.world.root.rglob("maintenance*"))


@WAYS
def test_a_database_that_was_set_to_read_only_is_restored(newest: InPlace, way: str) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    newest.server.run(
        f"ALTER DATABASE {newest.name} SET default_transaction_read_only = on;\n"
        f"ALTER DATABASE {newest.name} SET statement_timeout = '1ms'"
    )

    with going(newest, way):
        done = newest.restore()

    assert done.status == 0, done.out + done.err
    newest.server.run(f"ALTER DATABASE {newest.name} RESET ALL")
    assert dump_text(newest.server, newest.name) == before


@WAYS
def test_killed_at_any_step_it_is_the_old_or_the_new_and_nothing_is_left(newest: InPlace, way: str) -> None:
    new = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    for step in (*_BEFORE, *_AFTER):
        old = dump_text(newest.server, newest.name)
        with going(newest, way):
            kill_after(newest, step)
            recovered = newest.good("recover").result["restores"]
            assert dump_text(newest.server, newest.name) == (old if step in _BEFORE else new), step
            assert [one["outcome"] for one in recovered] == (
                ["rolled_back"] if step in _BEFORE else ["restored"] if step != "committed" else []
            )
            if step in _AFTER:
                kill_after(newest, "undoing", "undo")
                assert newest.good("recover").result["restores"][0]["outcome"] == "undone"
                assert dump_text(newest.server, newest.name) == old, step
    left = {name for name in newest.databases() if "__undone_" not in name}
    assert left == {newest.name}


@WAYS
def test_parts_that_fill_the_disk_of_the_journal_make_room_for_it(newest: InPlace, way: str) -> None:
    newest.back_up()
    newest.harm()
    before = dump_text(newest.server, newest.name)

    with going(newest, way):
        done = run_altered(newest, _FULL, "restore")

    assert "Nothing live was changed" in done.stdout + done.stderr
    assert dump_text(newest.server, newest.name) == before
    assert newest.databases() == {newest.name}
    assert newest.good("recover").result["restores"] == []


def test_when_one_of_two_databases_and_a_folder_cannot_be_exchanged_all_go_back(newest: InPlace) -> None:
    server, second = newest.server, copy(newest)
    second.name = server.new_database()
    server.run(
        "CREATE TABLE events (id int PRIMARY KEY);\nINSERT INTO events VALUES (1)", second.name, user=OWNER
    )
    named = (f"app={newest.address(newest.name)}", f"second={second.address(second.name)}")
    places = ("--postgres", named[0], "--postgres", named[1], "--files", f"files={newest.world.files}")
    newest.good("run", newest.world.storage, *places)
    newest.harm()
    server.run("DELETE FROM events", second.name)
    (newest.world.files / "later.txt").write_text("since")
    harmed = [dump_text(server, site.name) for site in (newest, second)]
    done = threading.Event()
    staying = threading.Thread(target=_stay_when_staged, args=(second, done))
    staying.start()

    report = newest.call("restore", "latest", newest.world.storage, "--in-place", "--yes", *places)
    done.set()
    staying.join()

    assert (report.status, report.result["outcome"]) == (5, "rolled_back"), report.out + report.err
    assert "used by postgres" in report.result["message"]
    assert [dump_text(server, site.name) for site in (newest, second)] == harmed
    assert (newest.world.files / "later.txt").read_text() == "since"
    found = newest.databases() | second.databases()
    assert {name for name in found if "__undone_" not in name} == {newest.name, second.name}
    for site in (newest, second):  # and they let people in
        psycopg.connect(server.address(site.name)).close()


def _stay_when_staged(site: InPlace, done: threading.Event) -> None:
    """Enter a database as one whose sessions may not be ended, once the restore has begun."""
    while not any("__restore_" in name for name in site.databases()):
        if done.wait(0.01):
            return
    with psycopg.connect(site.server.by_socket(site.name)):
        done.wait(120)
