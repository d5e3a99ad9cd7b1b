"""Live PostgreSQL databases with what a DBA set up in them: replication, prepared transactions, triggers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.server import drop_kept, names_of
from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going, rows
from tests.integration.postgres.test_odd_databases import BY_HASH
from tests.services.postgres import EVERY_KIND, OWNER, start_postgres, stop
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=EVERY_KIND)
def server(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server that replicates what is in tables, and keeps prepared transactions."""
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-"))
    folder.chmod(0o711)
    try:
        more = {"wal_level": "logical", "max_prepared_transactions": "5"}
        process, server = start_postgres(pytestconfig, request.param, folder, more)
        yield server
        stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(world: World, server: PostgresServer) -> InPlace:
    return InPlace(world, server)


@WAYS
def test_a_prepared_transaction_stops_a_restore_and_no_backup(site: InPlace, way: str) -> None:
    with psycopg.connect(site.server.address(site.name)) as connection:
        connection.execute("INSERT INTO photos (event_id, path) VALUES (1, 'new')")
        connection.execute("PREPARE TRANSACTION 'half done'")
    try:
        before = dump_text(site.server, site.name)
        site.back_up()

        with going(site, way):
            done = site.restore()

        assert done.status == 1
        assert "Prepared transactions hold the database: half done" in done.error["message"]
        assert dump_text(site.server, site.name) == before
    finally:
        site.server.run("ROLLBACK PREPARED 'half done'", site.name)


def test_what_a_dba_made_stops_a_replacement_before_it_begins(site: InPlace) -> None:
    site.back_up()
    site.server.run(
        "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';\n"
        "CREATE EVENT TRIGGER looks ON ddl_command_start EXECUTE FUNCTION look();\n"
        "CREATE FOREIGN DATA WRAPPER elsewhere;\nCREATE SERVER beyond FOREIGN DATA WRAPPER elsewhere",
        site.name,
    )
    before = dump_text(site.server, site.name)

    with going(site, "in_place"):
        done = site.restore()

    assert (done.status, done.error["code"]) == (1, "restore_refused"), done.out
    assert "event trigger looks, server beyond" in done.error["message"]
    assert "CREATEDB" in done.error["message"]
    assert dump_text(site.server, site.name) == before


@WAYS
def test_what_is_published_is_published_again(site: InPlace, way: str) -> None:
    site.server.run("CREATE PUBLICATION given FOR TABLE events, photos", site.name, user=OWNER)
    before = dump_text(site.server, site.name)
    site.back_up()
    site.harm()

    with going(site, way):
        done = site.restore()

    assert done.status == 0, done.out + done.err
    assert dump_text(site.server, site.name) == before


def test_an_extension_of_a_superuser_stays_where_no_database_can_be_made(site: InPlace) -> None:
    site.server.run("CREATE EXTENSION pg_stat_statements", site.name)
    before = dump_text(site.server, site.name)
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)

    refused = site.restore()
    unharmed = dump_text(site.server, site.name)
    with going(site, "in_place"):
        done = site.restore()

    assert refused.status != 0
    assert "with --as-superuser, or take CREATEDB from the user" in refused.out
    assert (unharmed, site.databases()) == (harmed, {site.name})
    assert done.status == 0, done.out + done.err
    assert dump_text(site.server, site.name) == before


def test_a_table_that_lies_by_the_hash_of_an_enumeration_comes_back_alone(site: InPlace) -> None:
    site.server.run(BY_HASH, site.name, user=OWNER)
    query = "SELECT m::text, n FROM felt ORDER BY m, n"
    before = rows(site, site.name, query)
    site.back_up()
    site.server.run("DELETE FROM felt WHERE n > 5", site.name)
    place = f"app={site.address(site.name)}"

    site.good("restore", "latest", site.world.storage, "--table", "app.felt", "--postgres", place, "--yes")

    assert rows(site, site.name, query) == before


def test_replication_stays_behind_and_is_told(site: InPlace) -> None:
    create = "CREATE SUBSCRIPTION taking CONNECTION 'host=/nowhere dbname=x' PUBLICATION given"
    site.server.run(f"{create} WITH (connect = false, slot_name = 'kept')", site.name)
    site.server.run("SELECT pg_create_logical_replication_slot('telling', 'pgoutput')", site.name)
    site.server.run("ALTER SUBSCRIPTION taking ENABLE", site.name)
    place = f"app={site.server.by_socket(site.name)}"
    site.good("run", site.world.storage, "--postgres", place)
    site.harm()
    arguments = ("restore", "latest", site.world.storage, "--in-place", "--yes", "--postgres", place)

    done = site.good(*arguments, "--as-superuser")

    told = "".join(issue["message"] for issue in done.result["issues"])
    assert "replication slot telling, subscription taking" in told
    (old,) = site.databases() - {site.name}
    query = """SELECT d.datname, s.subenabled FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
        ORDER BY 1"""
    assert rows(site, "postgres", query) == [(site.name, False), (old, True)]
    assert rows(site, "postgres", "SELECT database FROM pg_replication_slots") == [(old,)]
    names = names_of(site.name, old.rpartition("_")[2])
    site.good("undo", "--yes", "--postgres", place)
    drop_kept(parse_postgres_address(site.server.by_socket(site.name)), names)
    assert site.databases() == {site.name}
    assert rows(site, "postgres", query) == [(site.name, True)]
    site.server.run(
        "ALTER SUBSCRIPTION taking DISABLE;\nALTER SUBSCRIPTION taking SET (slot_name = NONE);\n"
        "DROP SUBSCRIPTION taking;\nSELECT pg_drop_replication_slot('telling')",
        site.name,
    )
    assert ("photos", 0) in rows(site, site.name, "SELECT 'photos', count(*) FROM photos")
