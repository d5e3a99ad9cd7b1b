"""Databases that hold what few do: captured and loaded as they were, or refused before anything is done."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from backup_admin.core.errors import RestoreRefused, SourceError
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.clients import find_clients
from backup_admin.sources.postgres.load import LoadOptions, load
from tests.integration.postgres.test_archive import capture_archive
from tests.integration.postgres.test_capture import capture
from tests.services.postgres import OWNER, WHEEL, hand_over, start_postgres, stop
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from backup_admin.sources.postgres.load import Loaded
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration

BY_HASH = """
CREATE TYPE feeling AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
CREATE TABLE felt (m feeling, n int, PRIMARY KEY (m, n)) PARTITION BY HASH (m);
CREATE TABLE felt_0 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE felt_1 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY RANGE (n);
CREATE TABLE felt_1_low PARTITION OF felt_1 FOR VALUES FROM (0) TO (5);
CREATE TABLE felt_1_rest PARTITION OF felt_1 DEFAULT;
CREATE TABLE felt_2 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 2);
CREATE TABLE numbers (n int) PARTITION BY HASH (n);
CREATE TABLE numbers_0 PARTITION OF numbers FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO felt SELECT m, n FROM unnest(enum_range(NULL::feeling)) m, generate_series(1, 10) n;
INSERT INTO numbers SELECT generate_series(1, 10)
"""


def make(server: PostgresServer, *scripts: str, superuser: str = "") -> str:
    """Make a database by scripts of its owner, after one of the superuser."""
    name = server.new_database()
    if superuser:
        server.run(superuser, name)
    with psycopg.connect(server.address(name), autocommit=True) as connection:
        for script in scripts:
            connection.execute(script.encode())
    return name


def load_into(
    server: PostgresServer, name: str, folder: Path, options: LoadOptions | None = None, *, user: str = OWNER
) -> Loaded:
    address = server.address(name) if user == OWNER else server.by_socket(name, user=user)
    return load(folder, parse_postgres_address(address), find_clients(), options)


def rows(server: PostgresServer, name: str, query: str) -> list[Any]:
    with psycopg.connect(server.by_socket(name)) as connection:
        return connection.execute(query.encode()).fetchall()


def tables_in(server: PostgresServer, name: str) -> int:
    return int(
        rows(server, name, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")[0][0]
    )


@pytest.mark.parametrize("archive", [False, True], ids=["parts", "archive"])
def test_what_lies_by_the_hash_of_an_enumeration_comes_back(
    postgres: PostgresServer, tmp_path: Path, *, archive: bool
) -> None:
    name, new = make(postgres, BY_HASH), postgres.new_database()
    query = "SELECT m::text, n FROM felt ORDER BY m, n"

    if archive:
        contents = capture_archive(postgres.address(name), tmp_path / "parts", archive=True)
    else:
        contents = capture(postgres.address(name), tmp_path / "parts")
    loaded = load_into(postgres, new, tmp_path / "parts")

    assert [row["name"] for row in contents["tables"]] == ["felt", "numbers_0"]
    assert loaded.rows == 90
    assert rows(postgres, new, query) == rows(postgres, name, query)
    assert len(rows(postgres, new, query)) == 80


def test_an_archive_of_a_table_divided_by_a_hash_is_loaded_by_one_job(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    # Each of its parts is copied into all partitions: while another job makes their keys, that is a deadlock.
    more = (
        "INSERT INTO felt SELECT m, n FROM unnest(enum_range(NULL::feeling)) m, generate_series(11, 30000) n"
    )
    name, new = make(newest_postgres, BY_HASH, more), newest_postgres.new_database()
    capture_archive(newest_postgres.address(name), tmp_path / "parts", archive=True)
    at_once = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{new}' AND pid <> pg_backend_pid() "
        "AND state = 'active' AND query LIKE 'COPY public.felt %FROM stdin%'"
    )

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_into, newest_postgres, new, tmp_path / "parts", LoadOptions(jobs=4))
        seen = {0}
        while not loading.done():
            seen |= {count for (count,) in rows(newest_postgres, "postgres", at_once)}

    assert loading.result().rows == 240_010
    assert seen == {0, 1}


FORCED = """
CREATE TABLE t (w text);
INSERT INTO t VALUES ('a');
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
ALTER TABLE t FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON t USING (true)
"""


def test_policies_that_bind_the_owner_too_are_told_before_anything_is_done(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    name, new = make(postgres, FORCED), postgres.new_database()

    with pytest.raises(SourceError, match="give it BYPASSRLS"):
        capture(postgres.address(name), tmp_path / "none")
    capture(postgres.by_socket(name), tmp_path / "parts")
    with pytest.raises(RestoreRefused, match=r"owner of t \(FORCE .* Nothing was loaded. .* BYPASSRLS"):
        load_into(postgres, new, tmp_path / "parts")

    assert tables_in(postgres, new) == 0
    postgres.run(f"ALTER ROLE {OWNER} BYPASSRLS")
    try:
        load_into(postgres, new, tmp_path / "parts")
    finally:
        postgres.run(f"ALTER ROLE {OWNER} NOBYPASSRLS")
    assert dump_text(postgres, new) == dump_text(postgres, name)


def test_a_role_that_policies_name_is_wanted_also_without_owners(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    postgres.run("DROP ROLE IF EXISTS ghost;\nCREATE ROLE ghost")
    name = make(postgres, "CREATE TABLE t (i int); CREATE POLICY p ON t TO ghost USING (true)")
    new = postgres.new_database()
    capture(postgres.address(name), tmp_path / "parts")
    postgres.run("DROP POLICY p ON t", name)
    postgres.run("DROP ROLE ghost")

    with pytest.raises(RestoreRefused, match="knows no role ghost, and policies on rows name them"):
        load_into(postgres, new, tmp_path / "parts", LoadOptions(no_owner=True))

    assert tables_in(postgres, new) == 0


def test_a_member_who_cannot_act_as_the_owner_is_told_before_anything_is_done(
    newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    newest_postgres.run("DROP ROLE IF EXISTS apart;\nCREATE ROLE apart;\nGRANT apart TO app WITH SET FALSE")
    name, new = newest_postgres.new_database(), newest_postgres.new_database()
    newest_postgres.run("CREATE TABLE t (i int);\nALTER TABLE t OWNER TO apart", name)
    capture(newest_postgres.by_socket(name), tmp_path / "parts")
    newest_postgres.run("DROP TABLE t", name)

    with pytest.raises(RestoreRefused, match="belong to apart, and who loads"):
        load_into(newest_postgres, new, tmp_path / "parts")

    assert tables_in(newest_postgres, new) == 0


def test_an_extension_that_only_a_superuser_makes_is_told_or_was_made_by_one(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    extension = "CREATE EXTENSION pg_stat_statements"
    name = make(postgres, "CREATE TABLE t (i int)", superuser=extension)
    new, made = postgres.new_database(), make(postgres, superuser=extension)
    capture(postgres.address(name), tmp_path / "parts")

    with pytest.raises(
        RestoreRefused, match=r"may not make the extension pg_stat_statements.*--as-superuser"
    ):
        load_into(postgres, new, tmp_path / "parts")
    load_into(postgres, made, tmp_path / "parts")

    assert tables_in(postgres, new) == 0
    assert dump_text(postgres, made) == dump_text(postgres, name)


STOPPING = """
CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f();
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE SERVER beyond FOREIGN DATA WRAPPER elsewhere
"""


def test_what_belongs_to_the_superuser_is_told_before_anything_is_done(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    superuser = f"CREATE FOREIGN DATA WRAPPER elsewhere;{STOPPING}"
    name, new = make(postgres, "CREATE TABLE t (i int)", superuser=superuser), postgres.new_database()
    capture(postgres.by_socket(name), tmp_path / "parts")

    with pytest.raises(RestoreRefused, match="belong to postgres, and who loads"):
        load_into(postgres, new, tmp_path / "parts")

    assert tables_in(postgres, new) == 0
    with pytest.raises(SourceError, match="Only a superuser may"):
        load_into(postgres, new, tmp_path / "parts", LoadOptions(no_owner=True))
    fresh = postgres.new_database()
    load_into(postgres, fresh, tmp_path / "parts", user="postgres")
    assert dump_text(postgres, fresh) == dump_text(postgres, name)


def test_tables_lie_in_the_default_tablespace_where_theirs_is_missing(
    debian_postgres: PostgresServer, newest_postgres: PostgresServer, tmp_path: Path
) -> None:
    place = debian_postgres.folder / "fast"
    place.mkdir()
    hand_over(place)
    debian_postgres.run(f"CREATE TABLESPACE fast LOCATION '{place}'")
    debian_postgres.run(f"GRANT CREATE ON TABLESPACE fast TO {OWNER}")
    keyed = "CREATE TABLE t (i int PRIMARY KEY USING INDEX TABLESPACE fast) TABLESPACE fast"
    script = f"{keyed}; INSERT INTO t VALUES (1)"
    name, same = make(debian_postgres, script), debian_postgres.new_database()
    other = newest_postgres.new_database()
    capture(debian_postgres.address(name), tmp_path / "parts")

    loaded = load_into(debian_postgres, same, tmp_path / "parts")
    elsewhere = load_into(newest_postgres, other, tmp_path / "parts")

    assert (loaded.rows, loaded.notices, elsewhere.rows) == (1, (), 1)
    assert "lacks fast" in "".join(elsewhere.notices)
    assert dump_text(debian_postgres, same) == dump_text(debian_postgres, name)


ODD_TABLES = f"""
CREATE UNLOGGED TABLE volatile (i int PRIMARY KEY);
INSERT INTO volatile SELECT generate_series(1, 9);
CREATE TABLE wide ({", ".join(f"c{number} int" for number in range(1600))});
INSERT INTO wide (c0, c1599) VALUES (1, 2);
ALTER TABLE wide DROP COLUMN c5;
CREATE TABLE changed (a int, b int);
INSERT INTO changed VALUES (1, 2);
ALTER TABLE changed DROP COLUMN a;
ALTER TABLE changed ADD COLUMN a text DEFAULT 'x';
CREATE TABLE emptied (a int);
INSERT INTO emptied VALUES (1), (2);
ALTER TABLE emptied DROP COLUMN a
"""
ODD_NAMES = """
CREATE TABLE "-x;
'q'""y" ("--c
" int PRIMARY KEY, ";" text);
INSERT INTO "-x;
'q'""y" VALUES (1, 'x');
CREATE SCHEMA "-s
";
CREATE TABLE "-s
"."\\restrict x" (a int);
CREATE INDEX "i
\\q" ON "-s
"."\\restrict x" (a);
CREATE SEQUENCE "-s
"."seq
;";
CREATE TYPE "en
um" AS ENUM ('a;
''b');
CREATE FUNCTION "f
;"() RETURNS int LANGUAGE sql AS 'SELECT 1'
"""


@pytest.mark.parametrize("archive", [False, True], ids=["parts", "archive"])
def test_tables_columns_and_names_that_are_odd_come_back(
    postgres: PostgresServer, tmp_path: Path, *, archive: bool
) -> None:
    name, new = make(postgres, ODD_TABLES, ODD_NAMES), postgres.new_database()

    with psycopg.connect(postgres.address(name), autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE mine AS SELECT 1")
        if archive:
            capture_archive(postgres.address(name), tmp_path / "parts", archive=True)
        else:
            capture(postgres.address(name), tmp_path / "parts")
    load_into(postgres, new, tmp_path / "parts")

    assert dump_text(postgres, new) == dump_text(postgres, name)
    assert rows(postgres, new, "SELECT count(*) FROM emptied") == [(2,)]


def test_a_restored_subscription_is_off(postgres: PostgresServer, tmp_path: Path) -> None:
    how = "WITH (connect = false, slot_name = 'kept')"
    create = f"CREATE SUBSCRIPTION taking CONNECTION 'host=/nowhere dbname=x' PUBLICATION given {how}"
    name = make(postgres, "CREATE TABLE t (i int)", superuser=create)
    new = postgres.new_database()
    capture(postgres.by_socket(name), tmp_path / "parts")
    postgres.run("ALTER SUBSCRIPTION taking ENABLE", name)

    load_into(postgres, new, tmp_path / "parts", user="postgres")

    query = """SELECT s.subname, s.subenabled FROM pg_subscription s
        JOIN pg_database d ON d.oid = s.subdbid AND d.datname = current_database()"""
    found = rows(postgres, new, query)
    for one in (name, new):  # while there is one, its database cannot be dropped
        postgres.run("ALTER SUBSCRIPTION taking DISABLE", one)
        postgres.run("ALTER SUBSCRIPTION taking SET (slot_name = NONE)", one)
        postgres.run("DROP SUBSCRIPTION taking", one)
    assert found == [("taking", False)]


def test_a_database_that_icu_sorts_comes_back(debian_postgres: PostgresServer, tmp_path: Path) -> None:
    names = [f"sorted_by_icu_{number}" for number in range(2)]
    for name in names:
        debian_postgres.run(
            f"CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0 "
            "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn'"
        )
    debian_postgres.run(
        "CREATE TABLE t (v text PRIMARY KEY);\nINSERT INTO t SELECT 'ä' || n FROM generate_series(1, 20) n",
        names[0],
        user=OWNER,
    )
    capture(debian_postgres.address(names[0]), tmp_path / "parts")

    load_into(debian_postgres, names[1], tmp_path / "parts")

    query = "SELECT array_agg(v ORDER BY v) FROM t"
    assert rows(debian_postgres, names[1], query) == rows(debian_postgres, names[0], query)
    assert rows(debian_postgres, names[1], query)[0][0][1] == "ä2"


_READING_AHEAD = """
import sys, time
from pathlib import Path
from backup_admin.sources.postgres.address import parse_postgres_address
from backup_admin.sources.postgres.capture import capturing
from backup_admin.sources.postgres.clients import find_clients

