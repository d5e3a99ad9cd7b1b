"""What is kept of a PostgreSQL database when a restore of it is taken back, and for how long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.clock import parse_time
from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going, place_of, rows
from tests.services.postgres import OWNER
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration
# Another program that gets in at a moment a test names.
_MEDDLING = """
import json, os, psycopg
from backup_admin.operations.journal import Journal

def write(self, step, **data):
    written(self, step, **data)
    if step.value in deeds:
        place, statements = deeds[step.value]
        with psycopg.connect(place, autocommit=True) as connection:
            for statement in statements.split(";\\n"):
                connection.execute(statement)

deeds = json.loads(os.environ["DEEDS"])
written, Journal.write = Journal.write, write
from backup_admin.cli.main import main
main()
"""
_LATER = """
import os
from datetime import timedelta
from backup_admin.core.clock import SystemClock

real, SystemClock.now = SystemClock.now, lambda self: real(self) + timedelta(hours=float(os.environ["HOURS"]))
from backup_admin.cli.main import main
main()
"""


@pytest.fixture
def newest(world: World, newest_postgres: PostgresServer) -> InPlace:
    return InPlace(world, newest_postgres)


def run_code(site: InPlace, code: str, *arguments: object, **more: str) -> dict[str, Any]:
    """Run an altered command; return its one document."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), "--json"],
        env=os.environ | site.world.environment | {"BACKUP_ADMIN_STATE_DIR": str(site.world.state)} | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def meddle(site: InPlace, deeds: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Restore, while another program runs statements in a database at the steps named."""
    told = {step: (site.server.by_socket(name), text) for step, (name, text) in deeds.items()}
    arguments = ("restore", "latest", site.world.storage, "--in-place", "--yes", *place_of(site))
    return run_code(site, _MEDDLING, *arguments, DEEDS=json.dumps(told))


def kept_in(site: InPlace, way: str, message: str) -> list[tuple[object, ...]]:
    """Return the orders in what a message says is kept."""
    place = message.partition("What was live until then is kept as ")[2].partition(" until ")[0]
    assert place, message
    if way == "rename":
        assert place in site.databases()
        site.server.run(f"ALTER DATABASE {place} ALLOW_CONNECTIONS true")
        found = rows(site, place, "SELECT * FROM orders")
        site.server.run(f"ALTER DATABASE {place} ALLOW_CONNECTIONS false")
        return found
    assert Path(place).is_dir()
    name = site.server.new_database()
    site.good("load", place, "--postgres", site.address(name))
    return rows(site, name, "SELECT * FROM orders")


def recover_later(site: InPlace, hours: float) -> dict[str, Any]:
    result: dict[str, Any] = run_code(site, _LATER, "recover", HOURS=str(hours))["result"]
    return result


@WAYS
def test_what_programs_wrote_before_a_restore_was_taken_back_is_kept_as_long_as_an_undo(
    newest: InPlace, way: str
) -> None:
    newest.server.run("CREATE TABLE orders (id int)", newest.name, user=OWNER)
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)

    with going(newest, way):
        deed = (newest.name, "INSERT INTO orders VALUES (7);\nDROP TABLE logs")
        report = meddle(newest, {"all_swapped": deed})["result"]

        assert report["outcome"] == "rolled_back"
        assert "checks failed" in report["message"]
        assert dump_text(newest.server, newest.name) == harmed
        assert kept_in(newest, way, report["message"]) == [(7,)]
        assert recover_later(newest, hours=23.5)["removed"] == []
        assert kept_in(newest, way, report["message"]) == [(7,)]
        assert len(recover_later(newest, hours=24.5)["removed"]) == 1

    assert newest.databases() == {newest.name}
    assert list((newest.world.state / "restores").glob("*/*")) == []
    assert recover_later(newest, hours=50)["removed"] == []
    assert dump_text(newest.server, newest.name) == harmed


def test_the_database_that_was_live_is_not_dropped_where_it_stands_aside(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    harmed = dump_text(newest.server, newest.name)
    name = newest.name
    rename = (
        "DO $$ BEGIN "
        f"EXECUTE format('ALTER DATABASE %I RENAME TO %I', '{name}', replace(datname, 'undone', 'old')) "
        f"FROM pg_database WHERE starts_with(datname, '{name}__undone_'); END $$;\nCREATE DATABASE {name}"
    )
    drop = "DROP TABLE logs;\nALTER TABLE photos RENAME TO pictures"

    report = meddle(newest, {"all_swapped": (newest.name, drop), "put_back": ("postgres", rename)})["result"]

    assert report["outcome"] == "needs_attention"
    (old,) = (name for name in newest.databases() if "__old_" in name)
    assert f"{old} holds what was live" in report["message"]
    assert dump_text(newest.server, old) == harmed


def test_an_undo_says_where_what_was_live_is_kept_and_until_when(newest: InPlace) -> None:
    newest.back_up()
    newest.harm()
    until = parse_time(str(newest.restore().result["undo_until"]))

    message = newest.good("undo", "--yes").result["message"]

    (kept,) = (name for name in newest.databases() if "__undone_" in name)
    assert f"What was live until now is kept as {kept} until {until:%Y-%m-%d %H:%M} UTC; then " in message
    assert "`backup-admin recover`, or an app's worker, removes it" in message
