"""Trees change places whole, also after a kill at any point, also back again."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import NeedsAttention, RestoreRefused
from backup_admin.sources import exchange
from backup_admin.sources.exchange import SwapPair, carry, plan_swaps, swap, unswap

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS = ("exchange", "rename_new", "sync_folder", "make_folders")


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "file").write_text("old")
    (folder / "only-old").write_text("old")
    return folder


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    folder = tmp_path / ".backup-admin-stage/tree"
    folder.mkdir(parents=True)
    (folder / "file").write_text("new")
    (folder / "only-new").write_text("new")
    return folder


@pytest.fixture(params=["exchange", "three renames"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with and without RENAME_EXCHANGE."""
    if request.param != "exchange":

        def cannot(first: Path, second: Path) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(first))

        monkeypatch.setattr(exchange, "exchange", cannot)
    return str(request.param)


def content(folder: Path) -> dict[str, str]:
    if not folder.exists():
        return {}
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


OLD = {"file": "old", "only-old": "old"}
NEW = {"file": "new", "only-new": "new"}


def swap_all(pairs: tuple[SwapPair, ...]) -> None:
    for pair in pairs:
        swap(pair)


def unswap_all(pairs: tuple[SwapPair, ...]) -> None:
    for pair in reversed(pairs):
        unswap(pair)


# --- plans -----------------------------------------------------------------


def test_without_pins_the_roots_change_places(live: Path, staged: Path, tmp_path: Path) -> None:
    assert plan_swaps(live, staged, ()) == (SwapPair(live, staged, live.stat().st_ino, staged.stat().st_ino),)
    assert plan_swaps(live, staged, (tmp_path / "elsewhere.db",)) == plan_swaps(live, staged, ())


def test_a_live_root_that_is_gone_is_planned_as_absent(staged: Path, tmp_path: Path) -> None:
    (pair,) = plan_swaps(tmp_path / "gone", staged, ())

    assert (pair.live_inode, pair.staged_inode) == (0, staged.stat().st_ino)


def test_with_a_pin_below_only_its_neighbours_move(live: Path, staged: Path) -> None:
    for path in ("data/app.db", "data/app.db-wal", "data/deep/file", "state/x"):
        (live / path).parent.mkdir(parents=True, exist_ok=True)
        (live / path).write_text("old")
    for path in ("data/deep/file", "data/fresh", "data/app.db"):
        (staged / path).parent.mkdir(parents=True, exist_ok=True)
        (staged / path).write_text("new")

    pairs = plan_swaps(live, staged, (live / "data/app.db", live / "state"))

    names = ["data/deep", "data/fresh", "file", "only-new", "only-old"]
    assert [str(pair.live.relative_to(live)) for pair in pairs] == names
    assert [str(pair.staged.relative_to(staged)) for pair in pairs] == names
    before, database = content(live), (live / "data/app.db").stat().st_ino
    swap_all(pairs)
    assert content(live) == {
        **NEW,
        "data/app.db": "old",
        "data/app.db-wal": "old",
        "data/deep/file": "new",
        "data/fresh": "new",
        "state/x": "old",
    }
    assert (live / "data/app.db").stat().st_ino == database
    unswap_all(pairs)
    assert content(live) == before


def test_a_folder_on_the_way_to_a_pin_may_be_missing_from_the_snapshot(live: Path, staged: Path) -> None:
    (live / "data/more").mkdir(parents=True)
    (live / "data/app.db").write_text("old")
    (live / "data/more/file").write_text("old")
    before = content(live)
    pairs = plan_swaps(live, staged, (live / "data/app.db",))

    swap_all(pairs)
    assert content(live) == {**NEW, "data/app.db": "old"}
    unswap_all(pairs)
    assert content(live) == before


def test_a_file_where_a_folder_has_to_stay_is_refused(live: Path, staged: Path) -> None:
    (live / "data").mkdir()
    (live / "data/app.db").write_text("old")
    (staged / "data").write_text("a file")

    with pytest.raises(RestoreRefused, match="has to stay"):
        plan_swaps(live, staged, (live / "data/app.db",))


