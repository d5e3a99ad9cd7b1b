"""Tables and rows go back into a live database through the command alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.services.postgres import PASSWORD
from tests.services.small_gallery import Database, PostgresDatabase, SqliteDatabase, fill

if TYPE_CHECKING:
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
