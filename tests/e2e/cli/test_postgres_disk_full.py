"""Restores and loads of a PostgreSQL database whose server has no room left on its disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.e2e.cli.test_postgres_in_place import InPlace
from tests.e2e.cli.test_postgres_in_place_hard import WAYS, going
from tests.proof.mounts import mounted, skip_unless_mounts_work
from tests.services.postgres import OWNER, hand_over
from tests.services.postgres_oracle import dump_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.cli.command import World
    from tests.services.postgres import PostgresServer

pytestmark = pytest.mark.integration


@pytest.fixture
def small(tmp_path: Path, newest_postgres: PostgresServer) -> Iterator[str]:
    """A tablespace on a disk with room for one large table, not for two."""
    skip_unless_mounts_work(tmp_path / "probe", "tmpfs")
    folder = Path(tempfile.mkdtemp(prefix="bk-small-"))
    folder.chmod(0o711)
    name = folder.name.replace("-", "_")
    try:
        with mounted(folder / "disk", "-t", "tmpfs", "-o", "size=48m", "tmpfs") as disk:
            hand_over(disk)
            newest_postgres.run(f"CREATE TABLESPACE {name} OWNER {OWNER} LOCATION '{disk}'")
            try:
                yield name
            finally:
                with psycopg.connect(newest_postgres.by_socket("postgres"), autocommit=True) as connection:
                    on_it = connection.execute(
                        "SELECT datname FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace "
                        "WHERE t.spcname = %s",
                        (name,),
                    )
                    for (database,) in on_it.fetchall():
                        newest_postgres.run(f"DROP DATABASE {database} WITH (FORCE)")
                newest_postgres.run(f"DROP TABLESPACE {name}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def site(world: World, newest_postgres: PostgresServer, small: str) -> InPlace:
    made = InPlace(world, newest_postgres)
    made.server.run(f"ALTER DATABASE {made.name} SET TABLESPACE {small}")
    made.server.run(
        "CREATE TABLE large AS "
        "SELECT n AS id, repeat(md5(n::text), 8) AS text FROM generate_series(1, 70000) n",
        made.name,
        user=OWNER,
    )
    return made


@WAYS
def test_a_restore_for_which_there_is_no_room_leaves_all_as_it_was(site: InPlace, way: str) -> None:
    site.back_up()
    site.harm()
    harmed = dump_text(site.server, site.name)

    with going(site, way):
        done = site.restore()

    assert done.status != 0
    assert done.result["outcome"] == "rolled_back", done.out
    assert "No space left on device" in done.result["message"]
    assert "Nothing live was changed" in done.result["message"]
    assert "room on the disk of the server" in done.result["message"]
    assert dump_text(site.server, site.name) == harmed
    assert site.databases() == {site.name}
    assert list((site.world.state / "restores").glob("*/*")) == []
    assert not list(site.world.state.glob("maintenance*"))


def test_a_load_for_which_there_is_no_room_says_what_is_there(site: InPlace, small: str) -> None:
    site.back_up()
    target = site.world.root / "out"
    site.good("restore", "latest", site.world.storage, "--to", target)
    before = dump_text(site.server, site.name)
    empty = site.server.new_database()
    site.server.run(f"ALTER DATABASE {empty} SET TABLESPACE {small}")

    done = site.call("load", target / "databases/app", "--postgres", site.address(empty))

    assert done.status == 1
    assert "No space left on device" in done.error["message"]
    assert "room on the disk of the server" in done.error["message"]
    assert f"What was loaded so far is in {site.address(empty)}: drop that database" in done.error["message"]
    assert dump_text(site.server, site.name) == before