def test_a_pin_that_is_reached_through_a_symlink_is_still_one(
    live: Path, staged: Path, tmp_path: Path
) -> None:
    (live / "app.db").write_text("old")
    (tmp_path / "current").symlink_to(live)

    for root in (live, tmp_path / "current"):
        pairs = plan_swaps(root, staged, (tmp_path / "current/app.db",))
        assert live / "app.db" not in {pair.live for pair in pairs}
        assert {pair.live.parent for pair in pairs} == {live}


def test_a_tree_staged_inside_the_live_one_works(live: Path) -> None:
    staged = live / ".backup-admin-x/tree"
    staged.mkdir(parents=True)
    (staged / "file").write_text("new")
    pairs = plan_swaps(live, staged, ())

    swap_all(pairs)
    assert content(live) | NEW == {
        **NEW,
        ".backup-admin-x/tree/file": "old",
        ".backup-admin-x/tree/only-old": "old",
    }
    unswap_all(pairs)
    assert {name: text for name, text in content(live).items() if "/" not in name} == OLD


def test_a_missing_staged_tree_is_refused(live: Path, tmp_path: Path) -> None:
    with pytest.raises(RestoreRefused, match="not there"):
        plan_swaps(live, tmp_path / "gone", ())


def test_mounts_are_met_with_care(
    live: Path, staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = {tmp_path}
    monkeypatch.setattr(exchange, "_mount_points", lambda: frozenset(mounts))
    (live / "volume").mkdir()

    mounts.add(live / "volume")
    with pytest.raises(RestoreRefused, match="another file system inside"):
        plan_swaps(live, staged, ())
    assert plan_swaps(live, staged, (live / "volume",))

    mounts.add(live)
    with pytest.raises(RestoreRefused, match="same file system"):
        plan_swaps(live, staged, (live / "volume",))

    mounts.remove(live / "volume")
    inside = live / ".backup-admin-x"
    inside.mkdir()
    assert {pair.live.parent for pair in plan_swaps(live, inside, ())} == {live}


def test_mount_points_with_odd_names_are_read() -> None:
    assert exchange._unescaped(rb"/a\040b\134c") == b"/a b\\c"


# --- swap and unswap -------------------------------------------------------


def test_swap_and_unswap_may_be_repeated(live: Path, staged: Path, way: str) -> None:
    pairs = plan_swaps(live, staged, ())

    for _ in range(2):
        swap_all(pairs)
        swap_all(pairs)
        assert (content(live), content(staged)) == (NEW, OLD)
        unswap_all(pairs)
        unswap_all(pairs)
        assert (content(live), content(staged)) == (OLD, NEW)


def test_an_absent_side_is_absent_again(live: Path, staged: Path, tmp_path: Path, way: str) -> None:
    gone, other = tmp_path / "gone", tmp_path / "other/gone"
    appear = SwapPair(gone, staged, 0, staged.stat().st_ino)
    leave = SwapPair(live, other, live.stat().st_ino, 0)
    for _ in range(2):
        swap_all((appear, leave))
        swap_all((appear, leave))
        assert (content(gone), content(staged), content(live), content(other)) == (NEW, {}, {}, OLD)
        unswap_all((appear, leave))
        unswap_all((appear, leave))
        assert (content(gone), content(staged), content(live), content(other)) == ({}, NEW, OLD, {})


def test_a_swap_may_be_repeated_when_the_old_tree_was_removed(live: Path, staged: Path, way: str) -> None:
    pairs = plan_swaps(live, staged, ())
    swap_all(pairs)
    staged.rename(staged.with_name("removed"))

    swap_all(pairs)

    assert content(live) == NEW


def test_what_the_app_makes_after_an_undo_stays(staged: Path, tmp_path: Path, way: str) -> None:
    pair = SwapPair(tmp_path / "gone", staged, 0, staged.stat().st_ino)
    swap(pair)
    unswap(pair)
    (tmp_path / "gone").mkdir()

    unswap(pair)

    assert (tmp_path / "gone").is_dir()
    assert content(staged) == NEW


def test_both_absent_is_nothing(tmp_path: Path) -> None:
    pair = SwapPair(tmp_path / "a", tmp_path / "b", 0, 0)

    swap(pair)
    unswap(pair)

    assert list(tmp_path.iterdir()) == []


def run_killed(act: Callable[[], None], count: int, when: str) -> bool:
    """Kill a child at the n-th step, before or after it; true when it got that far."""
    child = os.fork()
    if child == 0:
        calls = [0]

        def deadly(real: Callable[..., None]) -> Callable[..., None]:
            def step(*arguments: object) -> None:
                calls[0] += 1
                if calls[0] == count and when == "before":
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    real(*arguments)
                finally:
                    if calls[0] == count:
                        os.kill(os.getpid(), signal.SIGKILL)

            return step

        for name in STEPS:
            setattr(exchange, name, deadly(getattr(exchange, name)))
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("start", ["old", "new"])
@pytest.mark.parametrize("killed", ["swap", "unswap"])
@pytest.mark.parametrize("then", ["swap", "unswap"])
def test_killed_anywhere_the_next_call_finishes_or_undoes(
    live: Path, staged: Path, way: str, when: str, start: str, killed: str, then: str
) -> None:
    pairs = plan_swaps(live, staged, ())
    acts = {"swap": swap_all, "unswap": unswap_all}
    reached = 0
    for count in range(1, 30):
        acts["swap" if start == "new" else "unswap"](pairs)
        if not run_killed(lambda: acts[killed](pairs), count, when):
            break
        reached = count
        everything = sorted(content(live.parent).values())
        assert everything == ["new", "new", "old", "old"]
        acts[then](pairs)
        assert (content(live), content(staged)) == ((NEW, OLD) if then == "swap" else (OLD, NEW))
        assert {path.name for path in staged.parent.iterdir()} == {staged.name}
    else:
        pytest.fail("the sweep did not end")
    assert reached >= 2


@pytest.mark.parametrize("then", ["swap", "unswap"])
def test_killed_twice_in_three_renames_still_ends_well(
    live: Path, staged: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    def cannot(first: Path, second: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(first))

    monkeypatch.setattr(exchange, "exchange", cannot)
    pairs = plan_swaps(live, staged, ())
    acts = {"swap": swap_all, "unswap": unswap_all}
    for first in range(1, 11, 2):
        for second in range(1, 11, 2):
            run_killed(lambda: swap_all(pairs), first, "after")
            run_killed(lambda: unswap_all(pairs), second, "after")
            acts[then](pairs)
            assert (content(live), content(staged)) == ((NEW, OLD) if then == "swap" else (OLD, NEW))
            unswap_all(pairs)


def test_a_live_entry_that_is_not_the_planned_one_stops_the_swap(live: Path, staged: Path, way: str) -> None:
    pairs = plan_swaps(live, staged, ())
    live.rename(live.with_name("moved"))
    live.mkdir()
    (live / "foreign").write_text("foreign")

    with pytest.raises(NeedsAttention, match="planned"):
        swap_all(pairs)

    assert content(live) == {"foreign": "foreign"}
    assert content(staged) == NEW


def test_a_live_entry_that_is_gone_stops_the_swap(live: Path, staged: Path) -> None:
    pairs = plan_swaps(live, staged, ())
    live.rename(live.with_name("moved"))

    with pytest.raises(NeedsAttention):
        swap_all(pairs)


def test_a_restored_file_that_the_app_replaced_is_undone_too(tmp_path: Path, way: str) -> None:
    live, staged = tmp_path / "config", tmp_path / "staged"
    live.write_text("old")
    staged.write_text("new")
    pair = SwapPair(live, staged, live.stat().st_ino, staged.stat().st_ino)
    swap(pair)
    (tmp_path / "replacement").write_text("edited")
    (tmp_path / "replacement").replace(live)

    unswap(pair)
    unswap(pair)

    assert (live.read_text(), staged.read_text()) == ("old", "edited")


def test_a_restored_entry_that_the_app_removed_is_undone_too(live: Path, staged: Path, way: str) -> None:
    pairs = plan_swaps(live, staged, ())
    swap_all(pairs)
    live.rename(live.with_name("removed"))

    unswap_all(pairs)

    assert content(live) == OLD


def test_an_old_entry_that_is_gone_cannot_be_put_back(live: Path, staged: Path, tmp_path: Path) -> None:
    pairs = plan_swaps(live, staged, ())
    swap_all(pairs)
    staged.rename(tmp_path / "cleaned up")

    with pytest.raises(NeedsAttention, match="neither"):
        unswap_all(pairs)

    assert content(live) == NEW


def test_what_appears_in_the_middle_of_three_renames_is_not_lost(
    live: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(first: Path, second: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(first))

    monkeypatch.setattr(exchange, "exchange", cannot)
    pairs = plan_swaps(live, staged, ())
    run_killed(lambda: swap_all(pairs), 3, "after")  # the live tree waits aside
    assert not live.exists()
    live.mkdir()
    (live / "foreign").write_text("foreign")

    for act in (swap_all, unswap_all):
        with pytest.raises(NeedsAttention):
            act(pairs)
    (live / "foreign").unlink()
    live.rmdir()
    unswap_all(pairs)

    assert (content(live), content(staged)) == (OLD, NEW)


# --- carry -----------------------------------------------------------------


def test_excluded_paths_are_carried_and_carried_back(live: Path, staged: Path) -> None:
    (live / "a/temp").mkdir(parents=True)
    (live / "a/temp/file").write_text("kept")
    (live / "a").chmod(0o711)
    (live / "x.tmp").write_text("kept")
    paths = (b"a/temp", b"x.tmp", b"gone", b"file")
    time = live.stat().st_mtime_ns, staged.stat().st_mtime_ns
    before = content(live)

    assert carry(live, staged, paths) == (b"a/temp", b"x.tmp")
    assert carry(live, staged, paths) == ()
    assert content(staged) == {**NEW, "a/temp/file": "kept", "x.tmp": "kept"}
    assert content(live) == OLD
    assert (staged / "a").stat().st_mode & 0o777 == 0o711
    assert live.stat().st_mtime_ns == time[0]

    assert carry(staged, live, (b"a/temp", b"x.tmp")) == (b"a/temp", b"x.tmp")
    assert content(live) == before


def test_what_is_in_the_new_tree_already_is_not_replaced(live: Path, staged: Path) -> None:
    assert carry(live, staged, (b"file",)) == ()
    assert (content(live), content(staged)) == (OLD, NEW)


def test_nothing_is_carried_through_a_symlink_or_a_file(live: Path, staged: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (live / "a").mkdir()
    (live / "a/temp").write_text("kept")
    (live / "b").mkdir()
    (live / "b/temp").write_text("kept")
    (live / "c").symlink_to(outside)
    (outside / "temp").write_text("outside")
    (staged / "a").symlink_to(outside)
    (staged / "b").write_text("a file")

    assert carry(live, staged, (b"a/temp", b"b/temp", b"c/temp")) == ()

    assert content(outside) == {"temp": "outside"}
    assert (live / "a/temp").read_text() == "kept"


@pytest.mark.parametrize("path", [b"../outside", b"/etc/passwd", b"a/../../b", b""])
def test_hostile_paths_are_not_carried(live: Path, staged: Path, path: bytes) -> None:
    with pytest.raises(RestoreRefused):
        carry(live, staged, (path,))


def test_special_entries_are_carried_without_being_opened(live: Path, staged: Path) -> None:
    os.mkfifo(live / "pipe")

    assert carry(live, staged, (b"pipe",)) == (b"pipe",)
    assert (staged / "pipe").is_fifo()
