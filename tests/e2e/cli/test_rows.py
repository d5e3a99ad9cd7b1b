"""Tables and rows go back into a live database through the command alone."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.services.postgres import PASSWORD
from tests.services.small_gallery import Database, PostgresDatabase, SqliteDatabase, fill

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.e2e.cli.command import Done, World

pytestmark = pytest.mark.integration


class Site:
    """An app with a gallery's database and files, backed up once."""

    def __init__(self, world: World, database: Database) -> None:
        self.world = world
        self.database = database
        world.environment |= {"BACKUP_ADMIN_KEY_FILE": str(world.key), "PGPASSWORD": PASSWORD}
        if isinstance(database, PostgresDatabase):
            address = database.server.address(database.name, password=None)
            self.source = ("--postgres", f"app={address}")
        else:
            assert isinstance(database, SqliteDatabase)
            self.source = ("--sqlite", f"app={database.path}")
        fill(database)
        for event in (1, 2, 3):
            (world.files / "photos" / f"event-{event}").mkdir(parents=True)
            for n in range(4):
                (world.files / "photos" / f"event-{event}" / f"{n}.jpg").write_bytes(b"%d-%d" % (event, n))
        self.good("init", world.storage, "--key-file", world.key, "--recovery-file", world.recovery)
        self.good("run", world.storage, *self.source, *self.files)

    @property
    def restores(self) -> Path:
        return self.world.state / "restores"

    @property
    def password(self) -> tuple[str, ...]:
        """What undo and recover need of a server, besides what libpq finds."""
        return self.source if isinstance(self.database, PostgresDatabase) else ()

    def content(self) -> list[str]:
        """Return all of the database but where its sequences are, which do not go back."""
        return [line for line in self.database.dump() if "setval" not in line]

    @property
    def files(self) -> tuple[str, str]:
        return "--files", f"files={self.world.files}"

    def call(self, *arguments: object) -> Done:
        return self.world.run(*arguments, "--json", alone=False)

    def good(self, *arguments: object) -> Done:
        done = self.call(*arguments)
        assert done.status == 0, done.out + done.err
        return done

    def restore(self, *more: object) -> Done:
        return self.call("restore", "latest", self.world.storage, *self.source, *more)


