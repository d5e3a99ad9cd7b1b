"""Restore onto what is live, take it back, and survive being killed in between."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

from backup_admin.core.state import StateFolder
from examples.gallery.compare import describe_database, describe_tree, differences
from tests.e2e.cli.command import Done, World, change, make_database

if TYPE_CHECKING:
    from pathlib import Path

# Kills the process when the n-th line goes into the journal of the restore.
_KILLED = """
import os, signal, sys
from backup_admin.cli.main import run
from backup_admin.operations.journal import Journal
count = int(sys.argv[1])
write = Journal.write
def counted(self, *arguments, **data):
    global count
    count -= 1
    if count == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    write(self, *arguments, **data)
Journal.write = counted
sys.exit(run(sys.argv[2:]))
"""

# Works as if the lock of restores, which the test holds for it, were its own.
_UNLOCKED = """from contextlib import contextmanager
from backup_admin.core.state import StateFolder
StateFolder.lock = contextmanager(lambda self, name: (yield))
from backup_admin.cli.main import run"""


def in_place(world: World, *more: object) -> Done:
    return world.run(*arguments(world), *more)


def arguments(world: World, snapshot: str = "latest") -> list[object]:
    return [
        "restore",
        snapshot,
        world.storage,
        "--key-file",
        world.key,
        "--in-place",
        "--files",
        f"files={world.files}",
        "--sqlite",
        f"app={world.database}",
        "--json",
    ]


def spoil(world: World) -> None:
    (world.files / "readme.txt").write_text("spoilt")
    (world.files / "photos" / "one.jpg").unlink()
    (world.files / "intruder").write_text("new")
    change(world.database, "DELETE FROM item WHERE id % 2 = 0")


def state_of(world: World) -> tuple[object, object]:
    return describe_tree(world.files), describe_database(world.database)


def test_restore_brings_back_the_snapshot_and_undo_brings_back_the_rest(repository: World) -> None:
    before = state_of(repository)
    spoil(repository)
    spoilt = state_of(repository)

    done = in_place(repository, "--yes")

    assert (done.status, done.result["outcome"]) == (0, "restored"), done.out
    assert state_of(repository) == before
    undone = repository.run("undo", "--yes", "--json")
    assert (undone.status, undone.result["outcome"]) == (0, "undone"), undone.out
    assert state_of(repository) == spoilt


def test_safety_snapshot_holds_what_was_live(repository: World) -> None:
    spoil(repository)
    spoilt = state_of(repository)

    safety = in_place(repository, "--yes").result["safety_snapshot"]

    assert repository.restore(repository.root / "out", snapshot=safety).status == 0
    restored = (
        describe_tree(repository.root / "out/files/files"),
        describe_database(repository.root / "out/databases/app.sqlite"),
    )
    assert restored == spoilt


def test_without_a_terminal_consent_is_an_option(repository: World) -> None:
    spoil(repository)
    spoilt = state_of(repository)

    done = in_place(repository)

    assert (done.status, done.error["code"]) == (2, "usage")
    assert "--yes" in done.error["message"]
    assert state_of(repository) == spoilt
    assert repository.run("undo").status == 2


def test_dry_run_shows_the_plan_and_touches_nothing(repository: World) -> None:
    spoil(repository)
    spoilt = describe_tree(repository.root)

    done = in_place(repository, "--dry-run")

    (files,) = done.result["plan"]["files"]
    (database,) = done.result["plan"]["databases"]
    (table,) = database["tables"]
    assert done.status == 0
    assert (files["added"], files["changed"], files["removed"]) == (1, 1, 1)
    assert (table["rows_now"], table["rows_then"]) == (50, 100)
    left = {path: entry for path, entry in describe_tree(repository.root).items() if path[:5] != b"state"}
    stored = {path: entry for path, entry in spoilt.items() if path[:5] != b"state"}
    assert [line for line in differences(stored, left) if "app.db-" not in line] == []


def test_what_is_not_named_is_not_restored(repository: World) -> None:
    spoil(repository)
    files = describe_tree(repository.files)

    done = repository.run(
        "restore",
        "latest",
        repository.storage,
        "--key-file",
        repository.key,
        "--in-place",
        "--sqlite",
        f"app={repository.database}",
        "--yes",
        "--json",
    )

    assert done.status == 0
    assert done.result["plan"]["left_out"] == ["folder files"]
    assert differences(files, describe_tree(repository.files)) == []
    assert _count(repository.database) == 100


def test_names_that_the_snapshot_lacks_are_wrong_use(repository: World) -> None:
    done = repository.run(
        "restore",
        "latest",
        repository.storage,
        "--key-file",
        repository.key,
        "--in-place",
        "--files",
        f"other={repository.files}",
        "--yes",
        "--json",
    )

    assert (done.status, done.error["code"]) == (2, "usage")


def test_modes_are_not_mixed(repository: World) -> None:
    base = ["restore", "latest", repository.storage, "--key-file", repository.key]

    for more in (
        [],
        ["--in-place"],
        ["--in-place", "--to", "out"],
        ["--in-place", "--sqlite", "app=app.db", "--only", "x", "--yes"],
        ["--to", "out", "--yes"],
        ["--to", "out", "--sqlite", "app=app.db"],
    ):
        assert repository.run(*base, *more).status == 2, more
    assert not (repository.root / "out").exists()


def test_database_inside_a_restored_folder_stays_where_it_is(world: World) -> None:
    inside = world.files / "data" / "app.db"
    inside.parent.mkdir()
    make_database(inside)
    world.database.unlink()
    world.init()
    made = world.run(
        "run",
        world.storage,
        "--key-file",
        world.key,
        "--files",
        f"files={world.files}",
        "--sqlite",
        f"app={inside}",
        "--exclude",
        "cache/",
    )
    assert made.status == 0, made.err
    change(inside, "DELETE FROM item WHERE id < 10")
    (world.files / "readme.txt").write_text("spoilt")
    (world.files / "photos" / "cache").mkdir()
    (world.files / "photos" / "cache" / "warm").write_text("kept")

    done = world.run(
        "restore",
        "latest",
        world.storage,
        "--key-file",
        world.key,
        "--in-place",
        "--files",
        f"files={world.files}",
        "--yes",
        "--json",
    )

    assert done.status == 0, done.out
    assert (world.files / "readme.txt").read_text() == "hello\n"
    assert _count(inside) == 90
    assert (world.files / "photos" / "cache" / "warm").read_text() == "kept"


def test_database_inside_a_restored_folder_comes_back_with_it(world: World) -> None:
    inside = world.files / "data" / "deeper" / "app.db"
    inside.parent.mkdir(parents=True)
    world.database.rename(inside)
    world.database = inside
    world.init()
    assert world.back_up().status == 0
    rows, tree = describe_database(inside), describe_tree(world.files / "photos")
    change(inside, "DELETE FROM item WHERE id < 10")
    (world.files / "photos" / "one.jpg").unlink()
    open_elsewhere = sqlite3.connect(inside)
    assert _count(inside) == 90

    done = in_place(world, "--yes")

    assert done.status == 0, done.out
    assert describe_database(inside) == rows
    assert describe_tree(world.files / "photos") == tree
    assert open_elsewhere.execute("SELECT count(*) FROM item").fetchone() == (100,)
    open_elsewhere.close()
    assert world.run("undo", "--yes").status == 0
    assert _count(inside) == 90


def test_lost_database_and_folder_come_back(repository: World) -> None:
    before = state_of(repository)
    for path in repository.root.glob("app.db*"):
        path.unlink()
    repository.files.rename(repository.root / "gone")

    done = in_place(repository, "--yes")

    assert done.status == 0, done.out
    assert state_of(repository) == before


def test_what_was_not_there_is_made_and_taken_away_again_and_said_so(repository: World) -> None:
    folder, database = repository.root / "new folder", repository.root / "new.db"
    given = ["--key-file", repository.key, "--in-place", "--files", f"files={folder}", "--yes"]
    given += ["--sqlite", f"app={database}"]

    done = repository.run("restore", "latest", repository.storage, *given)
    assert folder.is_dir()
    assert database.exists()
    undone = repository.run("undo", "--yes")

    assert (done.status, undone.status) == (0, 0), done.err + undone.err
    for place in (folder, database):
        assert f"{place} is not there now: it is made, and an undo takes it away again." in done.err
    assert "could not be kept" not in done.out + done.err
    assert (
        f"What it made is taken away, because nothing was there before:\n  {folder}\n  {database}\n"
    ) in undone.err
    assert "live before it comes back" not in undone.err
    assert (
        "Taken away, because it was not there before the restore: folder files, database app." in undone.out
    )
    assert "Put back" not in undone.out
    assert not folder.exists()
    assert not database.exists()


def test_restore_onto_the_storage_is_refused(repository: World) -> None:
    before = describe_tree(repository.storage)

    done = repository.run(
        "restore",
        "latest",
        repository.storage,
        "--key-file",
        repository.key,
        "--in-place",
        "--files",
        f"files={repository.storage / 'packs'}",
        "--yes",
    )

    assert done.status in (1, 2)
    assert differences(before, describe_tree(repository.storage)) == []


def test_damaged_snapshot_leaves_what_is_live_alone(repository: World) -> None:
    spoil(repository)
    spoilt = state_of(repository)
    for pack in (repository.storage / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[40::200] = bytes(byte ^ 1 for byte in data[40::200])
            pack.write_bytes(data)

    done = in_place(repository, "--yes")

    assert done.status in (1, 4), done.out
    assert state_of(repository) == spoilt
    assert not (repository.state / "maintenance").exists()


def test_killed_restore_is_finished_or_undone_by_recover(repository: World) -> None:
    spoil(repository)
    (first,) = [one["id"] for one in repository.call("list").result["snapshots"]]
    states: set[str] = set()
    before_restore = state_of(repository)
    for count in range(1, 40):
        process = subprocess.run(
            [sys.executable, "-c", _KILLED, str(count), *map(str, arguments(repository, first)), "--yes"],
            env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(repository.state)},
            capture_output=True,
            check=False,
        )
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        done = repository.run("recover", "--json")
        assert done.status == 0, (count, done.out)
        outcomes = {one["outcome"] for one in done.result["restores"]}
        assert not (repository.state / "maintenance").exists(), count
        if outcomes == {"restored"}:
            assert repository.run("undo", "--yes").status == 0, count
        assert state_of(repository) == before_restore, (count, outcomes)
        states |= outcomes
    assert count > 8
    assert {"rolled_back", "restored"} <= states


def test_undo_takes_no_older_restore_for_one_that_failed(repository: World) -> None:
    restored = in_place(repository, "--yes").result["restore"]
    change(repository.database, "INSERT INTO item (name) VALUES ('written since')")
    since = state_of(repository)
    failed = in_place(repository, "--yes", "--sqlite", f"other={repository.database}")
    assert failed.status == 2, failed.out

    done = repository.run("undo", "--yes", "--json")

    assert (done.status, done.error["code"]) == (1, "restore_refused")
    assert "The newest restore, of " in done.error["message"]
    assert f"the one before is {restored} of " in done.error["message"]
    assert str(repository.database) in done.error["message"]
    assert state_of(repository) == since
    named = repository.run("undo", restored, "--yes", "--json")
    assert (named.status, named.result["outcome"]) == (0, "undone")
    assert f"Undo of restore {restored} of " in named.err
    assert str(repository.database) in named.err


def test_undo_takes_no_older_restore_for_one_that_was_put_back(repository: World) -> None:
    restored = in_place(repository, "--yes").result["restore"]
    newer = restore_that_stops(repository)
    (recovered,) = repository.run("recover", "--json").result["restores"]
    since = state_of(repository)

    done = repository.run("undo", "--yes", "--json")

    assert recovered["outcome"] == "rolled_back"
    assert (done.status, done.error["code"]) == (1, "restore_refused")
    assert newer != restored
    assert f"The newest restore, {newer} of " in done.error["message"]
    assert f"the one before is {restored} of " in done.error["message"]
    assert state_of(repository) == since


def test_a_dry_run_and_a_refused_consent_attempt_nothing(repository: World) -> None:
    before = state_of(repository)
    in_place(repository, "--yes")
    in_place(repository, "--dry-run", "--sqlite", f"other={repository.database}")
    in_place(repository)

    assert repository.run("undo", "--yes").status == 0
    assert state_of(repository) == before


def test_a_second_restore_at_once_is_told_that_one_is_at_work(repository: World) -> None:
    with StateFolder(repository.state).lock("restore"):
        restore_that_stops(repository, locked=True)
        before = state_of(repository)

        for more in ((), ("--dry-run",)):
            done = in_place(repository, "--yes", *more)
            said = done.out
            assert done.status == (1 if more else 5), done.out
            assert "Another restore is under way here" in said
            assert "recover" not in said
            assert said.count("Nothing was touched.") <= 1
        assert repository.run("undo", "--yes").status == 5
    assert state_of(repository) == before


def restore_that_stops(world: World, *, locked: bool = False) -> str:
    """Leave the journal of a restore that is killed before it changes anything; return its id."""
    before = set((world.state / "restores").glob("*.journal"))
    program = _KILLED.replace("from backup_admin.cli.main import run", _UNLOCKED) if locked else _KILLED
    subprocess.run(
        [sys.executable, "-c", program, "3", *map(str, arguments(world)), "--yes"],
        env={**os.environ, "BACKUP_ADMIN_STATE_DIR": str(world.state)},
        capture_output=True,
        check=False,
    )
    (made,) = set((world.state / "restores").glob("*.journal")) - before
    return made.stem.removeprefix("restore-")


def test_undo_with_nothing_to_undo_says_so(repository: World) -> None:
    done = repository.run("undo", "--yes", "--json")

    assert (done.status, done.error["code"]) == (1, "restore_refused")


def test_recover_with_nothing_to_do_is_fine(world: World) -> None:
    done = world.run("recover", "--json")

    assert (done.status, done.result) == (0, {"restores": [], "removed": []})


def _count(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM item").fetchone()
    connection.close()
    return int(count)
