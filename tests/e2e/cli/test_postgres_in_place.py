"""A live PostgreSQL database through the command alone: exchanged, undone, and left as it was."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest

from tests.e2e.cli.test_postgres import Site, wait_until
from tests.services.postgres import OWNER, PASSWORD
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

_BELONGINGS = """
SELECT d.datname, pg_get_userbyid(d.datdba),
  ARRAY(SELECT a::text FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a ORDER BY 1),
  shobj_description(d.oid, 'pg_database'), d.datconnlimit, d.datallowconn, s.setconfig,
  pg_get_userbyid(s.setrole)
FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid WHERE d.datname = %s ORDER BY 7
"""


class InPlace(Site):
    """A site whose database is restored onto itself."""

    def restore(self, *more: object, snapshot: str = "latest", database: str | None = None) -> Done:
        place = f"app={self.address(database or self.name)}"
        arguments = ("--in-place", "--yes", "--postgres", place, *more)
        return self.call("restore", snapshot, self.world.storage, *arguments)

    def harm(self) -> None:
        """Do what makes people restore: rows gone, a table gone, one that is new and refers to an old one."""
        self.server.run(
            "TRUNCATE photos, events CASCADE;\nDROP TABLE logs;\n"
            "CREATE TABLE newer (id int PRIMARY KEY, event_id int REFERENCES events (id));\n"
            "CREATE VIEW newest AS SELECT * FROM newer",
            self.name,
            user=OWNER,
        )

    def databases(self) -> set[str]:
        """Return all databases that belong to this one."""
        with psycopg.connect(self.server.by_socket("postgres")) as connection:
            query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            return {str(name) for (name,) in connection.execute(query, (self.name,))}

    def belongings(self) -> list[tuple[object, ...]]:
        """Return what belongs to the database itself."""
        with psycopg.connect(self.server.by_socket("postgres")) as connection:
            return list(connection.execute(_BELONGINGS, (self.name,)).fetchall())


@pytest.fixture
def site(world: World, postgres: PostgresServer) -> InPlace:
    made = InPlace(world, postgres)
    with suppress(psycopg.errors.DuplicateObject):
        made.server.run("CREATE ROLE looks_in")
    return made


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


def test_a_live_database_is_exchanged_and_the_exchange_undone(site: InPlace) -> None:
    name = site.name
    site.server.run(
        f"ALTER DATABASE {name} SET search_path TO \"$user\", public, 'Odd, name';\n"
        f"ALTER DATABASE {name} SET work_mem TO '8MB';\n"
        f"ALTER ROLE {OWNER} IN DATABASE {name} SET jit TO off;\n"
        f"GRANT CONNECT ON DATABASE {name} TO looks_in WITH GRANT OPTION;\n"
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;\n"
        f"COMMENT ON DATABASE {name} IS 'it''s ours';\nALTER DATABASE {name} CONNECTION LIMIT 17"
    )
    before, belongings = dump_text(site.server, name), site.belongings()
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, name)

    done = site.restore()

    assert done.status == 0, done.out + done.err
    assert dump_text(site.server, name) == before
    assert site.belongings() == belongings
    with psycopg.connect(site.server.address(name), autocommit=True) as connection:
        connection.execute("INSERT INTO photos (event_id, path) VALUES (1, 'new')")
    assert {"path", "tables", "way"} <= done.result["plan"]["databases"][0].keys()
    assert done.result["plan"]["databases"][0]["way"] == "rename"
    assert [check for check in done.result["checks"] if not check["ok"]] == []
    safety = done.result["safety_snapshot"]

    undone = site.good("undo", "--yes").result

    assert undone["outcome"] == "undone"
    assert dump_text(site.server, name) == harmed
    assert site.belongings() == belongings
    restored = site.restore(snapshot=safety)
    assert restored.status == 0, restored.out + restored.err
    assert dump_text(site.server, name) == harmed


def test_a_database_that_is_gone_is_made_anew(site: InPlace) -> None:
    site.server.run(f"ALTER DATABASE {site.name} SET work_mem TO '8MB'")
    before, belongings = dump_text(site.server, site.name), site.belongings()
    site.back_up()
    site.server.run(f"DROP DATABASE {site.name}")

    done = site.restore()

    assert done.status == 0, done.out + done.err
    assert dump_text(site.server, site.name) == before
    assert [row[:4] + row[6:] for row in site.belongings()] == [row[:4] + row[6:] for row in belongings]
    assert done.result["safety_snapshot"] is None
    assert done.result["notices"] == []
    assert "not there now: it is made" in "".join(issue["message"] for issue in done.result["issues"])
    assert "what is live now" not in done.err + "".join(issue["message"] for issue in done.result["issues"])
    undone = site.good("undo", "--yes")
    assert undone.result["outcome"] == "undone"
    assert (
        "Taken away, because it was not there before the restore: database app." in undone.result["message"]
    )
    assert "Put back" not in undone.result["message"]
    assert "What it made is taken away, because nothing was there before:" in undone.err
    assert "What was live before" not in undone.err
    assert site.name not in site.databases()


def test_it_is_restored_into_another_database_of_the_server(site: InPlace) -> None:
    before = dump_text(site.server, site.name)
    site.back_up()

    done = site.restore(database=f"{site.name}_other")

    assert done.status == 0, done.out + done.err
    assert dump_text(site.server, f"{site.name}_other") == before
    assert dump_text(site.server, site.name) == before


def test_a_role_that_may_make_and_enter_no_other_database_replaces_the_content(site: InPlace) -> None:
    before = dump_text(site.server, site.name)
    belongings = site.belongings()
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)
    site.server.run(f"ALTER ROLE {OWNER} NOCREATEDB")
    for other in ("postgres", "template1"):
        site.server.run(f"REVOKE CONNECT ON DATABASE {other} FROM PUBLIC")
    try:
        plan = site.restore("--dry-run")
        done = site.restore()
        after = dump_text(site.server, site.name)
        undone = site.call("undo", "--yes")
    finally:
        site.server.run(f"ALTER ROLE {OWNER} CREATEDB")
        for other in ("postgres", "template1"):
            site.server.run(f"GRANT CONNECT ON DATABASE {other} TO PUBLIC")

    assert "waits until that is done" in plan.out
    assert done.status == 0, done.out + done.err
    assert done.result["plan"]["databases"][0]["way"] == "in_place"
    assert after == before
    assert undone.status == 0, undone.out + undone.err
    assert dump_text(site.server, site.name) == harmed
    assert site.belongings() == belongings
    assert site.databases() == {site.name}


def test_a_dry_run_says_what_would_change_and_touches_nothing(site: InPlace) -> None:
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)

    plan = site.restore("--dry-run").result["plan"]["databases"][0]

    tables = {table["table"]: table for table in plan["tables"]}
    assert (tables["logs_rest"]["rows_now"], tables["newer"]["rows_then"]) == (-1, -1)
    assert tables["photos"]["rows_now"] == 0
    assert tables["photos"]["rows_then"] > 0
    assert not tables["photos"]["same"]
    assert any(table["same"] for table in plan["tables"])
    assert dump_text(site.server, site.name) == harmed
    assert site.databases() == {site.name}


def test_programs_that_reconnect_at_once_do_not_stop_an_exchange(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    stop = threading.Event()

    def reconnect() -> None:
        while not stop.is_set():
            try:
                with psycopg.connect(newest.server.address(newest.name)) as connection:
                    connection.execute("SELECT pg_sleep(0.01)")
            except psycopg.Error:
                pass

    clients = [threading.Thread(target=reconnect) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        done = newest.restore()
    finally:
        stop.set()
        for client in clients:
            client.join()

    assert done.status == 0, done.out + done.err
    assert dump_text(newest.server, newest.name) == before


def test_sessions_that_may_not_be_ended_stop_a_restore_before_it_begins(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)

    with psycopg.connect(newest.server.by_socket(newest.name)):
        done = newest.restore()

    assert done.status == 1
    assert "Sessions of postgres cannot be ended from here" in done.error["message"]
    assert dump_text(newest.server, newest.name) == harmed
    assert newest.databases() == {newest.name}


@pytest.mark.parametrize("way", ["rename", "in_place"])
def test_a_killed_restore_is_finished_or_undone_by_recover(newest: InPlace, way: str) -> None:
    before = dump_text(newest.server, newest.name)
    newest.server.run(
        "CREATE TABLE large AS SELECT n AS id, md5(n::text) AS text FROM generate_series(1, 200000) n",
        newest.name,
        user=OWNER,
    )
    newest.back_up()
    newest.server.run("DROP TABLE large", newest.name)
    newest.server.run(f"ALTER ROLE {OWNER} {'CREATEDB' if way == 'rename' else 'NOCREATEDB'}")
    try:
        for delay in (0.6, 1.0, 1.4, 1.8, 2.2):
            arguments = ("--in-place", "--yes", "--postgres", f"app={newest.address(newest.name)}", "--json")
            process = newest.world.start("restore", "latest", newest.world.storage, *arguments, alone=False)
            wait_until(lambda process=process: process.poll() is not None, seconds=delay)  # type: ignore[misc]
            process.kill()
            process.communicate()
            recovered = newest.call("recover")
            assert recovered.status == 0, recovered.out + recovered.err
            text = dump_text(newest.server, newest.name)
            assert (text == before) != ("CREATE TABLE public.large" in "".join(text))
            if text != before:
                newest.server.run("DROP TABLE large", newest.name)
    finally:
        newest.server.run(f"ALTER ROLE {OWNER} CREATEDB")
    left = {name for name in newest.databases() if "__restore_" in name}
    assert left == set()


def test_passwords_stand_in_no_journal_and_undo_takes_one_again(newest: InPlace, tmp_path: Path) -> None:
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)
    del newest.world.environment["PGPASSWORD"]
    place = f"app={newest.server.address(newest.name, password=PASSWORD)}"
    newest.good("restore", "latest", newest.world.storage, "--in-place", "--yes", "--postgres", place)

    refused = newest.call("undo", "--yes")
    undone = newest.call("undo", "--yes", "--postgres", place)
    again = newest.call("recover", "--postgres", place)

    assert (refused.status, refused.error["code"]) == (1, "source_denied")
    assert (undone.status, again.status) == (0, 0), undone.out + undone.err
    assert dump_text(newest.server, newest.name) == harmed
    for path in tmp_path.rglob("*.journal"):
        assert PASSWORD.encode() not in path.read_bytes()
        assert quote(PASSWORD, safe="").encode() not in path.read_bytes()


def test_a_superuser_restores_only_when_told(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)
    place = f"app={newest.server.by_socket(newest.name)}"
    arguments = ("restore", "latest", newest.world.storage, "--in-place", "--yes", "--postgres", place)

    refused = newest.call(*arguments)

    assert "postgres is a superuser" in refused.error["message"]
    assert dump_text(newest.server, newest.name) == harmed
    newest.good(*arguments, "--as-superuser")
    assert dump_text(newest.server, newest.name) == before


def test_a_live_database_that_cannot_be_read_is_exchanged_all_the_same(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.server.run("CREATE TABLE not_ours (id int)", newest.name)
    harmed = dump_text(newest.server, newest.name)

    done = newest.restore()

    assert done.status == 0, done.out + done.err
    assert "The safety backup lacks app" in "".join(done.result["notices"])
    assert "cannot be read as a whole" in "".join(issue["message"] for issue in done.result["issues"])
    assert dump_text(newest.server, newest.name) == before
    newest.good("undo", "--yes")
    assert dump_text(newest.server, newest.name) == harmed
