"""A PostgreSQL database through the command alone: backed up in use, restored, loaded, and the same."""

from __future__ import annotations

import re
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.services.postgres import OWNER, PASSWORD
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.cli.command import Done, World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


class Site:
    """An app with a PostgreSQL database and folders, and a repository."""

    def __init__(self, world: World, server: PostgresServer) -> None:
        self.world = world
        self.server = server
        self.name = server.new_database()
        with psycopg.connect(server.address(self.name), autocommit=True) as connection:
            connection.execute(GALLERY.encode())
        world.environment |= {"BACKUP_ADMIN_KEY_FILE": str(world.key), "PGPASSWORD": PASSWORD}
        self.good("init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery)

    def address(self, database: str) -> str:
        return self.server.address(database, password=None)

    def call(self, *arguments: object) -> Done:
        return self.world.run(*arguments, "--json", alone=False)

    def good(self, *arguments: object) -> Done:
        done = self.call(*arguments)
        assert done.status == 0, done.out + done.err
        return done

    def back_up(self) -> Done:
        sources = ("--postgres", f"app={self.address(self.name)}", "--files", f"files={self.world.files}")
        return self.good("run", self.world.storage, *sources)


@pytest.fixture
def site(world: World, postgres: PostgresServer) -> Site:
    return Site(world, postgres)


def test_a_database_comes_back_as_it_was(site: Site, tmp_path: Path) -> None:
    before = dump_text(site.server, site.name)
    made = site.back_up().result["snapshot"]
    site.server.run("TRUNCATE photos, events CASCADE;\nDROP TABLE logs", site.name)

    site.good("check", site.world.storage, "--read-data")
    site.good("verify", "latest", site.world.storage)
    restored = site.good("restore", "latest", site.world.storage, "--to", tmp_path / "out").result
    new = site.server.new_database()
    folder = tmp_path / "out/databases/app"
    loaded = site.good("load", folder, "--postgres", site.address(new)).result

    assert dump_text(site.server, new) == before
    assert (restored["databases"], restored["problems"]) == (1, [])
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert made["database_bytes"] == sum(sizes)
    assert loaded["tables"] == 10
    assert loaded["database"] == f"postgresql://{OWNER}@127.0.0.1:{site.server.port}/{new}"
    with psycopg.connect(site.server.address(new), autocommit=True) as connection:
        connection.execute("INSERT INTO photos (event_id, path) VALUES (1, 'new')")


def test_an_archive_on_request_says_why_and_comes_back_the_same(site: Site, tmp_path: Path) -> None:
    address = f"app={site.address(site.name)}"

    made = site.good("run", site.world.storage, "--postgres", address, "--postgres-format", "archive").result
    site.good("restore", "latest", site.world.storage, "--to", tmp_path / "out")
    shown = site.good("show", "latest", site.world.storage).document
    one_table = ("--table", "app.photos", "--postgres", address, "--dry-run")
    refused = site.call("restore", "latest", site.world.storage, *one_table)
    new = site.server.new_database()
    loaded = site.good("load", tmp_path / "out/databases/app", "--postgres", site.address(new)).result

    assert "stored as one archive, since it was asked for" in refused.error["message"]
    assert made["notices"] == ["app: it is stored as one archive, since it was asked for"]
    (database,) = shown["databases"]
    assert (database["format"], shown["notices"]) == ("archive", made["notices"])
    assert {path.name for path in (tmp_path / "out/databases/app").iterdir()} == {
        "contents.json",
        "database.dump",
    }
    assert loaded["tables"] == 10
    assert dump_text(site.server, new) == dump_text(site.server, site.name)


def test_settings_rights_and_comment_of_a_database_are_loaded_or_named(site: Site, tmp_path: Path) -> None:
    site.server.run(
        f'ALTER DATABASE {site.name} SET search_path TO "$user", public;\n'
        f"ALTER DATABASE {site.name} SET log_min_duration_statement TO 17;\n"
        f"REVOKE CONNECT ON DATABASE {site.name} FROM PUBLIC;\nCOMMENT ON DATABASE {site.name} IS 'ours'"
    )
    site.back_up()
    site.good("restore", "latest", site.world.storage, "--to", tmp_path / "out")
    new = site.server.new_database()

    loaded = site.good("load", tmp_path / "out/databases/app", "--postgres", site.address(new)).result

    query = (
        "SELECT has_database_privilege('public', oid, 'CONNECT'), shobj_description(oid, 'pg_database'), "
        "(SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = oid) "
        "FROM pg_database WHERE datname = %s"
    )
    with psycopg.connect(site.server.by_socket("postgres")) as connection:
        found = connection.execute(query, (new,)).fetchone()
    assert found == (False, "ours", ['search_path="$user", public'])
    (notice,) = loaded["notices"]
    assert f'ALTER DATABASE "{new}" SET "log_min_duration_statement" TO \'17\'' in notice


def test_the_user_of_the_guide_may_back_up_and_do_nothing_else(site: Site) -> None:
    if site.server.major < 14:
        pytest.skip("pg_read_all_data came with 14; the guide says what to do before")
    guide = (Path(__file__).parents[3] / "docs/admin-guide/postgres.md").read_text()
    statements = guide.split("```sql\n", 1)[1].split("```", 1)[0].replace("   ", "").strip()
    site.server.run(f"DROP ROLE IF EXISTS backup;\n{statements}")
    site.server.run("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", site.name)  # they are the owner's
    site.world.environment["PGPASSWORD"] = "a long one"
    address = site.server.address(site.name, user="backup", password=None)

    site.good("run", site.world.storage, "--postgres", f"app={address}")

    with (
        psycopg.connect(site.server.by_socket(site.name, user="backup")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("DELETE FROM photos")


def test_what_did_not_change_takes_no_room_and_what_is_forgotten_none(site: Site) -> None:
    site.server.run(
        "CREATE TABLE large AS SELECT n AS id, md5(n::text) AS text FROM generate_series(1, 200000) n;\n"
        "ALTER TABLE large ADD PRIMARY KEY (id)",
        site.name,
        user=OWNER,
    )
    first = site.back_up().result
    site.server.run("UPDATE large SET text = 'new' WHERE id BETWEEN 1000 AND 1100", site.name)
    second = site.back_up().result
    before = dump_text(site.server, site.name)

    assert second["new_bytes"] < first["new_bytes"] / 10
    site.good("forget", site.world.storage, first["snapshot"]["id"])
    site.good("prune", site.world.storage, "--max-unused", "0", "--unknown-now")
    site.good("check", site.world.storage, "--read-data")
    site.good("restore", "latest", site.world.storage, "--to", site.world.root / "out")
    new = site.server.new_database()
    site.good("load", site.world.root / "out/databases/app", "--postgres", site.address(new))
    assert dump_text(site.server, new) == before


def test_its_parts_are_listed_and_no_sqlite_file_is_made_of_it(site: Site, tmp_path: Path) -> None:
    site.back_up()
    site.good("run", site.world.storage, "--sqlite", f"app={site.world.database}")
    first = site.good("list", site.world.storage).result["snapshots"][0]["id"]

    listed = site.good("ls", first, site.world.storage, "databases/app").result
    restored = site.call(
        "restore", first, site.world.storage, "--in-place", "--yes", "--sqlite", f"app={tmp_path / 'x.db'}"
    )

    names = {str(row["path"]).rpartition("/")[2] for row in listed["entries"]}
    assert {"contents.json", "pre-data.dump", "post-data.dump", "tables"} <= names
    assert "is postgresql, and its place is a SQLite file" in restored.error["message"]
    assert not (tmp_path / "x.db").exists()


def test_a_run_that_is_killed_leaves_nothing_behind_and_the_next_one_is_whole(
    world: World, newest_postgres: PostgresServer
) -> None:
    site = Site(world, newest_postgres)
    site.server.run(
        "CREATE TABLE large AS SELECT n AS id, md5(n::text) AS text FROM generate_series(1, 900000) n",
        site.name,
        user=OWNER,
    )
    source = ("--postgres", f"app={site.address(site.name)}")
    process = site.world.start("run", site.world.storage, *source, "--json", alone=False)
    assert wait_until(lambda: len(sessions(site)) >= 2)
    process.kill()
    process.communicate()

    assert wait_until(lambda: not sessions(site))
    assert site.good("list", site.world.storage).result["snapshots"] == []
    site.good("run", site.world.storage, *source)
    site.good("verify", "latest", site.world.storage)


def sessions(site: Site) -> list[str]:
    """Return what is connected to the database, but for who asks."""
    with psycopg.connect(site.server.by_socket("postgres")) as connection:
        query = "SELECT application_name FROM pg_stat_activity WHERE datname = %s"
        return [str(name) for (name,) in connection.execute(query, (site.name,))]


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_damage_in_a_table_is_found_and_named(site: Site) -> None:
    site.back_up()
    for pack in (site.world.storage / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[500::500] = bytes(len(data[500::500]))
            pack.write_bytes(data)

    checked = site.call("check", site.world.storage, "--read-data")
    verified = site.call("verify", "latest", site.world.storage)

    assert checked.status != 0
    assert verified.status != 0
    assert "app" in "".join(verified.result["problems"])


def test_no_snapshot_is_made_of_a_database_that_cannot_be_read(site: Site) -> None:
    closed = site.call("run", site.world.storage, "--postgres", "app=postgresql://app@127.0.0.1:1/x")
    wrong = site.call("run", site.world.storage, "--postgres", f"app={site.address('no_such_database')}")
    unreadable = site.call("run", site.world.storage, "--postgres", "app=postgresql://u:pass@h:port/x")
    bare = site.call("run", site.world.storage, "--postgres", "app")

    assert "Nothing listens there" in closed.error["message"]
    assert "Check the names in the address" in wrong.error["message"]
    assert "is a number" in unreadable.error["message"]
    assert (unreadable.status, bare.status) == (2, 2)
    assert site.good("list", site.world.storage).result["snapshots"] == []
    for done in (closed, wrong, unreadable, bare):
        assert PASSWORD not in done.out + done.err
        assert "pass@" not in done.out + done.err


def test_load_says_what_it_was_given_instead_of_a_captured_database(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with closing(sqlite3.connect(tmp_path / "gal2.sqlite")) as database:
        database.execute("CREATE TABLE a (x)")
    (tmp_path / "script.sql").write_text("SELECT 1")
    site.back_up()
    site.good("restore", "latest", site.world.storage, "--key-file", site.world.key, "--to", out)
    target = site.address(site.server.new_database())

    said = {}
    for given in (
        tmp_path / "gal2.sqlite",
        tmp_path / "script.sql",
        tmp_path / "none",
        out,
        out / "databases",
    ):
        done = site.call("load", given, "--postgres", target)
        assert (done.status, done.error["code"]) == (1, "restore_refused"), done.out
        assert done.error["message"].endswith("Nothing was loaded.")
        said[given.name] = done.error["message"]

    assert "is a SQLite database, which needs no loading" in said["gal2.sqlite"]
    assert "script.sql is a file; `load` takes" in said["script.sql"]
    assert "none is not there" in said["none"]
    assert f"Name one of these: {out}/databases/app." in said["out"]
    assert f"Name one of these: {out}/databases/app." in said["databases"]


def test_what_is_loaded_into_a_database_in_use_is_refused(site: Site, tmp_path: Path) -> None:
    site.back_up()
    site.good("restore", "latest", site.world.storage, "--to", tmp_path / "out")
    before = dump_text(site.server, site.name)

    refused = site.call("load", tmp_path / "out/databases/app", "--postgres", site.address(site.name))
    shutil.rmtree(tmp_path / "out/databases/app/tables")
    missing = site.call(
        "load", tmp_path / "out/databases/app", "--postgres", site.address(site.server.new_database())
    )

    assert (refused.status, refused.error["code"]) == (1, "restore_refused")
    assert "is not empty" in refused.error["message"]
    assert missing.status != 0
    assert "tables/" in missing.error["message"]
    assert dump_text(site.server, site.name) == before


def test_a_database_without_tables_is_asked_about_and_one_that_had_some_is_missing(
    site: Site, tmp_path: Path
) -> None:
    wrong = ("run", site.world.storage, "--postgres")
    never = site.good(*wrong, f"other={site.address('postgres')}").result
    whole = site.world.run(*wrong, f"app={site.address(site.name)}", alone=False)
    moved = site.call(*wrong, f"app={site.address('postgres')}")
    exported = site.good(
        "export", "--postgres", site.address("postgres"), "--format", "json", "--to", tmp_path / "out"
    ).result
    imported = site.good("import", tmp_path / "out", "--postgres", site.address(site.name)).result

    assert never["notices"] == ["other: has no tables: is this the right database?"]
    assert never["databases"] == [{"name": "other", "tables": 0, "rows": 0}]
    assert re.search(r"    app +10 tables, [\d,]+ rows\n", whole.out), whole.out
    assert (moved.status, moved.result["outcome"]) == (3, "degraded")
    assert "app has no tables, and had 10 in an earlier snapshot" in moved.result["warnings"][0]
    assert exported["notices"] == ["postgres has no tables: is this the right database?"]
    assert imported["notices"] == ["The export has no tables: is it one of the right database?"]