@pytest.fixture(params=["sqlite", "newest_postgres"])
def site(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Site:
    world.database.unlink()
    if request.param == "sqlite":
        return Site(world, SqliteDatabase(tmp_path / "app.db"))
    server = request.getfixturevalue(request.param)
    return Site(world, PostgresDatabase(server, server.new_database()))


def test_rows_of_a_time_come_from_the_snapshot_of_that_time(site: Site) -> None:
    before = site.database.dump()
    site.database.run("DELETE FROM events WHERE id = 2")

    early = site.restore("--rows", "app.events:2", "--at", "2001-01-01T00:00Z", "--yes")
    now = site.restore("--rows", "app.events:2", "--at", "0s", "--yes")

    assert (early.status, "the first is" in early.err + early.out) == (1, True)
    assert (now.status, site.database.dump() == before) == (0, True)


def test_one_event_comes_back_with_its_files(site: Site) -> None:
    before = site.database.dump()
    site.database.run("DELETE FROM events WHERE id = 2")
    photos = site.world.files / "photos" / "event-2"
    for n in (0, 1):
        (photos / f"{n}.jpg").unlink()
    (photos / "2.jpg").write_bytes(b"another since")

    linked = ("--linked", "app.photos.path=files/photos", *site.files)
    dry = site.restore("--rows", "app.events:2", *linked, "--dry-run")
    assert (dry.status, dry.result["dry_run"]) == (0, True)
    assert not (photos / "0.jpg").exists()
    done = site.restore("--rows", "app.events:2", *linked, "--yes")

    assert done.status == 3  # the file that is different is named
    assert site.database.dump() == before
    assert [(photos / f"{n}.jpg").read_bytes() for n in range(4)] == [
        b"2-0",
        b"2-1",
        b"another since",
        b"2-3",
    ]
    (files,) = done.result["done"]["linked"]
    assert (files["put_back"], files["present"], files["different"]) == (2, 1, 1)
    assert dry.result["plan"]["tables"] == done.result["done"]["tables"]
    listed = site.good("list", site.world.storage).result["snapshots"]
    assert [one["kind"] for one in listed if one["id"] == done.result["safety_snapshot"]] == ["safety"]


def test_no_path_that_a_row_holds_leaves_its_folder(site: Site) -> None:
    outside = site.world.root / "outside.txt"
    outside.write_text("mine")
    site.database.run(
        "UPDATE photos SET path = '../outside.txt' WHERE id = 200",
        f"UPDATE photos SET path = '{outside}' WHERE id = 201",
        "UPDATE photos SET path = 'event-2/link/0.jpg' WHERE id = 202",
        "UPDATE photos SET path = '' WHERE id = 203",
    )
    elsewhere = site.world.root / "elsewhere"
    elsewhere.mkdir()
    link = site.world.files / "photos" / "event-2" / "link"
    link.mkdir()
    (link / "0.jpg").write_bytes(b"there")
    site.good("run", site.world.storage, *site.source, *site.files)
    (link / "0.jpg").unlink()
    link.rmdir()
    link.symlink_to(elsewhere)
    outside.unlink()

    done = site.restore(
        "--rows", "app.events:2", "--linked", "app.photos.path=files/photos", *site.files, "--yes"
    )

    assert done.status == 3, done.out
    (files,) = (
        done.result["done"]["linked"]
        if done.result["outcome"] == "restored"
        else done.result["plan"]["linked"]
    )
    assert (files["put_back"], files["refused"]) == (0, 3)
    assert len(files["problems"]) == 4
    assert list(elsewhere.iterdir()) == []
    assert not outside.exists()


def test_a_file_that_is_overwritten_is_kept_aside(site: Site) -> None:
    photos = site.world.files / "photos" / "event-2"
    (photos / "1.jpg").write_bytes(b"another since")
    site.database.run("DELETE FROM photos WHERE id IN (200, 201)")

    done = site.restore(
        *("--rows", "app.photos:200", "--rows", "app.photos:201", "--on-conflict", "overwrite", "--yes"),
        *("--linked", "app.photos.path=files/photos", *site.files),
    )

    assert done.status == 0, done.out
    assert (photos / "1.jpg").read_bytes() == b"2-1"
    assert (photos / f"1.jpg.before-{done.result['restore']}").read_bytes() == b"another since"
    assert sorted(path.name for path in photos.iterdir())[0] == "0.jpg"


def test_a_clash_ends_with_1_and_names_the_rows(site: Site) -> None:
    site.database.run("DELETE FROM events WHERE id = 2", "UPDATE events SET slug = 'event-2' WHERE id = 3")
    before = site.database.dump()

    for more in (("--yes",), ("--dry-run",)):
        done = site.restore("--rows", "app.events:2", *more)
        assert done.status == 1
        (clash,) = done.result["plan"]["clashes"]
        assert (clash["table"], clash["row"], clash["live_row"]) == ("events", "2", "3")
    assert done.result["plan"]["refusals"] == []
    assert site.database.dump() == before
    assert len(site.good("list", site.world.storage).result["snapshots"]) == 1  # no safety backup either


def test_what_is_there_already_touches_nothing(site: Site) -> None:
    done = site.restore("--rows", "app.events:2", "--table", "app.roles", "--yes")

    assert (done.status, done.result["outcome"]) == (0, "nothing_to_do")
    assert done.result["message"] == "All of it is live already. Nothing was touched."
    site.database.run("UPDATE photos SET caption = 'changed since' WHERE event_id = 2")
    done = site.restore("--rows", "app.events:2", "--yes")
    assert (done.status, done.result["outcome"]) == (0, "nothing_to_do")
    assert done.result["message"].startswith("Of 4 rows something else is live, and stays;")
    assert len(site.good("list", site.world.storage).result["snapshots"]) == 1


def test_wrong_use_says_what_is_wrong(site: Site) -> None:
    before = site.database.dump()
    linked = ("--linked", "app.photos.path=files")
    lost = ("--rows", "app.events:2", *linked, "--files", "files=/does/not/exist")
    wrong: list[tuple[tuple[str, ...], int, str]] = [
        (("--rows", "app.events:2"), 2, "give --yes"),
        (("--rows", "app.events", "--yes"), 2, "NAME.TABLE:KEY"),
        (("--rows", "other.events:2", "--yes"), 2, "does not begin with the name"),
        (("--rows", "app.events:99", "--yes"), 1, "no row of events with the key '99'"),
        (("--table", "app.nothing", "--yes"), 1, "Neither the snapshot nor the live database has a table"),
        (("--table", "app.evnts", "--yes"), 1, "a table 'evnts'; the nearest names are events"),
        (("--table", "app.events", "--on-conflict", "copy", "--yes"), 2, "--rows only"),
        (("--table", "app.events", "--to", "x"), 2, "--to has no meaning"),
        (("--rows", "app.events:2", "--linked", "app.photos.path=files", "--yes"), 2, "--files files=DIR"),
        (("--rows", "app.events:2", "--linked", "app.photos.path=no", "--yes"), 2, "no folder 'no'"),
        (("--in-place", "--on-conflict", "skip"), 2, "has no meaning"),
        ((*lost, "--dry-run"), 1, "/does/not/exist, which is no folder or not there"),
        ((*lost, "--yes"), 1, "/does/not/exist, which is no folder or not there"),
    ]

    for arguments, status, words in wrong:
        done = site.restore(*arguments)
        assert (done.status, words in done.error["message"]) == (status, True), (arguments, done.out)

    assert site.database.dump() == before


def test_a_file_that_is_not_there_takes_no_rows_and_is_not_made(world: World, tmp_path: Path) -> None:
    site = Site(world, SqliteDatabase(tmp_path / "app.db"))
    lost = tmp_path / "lost.db"

    rows = ("--rows", "app.events:2", "--yes", "--sqlite", f"app={lost}")
    done = site.call("restore", "latest", site.world.storage, *rows)

    assert (done.status, done.error["code"]) == (1, "source_missing")
    assert done.error["message"] == (
        f"{lost} is not there. Nothing was touched. Tables and rows go only into a database that is there: "
        "check the path, or restore the whole database first."
    )
    assert not lost.exists()


def test_killed_in_the_middle_it_leaves_the_live_database_as_it_was(site: Site) -> None:
    site.database.run("DELETE FROM events WHERE id = 2")
    slow_down(site.database)
    before = site.database.dump()
    process = site.world.start(
        *("restore", "latest", site.world.storage, *site.source, "--rows", "app.events:2", "--yes"),
        alone=False,
    )

    for wanted in (True, False, True):  # the plan, the safety backup, and then in earnest
        wait_until(site.database, process, busy=wanted)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(site.database, None, busy=False)

    assert site.database.dump() == before
    again = site.restore("--rows", "app.events:2", "--yes")
    assert (again.status, "run `backup-admin recover` first" in again.error["message"]) == (1, True)
    (recovered,) = site.good("recover", *site.password).result["restores"]
    assert recovered["outcome"] == "rolled_back"
    assert site.restore("--rows", "app.events:2", "--yes").status == 0
    assert site.database.rows("SELECT count(*) FROM photos WHERE event_id = 2") == [(4,)]


def test_undo_takes_back_rows_and_files_and_names_what_was_changed_since(site: Site) -> None:
    site.database.run("DELETE FROM events WHERE id = 2", "UPDATE photos SET caption = 'mine' WHERE id = 100")
    photos = site.world.files / "photos" / "event-2"
    (photos / "0.jpg").unlink()
    (photos / "1.jpg").write_bytes(b"another since")
    before = site.content()
    done = site.restore(
        *("--rows", "app.events:2", "--rows", "app.photos:100", "--on-conflict", "overwrite", "--yes"),
        *("--linked", "app.photos.path=files/photos", *site.files),
    )
    assert (done.status, done.result["outcome"]) == (0, "restored"), done.out
    assert done.result["undo_until"] is not None
    assert (photos / "1.jpg").read_bytes() == b"2-1"
    site.database.run("UPDATE photos SET caption = 'since' WHERE id = 201")
    after = site.content()

    refused = site.call("undo", "--yes", *site.password)
    site.database.run(
        "UPDATE photos SET caption = (SELECT caption FROM photos WHERE id = 202) WHERE id = 201"
    )
    undone = site.call("undo", done.result["restore"][:20], "--yes", *site.password)

    assert (
        refused.status,
        "these rows are no longer what it left: photos 201." in refused.error["message"],
    ) == (
        1,
        True,
    )
    assert after != before
    assert (undone.status, undone.result["outcome"]) == (0, "undone"), undone.out
    assert site.content() == before
    assert sorted(path.name for path in photos.iterdir()) == ["1.jpg", "2.jpg", "3.jpg"]
    assert (photos / "1.jpg").read_bytes() == b"another since"
    assert site.call("undo", "--yes", *site.password).status == 1


def test_rows_of_a_database_that_was_replaced_are_undone_after_that_is(site: Site) -> None:
    site.database.run("DELETE FROM events WHERE id = 2")
    before = site.content()
    rows = site.restore("--rows", "app.events:2", "--yes").result["restore"]
    after = site.content()
    whole = site.restore("--in-place", "--yes", *site.files)
    assert (whole.status, whole.result["outcome"]) == (0, "restored"), whole.out

    replaced = site.content()
    refused = site.call("undo", rows, "--yes", *site.password)
    unchanged = site.content()
    site.good("undo", whole.result["restore"], "--yes", *site.password)
    between = site.content()
    site.good("undo", rows, "--yes", *site.password)

    assert (refused.status, f"no restore '{rows}'" in refused.error["message"]) == (1, True)
    assert unchanged == replaced
    assert between == after
    assert site.content() == before


def test_killed_between_its_record_and_its_commit_nothing_is_there_and_nothing_to_undo(
    world: World, tmp_path: Path
) -> None:
    world.database.unlink()
    database = SqliteDatabase(tmp_path / "app.db")
    site = Site(world, database)
    database.run("DELETE FROM events WHERE id = 2")
    before = site.content()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")  # in rollback mode a commit waits for who reads
        reader.execute("SELECT count(*) FROM events").fetchall()
        process = world.start(
            *("restore", "latest", world.storage, *site.source, "--rows", "app.events:2", "--yes"),
            alone=False,
        )
        end = time.monotonic() + 60
        while not (records := list(site.restores.glob("rows-*.record"))):
            assert time.monotonic() < end
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    wait_until(database, None, busy=False)
    assert [record.stat().st_mode & 0o777 for record in records] == [0o600]

    assert site.call("undo", "--yes").status == 1
    (recovered,) = site.good("recover").result["restores"]

    assert recovered["outcome"] == "rolled_back"
    assert site.content() == before
    assert not records[0].exists()


def slow_down(database: Database) -> None:
    """Have every photo that is written take a while."""
    if isinstance(database, PostgresDatabase):
        database.run(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.4); RETURN NEW; END $$",
            "CREATE TRIGGER slow BEFORE INSERT ON photos FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        return
    numbers = "SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000000"
    count = f"WITH RECURSIVE c(x) AS ({numbers}) SELECT max(x) FROM c"
    database.run(f"CREATE TRIGGER slow AFTER INSERT ON photos BEGIN {count}; END")


def wait_until(database: Database, process: subprocess.Popen[str] | None, *, busy: bool) -> None:
    end = time.monotonic() + 60
    while is_busy(database) != busy:
        assert time.monotonic() < end
        assert process is None or process.poll() is None
        time.sleep(0.02)


def is_busy(database: Database) -> bool:
    if isinstance(database, PostgresDatabase):
        query = (
            "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation "
            "WHERE c.relname = 'photos' AND l.mode = 'ShareRowExclusiveLock'"
        )
        return database.rows(query) != [(0,)]
    assert isinstance(database, SqliteDatabase)
    with closing(sqlite3.connect(database.path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False