with capturing(parse_postgres_address(sys.argv[1]), find_clients()) as captured:
    with captured.table(captured.catalog.tables[0]) as reader:
        size = len(reader.next_block())
        time.sleep(3)
        while block := reader.next_block():
            size += len(block)
        # Not ru_maxrss: that begins with what the process took that started this one.
        (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in one]
        print(size, int(line.split()[1]) // 1024)
"""


def test_large_rows_are_not_all_read_ahead(newest_postgres: PostgresServer) -> None:
    name = make(
        newest_postgres,
        "CREATE TABLE t (id int PRIMARY KEY, v bytea)",
        "INSERT INTO t SELECT n, decode(repeat('ab', 10000000), 'hex') FROM generate_series(1, 30) n",
    )

    command = [sys.executable, "-c", _READING_AHEAD, newest_postgres.by_socket(name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)

    size, megabytes = map(int, done.stdout.split())
    assert size > 600_000_000
    assert megabytes < 250


def test_more_tables_than_may_be_locked_are_told_with_what_to_do(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bk-postgres-"))
    folder.chmod(0o711)
    few = {"max_locks_per_transaction": "10", "max_connections": "10"}
    process, server = start_postgres(pytestconfig, WHEEL, folder, few)
    try:
        create = [
            ";".join(f"CREATE TABLE t{n} (i int)" for n in range(k, k + 50)) for k in range(0, 2000, 50)
        ]
        name = make(server, *create)

        with pytest.raises(SourceError, match="raise max_locks_per_transaction"):
            capture(server.address(name), tmp_path / "parts")
    finally:
        stop(process)
        shutil.rmtree(folder)
