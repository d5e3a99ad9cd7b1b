"""Live PostgreSQL databases that hold what few do, or are made as few are, restored onto themselves."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going, rows
from tests.integration.postgres.test_odd_databases import BY_HASH
from tests.services.postgres import OWNER, SUPERUSER
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def site(world: World, postgres: PostgresServer) -> InPlace:
    return InPlace(world, postgres)


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


def restored(site: InPlace, way: str) -> None:
    with going(site, way):
        done = site.restore()
    assert done.status == 0, done.out + done.err


@WAYS
def test_a_schema_public_of_the_superuser_as_before_15_comes_back(site: InPlace, way: str) -> None:
    name = site.name
    site.server.run("ALTER SCHEMA public OWNER TO postgres;\nGRANT ALL ON SCHEMA public TO PUBLIC", name)
    before = dump_text(site.server, name)
    site.back_up()
    site.harm()
    others = "pg_database_owner" if site.server.major >= 14 else OWNER
    site.server.run(f"ALTER SCHEMA public OWNER TO {others}", name)

    restored(site, way)

    site.server.run("ALTER SCHEMA public OWNER TO postgres", name)
    assert dump_text(site.server, name) == before


@WAYS
def test_a_schema_public_that_was_dropped_comes_back(newest: InPlace, way: str) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.server.run("DROP SCHEMA public CASCADE", newest.name, user=OWNER)

    restored(newest, way)

    assert dump_text(newest.server, newest.name) == before


def test_default_rights_of_now_give_nobody_rights_on_what_is_restored(site: InPlace) -> None:
    with suppress(psycopg.errors.DuplicateObject):
        site.server.run("CREATE ROLE snoop")
    before = dump_text(site.server, site.name)
    site.back_up()
    site.server.run(
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO snoop;\n"
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO snoop;\n"
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO snoop;\n"
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
        site.name,
        user=OWNER,
    )

    restored(site, "in_place")

    assert dump_text(site.server, site.name) == before


def test_extensions_of_others_stay_where_everything_is_replaced(newest: InPlace) -> None:
    newest.server.run(
        f"CREATE SCHEMA more AUTHORIZATION {OWNER};\nCREATE EXTENSION pg_stat_statements SCHEMA more;\n"
        "COMMENT ON EXTENSION pg_stat_statements IS 'one; two ''three''';\n"
        f"CREATE TABLE more.ours (id int);\nALTER TABLE more.ours OWNER TO {OWNER}",
        newest.name,
    )
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    newest.server.run("DROP TABLE more.ours;\nCREATE TABLE more.newer ()", newest.name, user=OWNER)

    restored(newest, "in_place")

    assert dump_text(newest.server, newest.name) == before


@WAYS
def test_names_in_another_encoding_come_back(newest: InPlace, way: str) -> None:
    newest.name = f"latin_{newest.name}"
    how = "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    newest.server.run(f"CREATE DATABASE {newest.name} OWNER {OWNER} {how}")
    newest.server.run(
        "CREATE TABLE größe (t text DEFAULT 'ä');\nINSERT INTO größe VALUES ('ü');\n"
        "COMMENT ON TABLE größe IS 'é'",
        newest.name,
        user=OWNER,
    )

    def dump() -> bytes:
        program = newest.server.program("pg_dump")
        command = [program, "--restrict-key=x", newest.server.by_socket(newest.name)]
        return subprocess.run(command, check=True, capture_output=True).stdout

    before = dump()
    newest.back_up()
    newest.server.run("DELETE FROM größe", newest.name)

    restored(newest, way)

    assert dump() == before


def test_a_database_that_is_gone_sorts_as_it_did(newest: InPlace) -> None:
    newest.name = f"sorted_{newest.name}"
    how = "TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
    newest.server.run(f"CREATE DATABASE {newest.name} OWNER {OWNER} {how}")
    sorting = f"SELECT datlocprovider, datlocale FROM pg_database WHERE datname = '{newest.name}'"
    before = rows(newest, "postgres", sorting)
    newest.back_up()
    newest.server.run(f"DROP DATABASE {newest.name}")

    restored(newest, "rename")

    assert rows(newest, "postgres", sorting) == before


@WAYS
def test_what_lies_by_the_hash_of_an_enumeration_comes_back_in_place(site: InPlace, way: str) -> None:
    site.server.run(BY_HASH, site.name, user=OWNER)
    query = "SELECT m::text, n FROM felt ORDER BY m, n"
    before = rows(site, site.name, query)
    site.back_up()
    site.server.run("DELETE FROM felt WHERE n > 5", site.name)

    restored(site, way)

    assert rows(site, site.name, query) == before


@WAYS
def test_text_in_no_encoding_comes_back_byte_by_byte(site: InPlace, way: str) -> None:
    site.name = f"bytes_{site.name}"
    how = "TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
    site.server.run(f"CREATE DATABASE {site.name} OWNER {OWNER} {how}")
    site.server.run(
        "CREATE TABLE größe (id int PRIMARY KEY, v text);\nINSERT INTO größe VALUES (1, E'\\xfc\\xe9')",
        site.name,
        user=OWNER,
    )
    query = "SELECT id, convert_to(v, 'SQL_ASCII') FROM größe"
    before = rows(site, site.name, query)
    site.back_up()
    site.server.run("DELETE FROM größe", site.name)

    restored(site, way)

    assert before == [(1, b"\xfc\xe9")]
    assert rows(site, site.name, query) == before


@WAYS
def test_what_was_restored_in_place_is_sound_to_the_program_that_checks_pages(
    site: InPlace, way: str
) -> None:
    if site.server.major < 14:
        pytest.skip("the server has nothing that checks pages: it came with 14")
    site.back_up()
    site.harm()

    restored(site, way)

    site.server.run("CREATE EXTENSION amcheck", site.name)
    check = [site.server.program("pg_amcheck"), "--heapallindexed", "--parent-check"]
    place = ["-h", str(site.server.folder), "-p", str(site.server.port), "-U", SUPERUSER, "-d", site.name]
    done = subprocess.run([*check, *place], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@WAYS
def test_what_a_backup_gives_to_others_is_found_in_the_plan(newest: InPlace, way: str) -> None:
    with suppress(psycopg.errors.DuplicateObject):
        newest.server.run("CREATE ROLE stranger")
    newest.server.run(
        f"CREATE TABLE strange (n int);\nGRANT SELECT ON strange TO {OWNER};\n"
        "ALTER TABLE strange OWNER TO stranger",
        newest.name,
    )
    newest.back_up()
    other = newest.server.new_database()
    newest.server.run("CREATE TABLE here (n int)", other, user=OWNER)
    before = dump_text(newest.server, other)
    place = ("--in-place", "--postgres", f"app={newest.address(other)}")

    with going(newest, way):
        dry = newest.call("restore", "latest", newest.world.storage, *place, "--dry-run")
        done = newest.restore(database=other)
    newest.server.run(f"GRANT stranger TO {OWNER}")
    with going(newest, way):
        member = newest.call("restore", "latest", newest.world.storage, *place, "--dry-run")
    newest.server.run(f"REVOKE stranger FROM {OWNER}")

    (blocked,) = [one["message"] for one in dry.result["issues"] if one["level"] == "block"]
    assert f"things belong to stranger, and {OWNER} is no member" in blocked
    assert f"GRANT stranger TO {OWNER}" in blocked
    assert (dry.status, done.status, member.status) == (1, 1, 0), member.out
    assert blocked in done.error["message"]
    assert len(newest.good("list", newest.world.storage).result["snapshots"]) == 1
    assert dump_text(newest.server, other) == before


def test_a_dry_run_says_which_way_it_is(newest: InPlace) -> None:
    newest.back_up()
    place = ("--in-place", "--postgres", f"app={newest.address(newest.name)}", "--dry-run")
    arguments = ("restore", "latest", newest.world.storage, *place)

    renamed = newest.world.run(*arguments, alone=False)
    with going(newest, "in_place"):
        replaced = newest.world.run(*arguments, alone=False)

    assert "A new database is made and read back beside it, then takes its name" in renamed.out
    assert "dropped and loaded in one transaction" in replaced.out
    assert "takes its name" not in replaced.out


@WAYS
def test_the_report_names_the_database_that_keeps_what_was_live(newest: InPlace, way: str) -> None:
    newest.back_up()
    with going(newest, way):
        message = newest.restore().result["message"]

    kept = sorted(newest.databases() - {newest.name})
    assert len(kept) == (1 if way == "rename" else 0)
    told = [f"What was live until now is kept as {name} until " for name in kept]
    assert [words for words in told if words in message] == told
    assert ("`backup-admin recover`, or an app's worker, removes it." in message) == bool(kept)
