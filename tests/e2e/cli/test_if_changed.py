"""`run --if-changed` makes a snapshot when something changed, and says why it did or did not."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.cli.command import Done, World


class Site:
    """An app with a database and folders, and a repository."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.environment |= {"BACKUP_ADMIN_KEY_FILE": str(world.key)}
        world.init()

    @property
    def sources(self) -> tuple[object, ...]:
        return ("--sqlite", f"app={self.world.database}", "--files", f"files={self.world.files}")

    def run(self, *more: object) -> Done:
        return self.world.run("run", self.world.storage, *self.sources, "--if-changed", *more, "--json")

    def reason(self, *more: object) -> str:
        """Return why a snapshot was made; fail when none was."""
        done = self.run(*more)
        assert (done.status, done.result["outcome"]) == (0, "completed"), done.out + done.err
        return str(done.result["reason"])

    def skipped(self, *more: object, status: int = 0) -> str:
        """Return why no snapshot was made; fail when one was."""
        done = self.run(*more)
        assert (done.status, done.result["outcome"]) == (status, "skipped"), done.out + done.err
        return str(done.result["reason"])

    def settled(self) -> None:
        """Make a snapshot that trusts all times."""
        time.sleep(2.2)
        done = self.world.run("run", self.world.storage, *self.sources)
        assert done.status == 0, done.err

    def snapshots(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.world.call("list").result["snapshots"]
        return found


@pytest.fixture
def site(world: World) -> Site:
    return Site(world)


def test_what_did_not_change_is_skipped_and_says_so(site: Site) -> None:
    assert site.reason() == "There is no snapshot yet."
    site.settled()
    (_, snapshot) = site.snapshots()

    done = site.run("--exit-skipped")

    assert (done.status, done.result["unchanged"]) == (10, snapshot["id"])
    assert f"Nothing changed since snapshot {snapshot['id']}" in done.result["reason"]
    assert len(site.snapshots()) == 2
    plain = site.world.run("run", site.world.storage, *site.sources, "--if-changed")
    assert (plain.status, plain.out.startswith("Skipped: Nothing changed")) == (0, True)


def test_a_change_of_a_row_is_the_reason(site: Site) -> None:
    site.settled()
    with closing(sqlite3.connect(site.world.database)) as connection:
        connection.execute("CREATE TABLE fresh (id)")
        connection.commit()
    assert site.reason() == "Database app: its schema or its version changed."


def rename(folder: Path) -> None:
    (folder / "a.txt").rename(folder / "b.txt")


def keep_the_time(folder: Path) -> None:
    before = (folder / "a.txt").stat()
    (folder / "a.txt").write_bytes(b"B" * before.st_size)
    os.utime(folder / "a.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


FILES = {
    "edited with its old time": keep_the_time,
    "renamed": rename,
    "made unreadable to others": lambda folder: (folder / "a.txt").chmod(0o600),
    "a new one": lambda folder: (folder / "new").write_bytes(b""),
    "gone": lambda folder: (folder / "a.txt").unlink(),
    "a link elsewhere": lambda folder: relink(folder / "link"),
    "a new folder": lambda folder: (folder / "inner").mkdir(),
    "rights of a folder": lambda folder: (folder / "sub").chmod(0o700),
}


def relink(link: Path) -> None:
    link.unlink()
    link.symlink_to("sub")


@pytest.mark.parametrize("change", FILES.values(), ids=FILES.keys())
def test_every_change_of_a_file_is_seen(site: Site, change: object) -> None:
    folder = site.world.files / "more"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"A" * 100)
    (folder / "a.txt").chmod(0o644)
    (folder / "sub").mkdir(mode=0o755)
    (folder / "link").symlink_to("a.txt")
    site.settled()
    site.skipped()
    assert callable(change)
    change(folder)

    assert site.reason().startswith("Folder files: ")


def test_a_file_that_came_and_went_is_no_change(site: Site) -> None:
    site.settled()
    (site.world.files / "passing").write_bytes(b"")
    (site.world.files / "passing").unlink()

    site.skipped()


def test_other_sources_are_a_change(site: Site, tmp_path: Path) -> None:
    site.settled()
    assert "other folders" in site.reason("--files", f"more={site.world.files}")


def test_a_table_that_is_ignored_is_no_reason(site: Site) -> None:
    with closing(sqlite3.connect(site.world.database)) as connection:
        connection.execute("CREATE TABLE sessions (id)")
        connection.commit()
    site.settled()
    with closing(sqlite3.connect(site.world.database)) as connection:
        connection.execute("INSERT INTO sessions VALUES (1)")
        connection.commit()

    site.skipped("--ignore-table", "app.sess*", "--exit-skipped", status=10)
    assert "sessions changed" in site.reason()


def test_options_that_would_do_nothing_are_refused(site: Site) -> None:
    for more in (["--exit-skipped"], ["--max-skip-hours", 24], ["--ignore-table", "app.item"]):
        done = site.world.run("run", site.world.storage, *site.sources, *more, "--json")
        assert (done.status, done.error["code"]) == (2, "usage"), more
        assert f"{more[0]} has no meaning without --if-changed" in done.error["message"]
    for pattern in ("nope.x", "item", "files.item"):
        done = site.run("--ignore-table", pattern)
        assert (done.status, done.error["code"]) == (2, "usage"), pattern
        assert "with the NAME of a database given here (app)" in done.error["message"]
    for pattern in ("*", "a*", "?pp.item", "*.cache_*"):
        assert site.run("--ignore-table", pattern).status == 0, pattern


def test_a_missing_pack_is_a_reason(site: Site) -> None:
    site.settled()
    pack = max(path for path in (site.world.storage / "packs").rglob("*") if path.is_file())
    pack.unlink()

    assert "missing or damaged" in site.run().result["reason"]


def test_after_a_restore_a_backup_is_made(site: Site) -> None:
    site.settled()
    site.skipped()
    done = site.world.run("restore", "latest", site.world.storage, "--in-place", *site.sources, "--yes")
    assert done.status == 0, done.out + done.err

    assert "restore" in site.reason()


def test_triggers_come_and_go_by_the_command(site: Site) -> None:
    which = ("--sqlite", f"app={site.world.database}", "--json")
    installed = site.world.run("changes", "install", *which).result
    assert installed == {"databases": [{"name": "app", "tables": [{"table": "item", "changes": 0}]}]}
    with closing(sqlite3.connect(site.world.database)) as connection:
        connection.execute("DELETE FROM item WHERE id = 1")
        connection.commit()
    shown = site.world.run("changes", "show", *which[:2])
    assert (shown.status, shown.out.split()) == (0, ["app:", "item", "1"])
    gone = site.world.run("changes", "uninstall", *which).result
    assert gone == {"databases": [{"name": "app", "tables": 1}]}
    assert site.world.run("changes", "show").status == 2
