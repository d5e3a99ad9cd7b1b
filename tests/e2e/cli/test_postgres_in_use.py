"""Live PostgreSQL databases that are restored while others are at work in them."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.test_postgres import wait_until
from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going, place_of, rows
from tests.e2e.cli.test_postgres_put_back import meddle, run_code
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration
_IMPATIENT = """
from backup_admin.sources.postgres import replacing
replacing._LOCK_WAIT = "2s"
from backup_admin.cli.main import main
main()
"""


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


@contextmanager
def at_work(count: int, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let programs work at once; what they meet is their own affair."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            with suppress(psycopg.Error):
                work(stop)

    programs = [threading.Thread(target=repeat) for _ in range(count)]
    for program in programs:
        program.start()
    try:
        yield
    finally:
        stop.set()
        for program in programs:
            program.join()


@WAYS
def test_pools_that_reconnect_at_once_and_read_all_the_time_do_not_stop_a_restore(
    newest: InPlace, way: str
) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()

    def read(stop: threading.Event) -> None:
        with psycopg.connect(newest.server.address(newest.name)) as connection:
            for _ in range(5):
                connection.execute("SELECT count(*) FROM photos, events")
                connection.commit()
                stop.wait(0.005)

    with going(newest, way), at_work(4, read):
        done = newest.restore()

    assert done.status == 0, done.out + done.err
    assert done.result["plan"]["databases"][0]["way"] == way
    assert dump_text(newest.server, newest.name) == before


def test_a_session_that_idles_in_its_transaction_is_ended_by_an_exchange(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()

    with psycopg.connect(newest.server.address(newest.name)) as idle:
        idle.execute("INSERT INTO photos (event_id, path) SELECT 1, 'x' WHERE false")
        idle.execute("SELECT pg_advisory_lock(7)")
        done = newest.restore()
        with pytest.raises(psycopg.OperationalError, match="terminat"):
            idle.execute("SELECT 1")

    assert done.status == 0, done.out + done.err
    assert dump_text(newest.server, newest.name) == before


def test_a_session_that_idles_in_its_transaction_is_named_where_all_is_replaced(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)
    place = newest.server.address(newest.name)

    arguments = ("restore", "latest", newest.world.storage, "--in-place", "--yes", *place_of(newest))

    with going(newest, "in_place"), psycopg.connect(place, application_name="nightly report") as idle:
        idle.execute("SELECT count(*) FROM photos")
        process = idle.info.backend_pid
        report = run_code(newest, _IMPATIENT, *arguments)["result"]

    assert report["outcome"] == "rolled_back"
    assert f"do not let go: {OWNER} (nightly report, process {process} " in report["message"]
    assert "It is as it was" in report["message"]
    assert "restore again" in report["message"]
    assert dump_text(newest.server, newest.name) == harmed
    assert not list(newest.world.state.glob("maintenance*"))


def test_a_session_that_holds_an_advisory_lock_is_let_alone_where_all_is_replaced(newest: InPlace) -> None:
    before = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()

    with psycopg.connect(newest.server.address(newest.name), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(7)")
        with going(newest, "in_place"):
            done = newest.restore()
        assert other.execute("SELECT pg_advisory_unlock(7)").fetchone() == (True,)

    assert done.status == 0, done.out + done.err
    assert dump_text(newest.server, newest.name) == before


@pytest.mark.parametrize("way", ["rename", pytest.param("in_place", marks=pytest.mark.long(minutes=1))])
def test_an_autovacuum_that_is_at_work_gives_way(newest: InPlace, way: str) -> None:
    server, name = newest.server, newest.name
    server.run(
        "CREATE TABLE large AS SELECT n AS id, md5(n::text) AS text FROM generate_series(1, 100000) n",
        name,
        user=OWNER,
    )
    before = dump_text(server, name)
    newest.back_up()
    server.run("ALTER SYSTEM SET autovacuum_naptime = '1s';\nSELECT pg_reload_conf()")
    try:
        server.run(
            "ALTER TABLE large SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, "
            "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);\n"
            "UPDATE large SET text = 'x'",
            name,
            user=OWNER,
        )
        working = f"SELECT 1 FROM pg_stat_progress_vacuum WHERE datname = '{name}'"
        wait_until(lambda: bool(rows(newest, "postgres", working)), seconds=60)
        with going(newest, way):
            done = newest.restore()
    finally:
        server.run("ALTER SYSTEM RESET autovacuum_naptime;\nSELECT pg_reload_conf()")

    assert done.status == 0, done.out + done.err
    assert dump_text(server, name) == before


@pytest.mark.long(minutes=2)
@WAYS
def test_tables_that_come_and_go_meanwhile_leave_the_old_or_the_new(newest: InPlace, way: str) -> None:
    new = dump_text(newest.server, newest.name)
    newest.back_up()
    newest.harm()
    old = dump_text(newest.server, newest.name)

    def change(stop: threading.Event) -> None:
        with psycopg.connect(newest.server.address(newest.name), autocommit=True) as connection:
            while not stop.wait(0.005):
                connection.execute("CREATE TABLE IF NOT EXISTS comes (id int PRIMARY KEY)")
                connection.execute("DROP TABLE IF EXISTS comes")

    outcomes = []
    for _ in range(3):
        with going(newest, way), at_work(1, change):
            done = newest.restore()
        newest.server.run("DROP TABLE IF EXISTS comes", newest.name)
        outcomes.append(done.result["outcome"])
        found = dump_text(newest.server, newest.name)
        assert found == (new if "restored" in outcomes else old), done.out
        if done.status != 0:
            assert "Nothing live was changed" in done.result["message"]
    with going(newest, way):
        quiet = newest.restore()
    # While all is replaced in one transaction somebody may always be in between; but not once they are gone.
    assert "restored" in outcomes or way == "in_place"
    assert quiet.result["outcome"] in ("restored", "nothing_to_do")
    assert dump_text(newest.server, newest.name) == new


def test_a_live_database_that_others_drop_meanwhile_is_not_taken_for_exchanged(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    moved = f"{newest.name}_moved"
    harmed = dump_text(newest.server, newest.name)
    rename = f"ALTER DATABASE {newest.name} RENAME TO {moved}"

    report = meddle(newest, {"swapping": ("postgres", rename)})["result"]

    assert report["outcome"] == "rolled_back"
    assert "dropped or renamed by others meanwhile" in report["message"]
    assert newest.databases() == {moved}
    assert dump_text(newest.server, moved) == harmed


def test_a_new_database_that_others_drop_while_it_is_filled_ends_the_restore(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)

    def drop(stop: threading.Event) -> None:
        for name in newest.databases():
            if "__restore_" in name:
                newest.server.run(f"DROP DATABASE {name} WITH (FORCE)")
        stop.wait(0.05)

    with at_work(1, drop):
        done = newest.restore()

    assert done.status != 0
    assert done.result["outcome"] == "rolled_back"
    assert "Nothing live was changed" in done.result["message"]
    assert dump_text(newest.server, newest.name) == harmed
    assert newest.databases() == {newest.name}
