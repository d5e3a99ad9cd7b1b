"""One database out of a snapshot in formats for others, and back into an app's tables, by the command."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.command import change
from tests.services.postgres import PASSWORD
from tests.services.postgres_oracle import GALLERY, dump_text

if TYPE_CHECKING:
    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

ROOT = Path(__file__).parents[3]
_MEASURED = """
import resource, sys
from backup_admin.cli.main import run
status = run(sys.argv[1:])
# Not of getrusage for this process: it begins with what the one had that started it.
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(status, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


def test_a_snapshot_is_exported_as_it_was_and_not_as_the_database_is_now(repository: World) -> None:
    before = dump(repository.database)
    change(repository.database, "DELETE FROM item")
    target = repository.root / "new.db"

    for kind in ("json", "sql", "compact"):
        done = repository.call("export", "latest", "--format", kind, "--to", repository.root / kind)
        assert done.status == 0, done.out
        assert (done.result["rows"], done.result["engine"]) == (100, "sqlite")

    assert dump(repository.root / "compact") == before
    with (repository.root / "sql").open("rb") as file:
        subprocess.run(["sqlite3", target], stdin=file, check=True)
    assert dump(target) == before
    change(target, "DELETE FROM item")
    loaded = repository.run("import", repository.root / "json", "--sqlite", target, "--json")
    assert (loaded.status, loaded.result["imported"]) == (0, True)
    assert dump(target) == before
    assert {path.stat().st_mode & 0o777 for path in (repository.root / "json").rglob("*.json*")} == {0o600}
    left = [path.name for path in repository.root.iterdir() if path.name.startswith(".")]
    assert left == []


def test_a_damaged_snapshot_is_not_exported(repository: World) -> None:
    for pack in (repository.storage / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[200::300] = bytes(len(data[200::300]))
            pack.write_bytes(data)

    done = repository.call("export", "latest", "--format", "sql", "--to", repository.root / "out")

    assert done.status == 4
    assert not (repository.root / "out").exists()


def test_what_is_meant_must_be_clear(repository: World) -> None:
    to = ("--to", repository.root / "out")
    nothing = repository.run("export", "--format", "json", *to, "--json")
    both = repository.call("export", "latest", "--sqlite", repository.database, "--format", "json", *to)
    unknown = repository.call("export", "latest", "--database", "other", "--format", "json", *to)
    inside = repository.call("export", "latest", "--format", "json", "--to", repository.storage / "out")
    nowhere = repository.run("import", repository.root, "--json")
    no_export = repository.run("import", repository.root, "--sqlite", repository.database, "--json")
    (repository.root / "file.sql").write_text("SELECT 1")
    script = repository.run("import", "file.sql", "--sqlite", repository.database, "--json")

    assert "file.sql is a file, not a json export" in script.error["message"]
    assert "by sqlite3 or psql" in script.error["message"]
    assert [done.status for done in (nothing, both, nowhere, inside)] == [2, 2, 2, 1]
    assert "there are: app" in unknown.error["message"]
    assert (no_export.status, no_export.error["code"]) == (1, "restore_refused")
    assert not (repository.root / "out").exists()


def test_a_disk_that_takes_no_more_is_told_and_leaves_everything_as_it_was(world: World) -> None:
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE a (x)")
        database.execute("INSERT INTO a VALUES (randomblob(300000))")
    target = world.root / "out"
    target.mkdir()
    export = [sys.executable, "-m", "backup_admin", "export", "--sqlite", str(world.root / "a.db")]

    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 350; exec "$@"', "-", *export, "--format", "json", "--to", str(target)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, "None" in done.stderr) == (1, False)
    assert "File too large. Nothing was exported." in done.stderr
    assert target.is_dir()
    assert sorted(path.name for path in world.root.iterdir() if "export" in path.name) == []


@pytest.mark.parametrize("spoil", ["a pipe", "no number"])
def test_an_export_that_somebody_spoiled_is_refused_at_once(world: World, spoil: str) -> None:
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT)")
        database.execute("INSERT INTO a VALUES (7)")
    out = world.root / "out"
    assert world.run("export", "--sqlite", "a.db", "--format", "json", "--to", "out").status == 0
    text = json.loads((out / "export.json").read_bytes())
    if spoil == "a pipe":
        (out / text["tables"][0]["file"]).unlink()
        os.mkfifo(out / text["tables"][0]["file"])
    else:
        text["sequences"][0]["last_value"] = "seven"
        (out / "export.json").write_text(json.dumps(text))
    change(world.root / "a.db", "DELETE FROM a")

    done = world.run("import", "out", "--sqlite", "a.db", "--json")

    assert (done.status, done.error["code"]) == (4, "damaged")


def test_refusals_are_listed_and_end_with_a_status_of_their_own(world: World) -> None:
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE a (x)")
        database.execute("INSERT INTO a VALUES (1), (1), (2)")
    for name in ("strict.db", "partial.db"):
        with closing(sqlite3.connect(world.root / name)) as database:
            database.execute("CREATE TABLE a (x UNIQUE)")
    assert world.run("export", "--sqlite", "a.db", "--format", "json", "--to", "out").status == 0

    lost = world.run("import", "out", "--sqlite", "lost.db", "--json")
    refused = world.run("import", "out", "--sqlite", "strict.db", "--json")
    tried = world.run("import", "out", "--sqlite", "partial.db", "--partial", "--dry-run")
    partial = world.run("import", "out", "--sqlite", "partial.db", "--partial")

    assert lost.status == 1
    assert lost.error["message"] == (
        f"{world.root / 'lost.db'} is not there. Nothing was imported. Name a database in which the app's "
        "migrations made the tables."
    )
    assert (refused.status, refused.document["error"]) == (1, None)
    assert (refused.result["imported"], refused.result["refused_rows"]) == (False, 1)
    assert refused.result["refused"] == [{"table": "a", "row": 2, "reason": "UNIQUE constraint failed: a.x"}]
    assert (tried.status, partial.status) == (3, 3)
    assert "would be imported" in tried.out
    assert "refused: a row 2: UNIQUE constraint failed" in partial.out
    assert "Imported 2 rows" in partial.out


def test_only_what_an_import_brought_is_counted(world: World) -> None:
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE a (x)")
        database.execute("CREATE TABLE b (x)")
        database.execute("INSERT INTO a VALUES (1), (2), (3)")
        database.execute("INSERT INTO b VALUES (1), (2)")
    assert world.run("export", "--sqlite", "a.db", "--format", "json", "--to", "out").status == 0

    again = world.run("import", "out", "--sqlite", "a.db")
    tried = world.run("import", "out", "--sqlite", "a.db", "--dry-run")
    change(world.root / "a.db", "DELETE FROM b")
    some = world.run("import", "out", "--sqlite", "a.db")

    assert (again.status, tried.status, some.status) == (0, 0, 0)
    for done in (again, tried):
        where = world.root / "a.db"
        assert f"Nothing was imported into {where}: it holds all 5 rows already." in done.out
        assert "Imported" not in done.out
    assert "  a: 3 rows, there already\n" in some.out
    assert "Imported 2 rows into" in some.out


@pytest.mark.integration
def test_a_postgresql_database_is_exported_without_its_server(world: World, postgres: PostgresServer) -> None:
    world.environment |= {"BACKUP_ADMIN_KEY_FILE": str(world.key), "PGPASSWORD": PASSWORD}
    name, other, third = (postgres.new_database() for _ in range(3))
    with psycopg.connect(postgres.address(name), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
    before = dump_text(postgres, name)
    world.init()
    source = f"app={postgres.address(name, password=None)}"
    assert world.run("run", world.storage, "--postgres", source, alone=False).status == 0
    postgres.run(f'DROP DATABASE "{name}"')

    made = [
        world.run(
            "export",
            "latest",
            world.storage,
            "--format",
            kind,
            "--to",
            world.root / kind,
            "--json",
            alone=False,
        )
        for kind in ("json", "sql")
    ]

    assert [(done.status, done.result["rows"]) for done in made] == [(0, 3457)] * 2
    psql = [postgres.program("psql"), "-X", "-v", "ON_ERROR_STOP=1", "-d", postgres.by_socket(other)]
    subprocess.run([*psql, "-f", str(world.root / "sql")], capture_output=True, check=True)
    assert dump_text(postgres, other) == before
    with psycopg.connect(postgres.address(third), autocommit=True) as connection:
        connection.execute(GALLERY.encode())
        connection.execute("TRUNCATE events, photos, logs, base, sessions, secret_rows CASCADE")
        connection.execute('DELETE FROM derived; DELETE FROM "odd; schema ""x"""."-t\n \'able\'"')
    address = postgres.address(third, password=None)
    loaded = world.run("import", world.root / "json", "--postgres", address, "--json", alone=False)
    assert (loaded.status, loaded.result["imported"]) == (0, True), loaded.out
    assert PASSWORD not in loaded.out + loaded.err
    for database in (other, third):
        with psycopg.connect(postgres.address(database), autocommit=True) as connection:
            connection.execute("REFRESH MATERIALIZED VIEW per_event")
            connection.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    assert dump_text(postgres, third) == dump_text(postgres, other)


def test_memory_does_not_grow_with_rows(world: World) -> None:
    columns = "(id INTEGER PRIMARY KEY, name TEXT, value REAL)"
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute(f"CREATE TABLE t {columns}")
        rows = ((n, f"photo number {n}.jpg" * 4, n / 7) for n in range(250_000))
        database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    with closing(sqlite3.connect(world.root / "b.db")) as database:
        database.execute(f"CREATE TABLE t {columns}")

    assert measured(world, "export", "--sqlite", "a.db", "--format", "json", "--to", "out") < 60
    assert measured(world, "export", "--sqlite", "a.db", "--format", "sql", "--to", "out.sql") < 60
    assert measured(world, "import", "out", "--sqlite", "b.db") < 60
    assert dump(world.root / "b.db") == dump(world.root / "a.db")


def test_memory_grows_with_the_largest_row_alone(world: World) -> None:
    size = 20_000_000
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")
        database.executemany("INSERT INTO t VALUES (?, randomblob(?))", ((n, size) for n in range(8)))
    with closing(sqlite3.connect(world.root / "b.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)")

    assert measured(world, "export", "--sqlite", "a.db", "--format", "json", "--to", "out") < 300
    assert measured(world, "import", "out", "--sqlite", "b.db") < 300
    with closing(sqlite3.connect(world.root / "b.db")) as database:
        database.execute("ATTACH ? AS a", (str(world.root / "a.db"),))
        query = "SELECT count(*) FROM main.t JOIN a.t AS other USING (id) WHERE main.t.data = other.data"
        assert database.execute(query).fetchone() == (8,)


def test_an_import_that_is_killed_leaves_nothing_behind(world: World) -> None:
    with closing(sqlite3.connect(world.root / "a.db")) as database, database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
        database.executemany("INSERT INTO t VALUES (?, ?)", ((n, f"photo {n}") for n in range(150_000)))
    with closing(sqlite3.connect(world.root / "b.db")) as database:
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
    assert world.run("export", "--sqlite", "a.db", "--format", "json", "--to", "out").status == 0

    process = world.start("import", "out", "--sqlite", "b.db")
    deadline = time.monotonic() + 30
    # The cache of pages is full by now, so rows are in the file already.
    while (world.root / "b.db").stat().st_size < 1_000_000 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()

    assert (world.root / "b.db-journal").exists()
    assert shell(world.root / "b.db", "SELECT count(*) FROM t; PRAGMA integrity_check") == "0\nok\n"
    assert world.run("import", "out", "--sqlite", "b.db").status == 0
    assert dump(world.root / "b.db") == dump(world.root / "a.db")


def measured(world: World, *arguments: str) -> int:
    """Run the command and return the most memory that it or a process of its took, in MB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BACKUP_ADMIN_STATE_DIR": str(world.state)}
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments],
        cwd=world.root,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    status, used = done.stdout.splitlines()[-1].split()
    assert status == "0", done.stderr
    return int(used)


def dump(path: Path) -> str:
    return shell(path, ".dump")


def shell(path: Path, command: str) -> str:
    done = subprocess.run(
        ["sqlite3", "-cmd", ".timeout 5000", path, command], check=True, capture_output=True, text=True
    )
    return done.stdout


def test_a_json_export_is_read_with_nothing_but_json(repository: World) -> None:
    repository.call("export", "latest", "--format", "json", "--to", repository.root / "out")

    export = json.loads((repository.root / "out/export.json").read_text())
    (table,) = export["tables"]
    head, *rows = [
        json.loads(line) for line in (repository.root / "out" / table["file"]).read_text().splitlines()
    ]

    assert (export["format"], export["engine"], export["database"]) == (1, "sqlite", "app")
    assert head["columns"] == ["id", "name", "payload"]
    assert [row[:2] for row in rows] == [[number, f"item {number}"] for number in range(100)]
