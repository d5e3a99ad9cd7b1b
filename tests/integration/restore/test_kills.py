"""SIGKILL at every storage and journal call: old or new, never in between."""

from __future__ import annotations

import os
import signal
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.operations import journal as journals
from backup_admin.operations import restore_parts, tree_swap
from backup_admin.operations.check import check_repository
from backup_admin.operations.recover import recover
from backup_admin.operations.restore_report import RestoreHooks
from backup_admin.operations.sqlite_part import SqlitePart
from backup_admin.operations.undo import undo_restore
from tests.integration.restore.scene import CLOCK, Scene, damage, make_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.local import LocalStorage

_SYSTEM_CALLS = (
    "fsync",
    "rename",
    "replace",
    "link",
    "unlink",
    "mkdir",
    "rmdir",
    "ftruncate",
    "utime",
    "chmod",
)
_STORAGE_CALLS = ("put", "get", "get_into", "stat", "list_objects", "delete")
_PART_CALLS = ("make_work_folder", "stage_tree", "remove_staging")
_DATABASE_CALLS = ("stage", "swap", "unswap", "keep_old", "keep_undone")


_FEWEST_POINTS = 15


class Countdown:
    """Kills this process at the n-th call; zero only counts."""

    def __init__(self, kill_at: int) -> None:
        self.count = 0
        self._kill_at = kill_at

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count == self._kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return counted


def _arm(countdown: Countdown, storage: LocalStorage, *, system: bool) -> None:
    for name in _STORAGE_CALLS:
        setattr(storage, name, countdown.wrap(getattr(storage, name)))
    for name in _PART_CALLS:
        setattr(restore_parts, name, countdown.wrap(getattr(restore_parts, name)))
    for name in _DATABASE_CALLS:
        setattr(SqlitePart, name, countdown.wrap(getattr(SqlitePart, name)))
    for name in ("swap_tree", "unswap_tree"):
        setattr(tree_swap, name, countdown.wrap(getattr(tree_swap, name)))
    journals.Journal.write = countdown.wrap(journals.Journal.write)  # type: ignore[method-assign]  # in a fork
    if system:
        for name in _SYSTEM_CALLS:
            setattr(os, name, countdown.wrap(getattr(os, name)))


def _in_child(work: Callable[[], None], countdown: Countdown) -> int:
    """Run in a forked process; return the calls counted, or -1 when it was killed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            work()
            os.write(write, str(countdown.count).encode())
        finally:
            os._exit(0)
    os.close(write)
    answer = b""
    while part := os.read(read, 64):
        answer += part
    os.close(read)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return -1
    assert answer, "the child failed without being killed"
    return int(answer)


def _killed_at(scene: Scene, work: Callable[[LocalStorage], None], point: int, *, system: bool) -> int:
    countdown = Countdown(point)
    storage = scene.storage

    def run() -> None:
        _arm(countdown, storage, system=system)
        work(storage)

    return _in_child(run, countdown)


def _sweep_backup(scene: Scene, *, system: bool, step: int = 1) -> None:
    scene.back_up()
    damage(scene)
    scene.keep()

    def work(storage: LocalStorage) -> None:
        scene.back_up(scene.open(storage))

    for point in count(1, step):
        scene.reset()
        killed = _killed_at(scene, work, point, system=system)
        report = check_repository(scene.open(), read_data=True, reporter=QuietReporter())
        assert report.ok, (point, report.problems)
        if killed != -1:
            break
    assert point > _FEWEST_POINTS
    assert scene.back_up().outcome == "completed"


def _sweep_restore(scene: Scene, *, system: bool, step: int = 1) -> None:
    scene.back_up()
    good = scene.live()
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    scene.keep()

    def work(storage: LocalStorage) -> None:
        assert scene.restore(plan, storage).outcome == "restored"

    ends: Counter[str] = Counter()
    for point in count(1, step):
        scene.reset()
        killed = _killed_at(scene, work, point, system=system)
        results = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
        live = scene.live()
        assert not scene.state.maintenance_flag.exists(), (point, results)
        assert live in (good, damaged), (point, results)
        assert check_repository(scene.open(), read_data=True, reporter=QuietReporter()).ok, point
        if live == good:
            ends["new"] += 1
            _undo(scene)
            assert scene.live() == damaged, point
        else:
            ends["old"] += 1
            assert list(scene.tree.parent.glob(".backup-admin-*")) == [], point
        if killed != -1:
            break
    assert ends["old"] * step > _FEWEST_POINTS
    assert ends["new"] > 0


def _sweep_undo(scene: Scene, *, system: bool) -> None:
    scene.back_up()
    good = scene.live()
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    scene.keep()

    def work(_: LocalStorage) -> None:
        _undo(scene)

    for point in count(1):
        scene.reset()
        assert scene.restore(plan).outcome == "restored"
        killed = _killed_at(scene, work, point, system=system)
        results = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
        live = scene.live()
        assert live in (good, damaged), (point, results)
        assert not scene.state.maintenance_flag.exists(), (point, results)
        if killed != -1:
            break
    assert point > 3


def _undo(scene: Scene) -> None:
    report = undo_restore(scene.state, None, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
    assert report.outcome == "undone", report.message


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path / "scene")


def test_backup_killed_at_storage_calls_leaves_earlier_snapshots_whole(scene: Scene) -> None:
    _sweep_backup(scene, system=False, step=2)


def test_restore_killed_at_storage_and_journal_calls_is_old_or_new(scene: Scene) -> None:
    _sweep_restore(scene, system=False, step=2)


def test_undo_killed_at_journal_calls_is_old_or_new(scene: Scene) -> None:
    _sweep_undo(scene, system=False)


@pytest.mark.long
def test_undo_killed_at_every_call(scene: Scene) -> None:
    _sweep_undo(scene, system=True)


@pytest.mark.long
def test_backup_killed_at_every_call(scene: Scene) -> None:
    _sweep_backup(scene, system=True)


@pytest.mark.long
def test_restore_killed_at_every_call(scene: Scene) -> None:
    _sweep_restore(scene, system=True)
