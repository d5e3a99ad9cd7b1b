"""Whatever became of the live database: a restore in place brings back the snapshot, and undo the rest."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.e2e.cli.command import Done, World
from tests.e2e.sqlite.fates import FATES, Fate
from tests.e2e.sqlite.kinds import connect, make
from tests.e2e.sqlite.portrait import is_wal, portray

if TYPE_CHECKING:
    import sqlite3

    from tests.services.sqlite_tools import SqliteTools

EACH = pytest.mark.parametrize("name", FATES)
USABLE = pytest.mark.parametrize("name", [name for name, fate in FATES.items() if fate.usable])
OPEN = pytest.mark.parametrize("name", [name for name, fate in FATES.items() if fate.stays_open])
# In WAL mode nobody can change the size of the pages under those who read: the rows come back, not the pages.
REBUILT = {"smaller-pages-in-wal-mode", "larger-pages-in-wal-mode", "other-pages-and-a-full-text-index"}
NAMES = {"app.db", "app.db-journal", "app.db-wal"}
BUILD = ("page size", "pages", "free pages", "schema format", "reserved")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one database: when it was backed up, before and after the restore, after undo."""

    good: dict[str, object]
    fallen: dict[str, object] | None
    modes: tuple[bool, bool]
    owners: tuple[tuple[int, ...], tuple[int, ...]]
    restored: dict[str, object]
    by_the_app: dict[str, object] | None
    undone: dict[str, object] | None


@dataclass(frozen=True, slots=True)
class Story:
    """What became of all of them, and what the commands said."""

    restored: Done
    undone: Done
    seen: dict[str, Seen]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, sqlite_tools: SqliteTools) -> Story:
    """Back all of them up, let their fates happen, restore in place, and undo."""
    root = tmp_path_factory.mktemp("fates")
    world = World(root, root / "state")
    world.init()
    places = {name: make(fate.kind, root / "apps" / name / "app.db") for name, fate in FATES.items()}

    def see(name: str) -> dict[str, object]:
        return portray(sqlite_tools, places[name], knows=FATES[name].kind.knows)

    good = {name: see(name) for name in FATES}
    sources = [part for name, path in places.items() for part in ("--sqlite", f"{name}={path}")]
    made = world.run("run", world.storage, "--key-file", world.key, *sources)
    assert made.status == 0, made.err
    for name, fate in FATES.items():
        fate.happens(places[name])
    fallen = {name: _see_aside(fate, places[name], sqlite_tools) for name, fate in FATES.items()}
    before = {name: _looks(places[name]) for name in FATES}
    with ExitStack() as stack:  # nothing else may open the files in this process while the app does
        app = _open_all(places, stack)
        done = world.run(
            "restore",
            "latest",
            world.storage,
            "--key-file",
            world.key,
            "--in-place",
            *sources,
            "--yes",
            "--json",
        )
        assert (done.status, done.result["outcome"]) == (0, "restored"), done.out
        by_the_app = {name: _read_and_write(app[name]) if name in app else None for name in FATES}
    after = {name: _looks(places[name]) for name in FATES}
    restored = {name: see(name) for name in FATES}
    undone = world.run("undo", "--yes", "--json")
    seen = {
        name: Seen(
            good[name],
            fallen[name],
            (before[name][0], after[name][0]),
            (before[name][1], after[name][1]),
            restored[name],
            by_the_app[name],
            _see_aside(fate, places[name], sqlite_tools),
        )
        for name, fate in FATES.items()
    }
    return Story(done, undone, seen)


def _see_aside(fate: Fate, path: Path, tools: SqliteTools) -> dict[str, object] | None:
    """Portray a copy of what lies there with its journals, which stay as they are."""
    if not fate.usable:
        return None
    with TemporaryDirectory() as folder:
        shutil.copytree(path.parent, folder, dirs_exist_ok=True, ignore=lambda _, names: set(names) - NAMES)
        found = portray(tools, Path(folder, path.name), knows=fate.kind.knows)
    return _without(found, BUILD)


def _open_all(places: dict[str, Path], stack: ExitStack) -> dict[str, sqlite3.Connection]:
    """Open, as the app does, every database that it has open meanwhile, and read from it."""
    found = {}
    for name, fate in FATES.items():
        if fate.stays_open:
            connection = stack.enter_context(closing(connect(places[name], knows=fate.kind.knows)))
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            found[name] = connection
    return found


def _read_and_write(connection: sqlite3.Connection) -> dict[str, object]:
    """Let the app go on with the connection it had, and leave the database as it was."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND sql NOT LIKE '%VIRTUAL%' "
        "AND name NOT LIKE '%\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    counts: dict[str, object] = {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables
    }
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f'DELETE FROM "{tables[0][0]}"')
    connection.execute("CREATE TABLE by_the_app(a)")
    connection.execute("ROLLBACK")
    return {**counts, "integrity": connection.execute("PRAGMA integrity_check").fetchone()[0]}


def _looks(path: Path) -> tuple[bool, tuple[int, ...]]:
    """Return whether it is in WAL mode, and its owner and mode."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False, ()
    return is_wal(path), (found.st_uid, found.st_gid, found.st_mode & 0o777)


def test_the_commands_say_that_it_went_well(story: Story) -> None:
    assert story.restored.result["outcome"] == "restored"
    assert (story.undone.status, story.undone.result["outcome"]) == (0, "undone"), story.undone.out


@EACH
def test_a_restore_brings_back_the_snapshot(story: Story, name: str) -> None:
    seen = story.seen[name]
    left_out = (*BUILD, "dump") if name in REBUILT else ()  # a dump is in the order of the schema

    assert _without(seen.restored, left_out) == _without(seen.good, left_out)
    assert seen.fallen is None or seen.fallen != _without(seen.good, BUILD) or name == "of-another-owner"


@USABLE
def test_the_live_file_keeps_its_journal_mode_its_owner_and_its_mode(story: Story, name: str) -> None:
    seen = story.seen[name]

    assert seen.modes[0] == seen.modes[1]
    assert seen.owners[0] == seen.owners[1]


@OPEN
def test_the_connections_of_the_app_go_on_with_what_was_restored(story: Story, name: str) -> None:
    seen = story.seen[name].by_the_app

    assert seen is not None
    assert seen["integrity"] == "ok"
    assert "intruder" not in seen


@USABLE
def test_undo_brings_back_what_was_live(story: Story, name: str) -> None:
    assert story.seen[name].undone == story.seen[name].fallen


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_database_that_was_gone_belongs_to_whom_its_folder_belongs(story: Story) -> None:
    assert story.seen["gone"].owners[1] == (0, 0, 0o600)


def _without(portrait: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    return {key: value for key, value in portrait.items() if key not in names}
