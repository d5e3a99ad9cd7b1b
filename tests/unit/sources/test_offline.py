"""A database is replaced together with its sidecars, whenever the process dies."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import Busy, NeedsAttention, RestoreRefused, SourceMissing
from backup_admin.sources import offline
from backup_admin.sources.offline import place_offline, undo_place_offline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("app.db", "app.db-wal", "app.db-shm", "app.db-journal")
STEPS = ("rename_new", "sync_folder", "replace_file", "make_folders")


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "instance"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"old {name}")
    (folder / "app.db").chmod(0o640)
    return folder / "app.db"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    path = tmp_path / "scratch/copy.db"
    path.parent.mkdir()
    path.write_text("new")
    path.chmod(0o600)
    return path


def content(folder: Path) -> dict[str, str]:
    if not folder.exists():
        return {}
    return {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.name != "place.json"}


OLD = {name: f"old {name}" for name in sorted(NAMES)}


def test_the_old_files_go_aside_together_and_come_back(live: Path, copy: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    for _ in range(2):
        place_offline(copy, live, aside)

        assert content(live.parent) == {"app.db": "new"}
        assert live.stat().st_mode & 0o777 == 0o640
        assert content(aside) == OLD
        assert not copy.exists()
    (live.parent / "app.db-wal").write_text("of the new one")
    for _ in range(2):
        undo_place_offline(live, aside)

        assert content(live.parent) == OLD
        assert content(aside) == {"app.db.undone": "new", "app.db-wal.undone": "of the new one"}


def test_sidecars_of_the_new_database_stay_when_it_is_placed_again(
    live: Path, copy: Path, tmp_path: Path
) -> None:
    place_offline(copy, live, tmp_path / "aside")
    (live.parent / "app.db-wal").write_text("fresh")

    place_offline(copy, live, tmp_path / "aside")

    assert content(live.parent) == {"app.db": "new", "app.db-wal": "fresh"}


def test_a_missing_database_is_placed_and_missing_again(live: Path, copy: Path, tmp_path: Path) -> None:
    live.unlink()
    before = content(live.parent)

    place_offline(copy, live, tmp_path / "aside")
    assert content(live.parent) == {"app.db": "new"}

    undo_place_offline(live, tmp_path / "aside")
    assert content(live.parent) == before


@pytest.mark.parametrize(("start", "then"), [("place", "place"), ("place", "undo"), ("undo", "undo")])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_anywhere_the_next_call_finishes(tmp_path: Path, start: str, then: str, when: str) -> None:
    reached = 0
    for count in range(1, 60):
        folder = tmp_path / str(count)
        folder.mkdir()
        live, copy, aside = folder / "instance/app.db", folder / "copy.db", folder / "aside"
        live.parent.mkdir()
        for name in NAMES:
            (live.parent / name).write_text(f"old {name}")
        copy.write_text("new")
        acts: dict[str, Callable[[], None]] = {
            "place": lambda live=live, copy=copy, aside=aside: place_offline(copy, live, aside),  # type: ignore[misc]  # bound now
            "undo": lambda live=live, aside=aside: undo_place_offline(live, aside),  # type: ignore[misc]  # bound now
        }
        if start == "undo":
            acts["place"]()
        if not run_killed(acts[start], count, when):
            break
        reached = count
        present = {path.name for path in live.parent.iterdir()}
        if "app.db" in present and live.read_text() == "new":
            assert present == {"app.db"}  # never a new database beside an old sidecar
        acts[then]()
        if then == "place":
            assert content(live.parent) == {"app.db": "new"}
        else:
            assert content(live.parent) == OLD
    else:
        pytest.fail("the sweep did not end")
    assert reached >= 8


def run_killed(act: Callable[[], None], count: int, when: str) -> bool:
    child = os.fork()
    if child == 0:
        calls = [0]

        def deadly(real: Callable[..., object]) -> Callable[..., None]:
            def step(*arguments: object) -> None:
                calls[0] += 1
                if calls[0] == count and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*arguments)
                if calls[0] == count:
                    os.kill(os.getpid(), signal.SIGKILL)

            return step

        for name in STEPS:
            setattr(offline, name, deadly(getattr(offline, name)))
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_stale_wal_and_a_hot_journal_do_not_reach_the_new_database(tmp_path: Path) -> None:
    live, copy = tmp_path / "app.db", tmp_path / "copy.db"
    for path, word in ((live, "old"), (copy, "new")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE t(word)")
            connection.execute("INSERT INTO t VALUES (?)", (word,))
            connection.commit()
    leave_a_wal(live)
    assert (tmp_path / "app.db-wal").stat().st_size > 0

    place_offline(copy, live, tmp_path / "aside")

    with closing(sqlite3.connect(live)) as connection:
        assert connection.execute("SELECT word FROM t").fetchall() == [("new",)]


def leave_a_wal(path: Path) -> None:
    child = os.fork()
    if child == 0:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("UPDATE t SET word = 'wal'")
        connection.commit()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_database_somebody_has_open_is_not_moved(live: Path, copy: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        with (live.parent / name).open("rb"), pytest.raises(Busy, match=f"process {os.getpid()}"):
            place_offline(copy, live, tmp_path / "aside")

    assert content(live.parent) == OLD
    place_offline(copy, live, tmp_path / "aside")
    with live.open("rb"), pytest.raises(Busy):
        undo_place_offline(live, tmp_path / "aside")


def test_what_cannot_be_placed_is_refused_before_anything_moves(
    live: Path, copy: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceMissing):
        place_offline(tmp_path / "gone", live, tmp_path / "aside")
    (tmp_path / "link.db").symlink_to(live)
    with pytest.raises(RestoreRefused):
        place_offline(copy, tmp_path / "link.db", tmp_path / "aside")

    assert content(live.parent) == OLD
    assert copy.read_text() == "new"


def test_a_foreign_database_is_not_undone(live: Path, copy: Path, tmp_path: Path) -> None:
    place_offline(copy, live, tmp_path / "aside")
    (tmp_path / "foreign").write_text("foreign")
    (tmp_path / "foreign").replace(live)

    with pytest.raises(NeedsAttention):
        undo_place_offline(live, tmp_path / "aside")

    assert live.read_text() == "foreign"
    assert content(tmp_path / "aside") == OLD


def test_undoing_nothing_is_nothing(live: Path, tmp_path: Path) -> None:
    undo_place_offline(live, tmp_path / "aside")

    assert content(live.parent) == OLD


def test_a_copy_on_another_disk_is_taken_over(live: Path, tmp_path: Path) -> None:
    other = next((path for path in ("/dev/shm", "/run") if os.access(path, os.W_OK)), "")
    if not other or os.stat(other).st_dev == live.stat().st_dev:  # noqa: PTH116
        pytest.skip("no second file system to write to")
    copy = type(live)(other) / f"backup-admin-test-{os.getpid()}.db"
    copy.write_text("new")
    try:
        place_offline(copy, live, tmp_path / "aside")
    finally:
        copy.unlink()

    assert content(live.parent) == {"app.db": "new"}
