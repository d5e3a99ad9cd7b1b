"""SIGKILL at every storage and journal call: old or new, never in between."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.operations import journal as journals
from backup_admin.operations import restore_parts
from backup_admin.operations.recover import recover
from backup_admin.operations.restore_report import RestoreHooks
from backup_admin.operations.undo import undo_restore
from backup_admin.operations.verify import verify_snapshot
from tests.integration.restore.scene import CLOCK, Scene, damage, make_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.local import LocalStorage

_SYSTEM_CALLS = ("fsync", "rename", "replace", "link", "unlink", "mkdir", "rmdir", "ftruncate", "utime", "chmod")
_STORAGE_CALLS = ("put", "get", "get_into", "stat", "list_objects", "delete")
_PART_CALLS = (
    "make_work_folder",
    "stage_tree",
    "stage_database",
    "swap_tree",
    "swap_database",
    "unswap_tree",
    "unswap_database",
    "keep_old_database",
    "keep_undone_database",
    "remove_staging",
)


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


def _count(scene: Scene, work: Callable[[LocalStorage], None], *, system: bool) -> int:
    return _killed_at(scene, work, 0, system=system)


def _killed_at(scene: Scene, work: Callable[[LocalStorage], None], point: int, *, system: bool) -> int:
    countdown = Countdown(point)
    storage = scene.storage

    def run() -> None:
        _arm(countdown, storage, system=system)
        work(storage)

    return _in_child(run, countdown)


def _points(total: int, most: int) -> list[int]:
    step = max(1, -(-total // most))
    return sorted({*range(1, total + 1, step), total})


def _sweep_backup(scene: Scene, *, system: bool, most: int) -> None:
    first = scene.back_up().snapshot.id
    damage(scene)

    def work(storage: LocalStorage) -> None:
        scene.back_up(scene.open(storage))

    total = _count(scene, work, system=system)
    for point in _points(total, most):
        (scene.tree / "new file").write_text(f"changed before kill {point}")
        _killed_at(scene, work, point, system=system)
        repository = scene.open()
        for snapshot_id in (first, repository.snapshot_ids()[-1]):
            report = verify_snapshot(repository, snapshot_id, state=scene.state, reporter=QuietReporter())
            assert report.ok, (point, total, report.problems)
    assert scene.back_up().outcome == "completed"


def _sweep_restore(scene: Scene, *, system: bool, most: int) -> None:
    scene.back_up()
    good = scene.live()
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    first = plan.snapshot_id

    def work(storage: LocalStorage) -> None:
        assert scene.restore(plan, storage).outcome == "restored"

    total = _count(scene, work, system=system)
    _undo(scene)
    assert scene.live() == damaged
    ends = set()
    print(f"{total} calls")
    for point in _points(total, most):
        killed = _killed_at(scene, work, point, system=system)
        results = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
        live = scene.live()
        assert not scene.state.maintenance_flag.exists(), (point, total, results)
        assert live in (good, damaged), (point, total, results)
        if live == good:
            ends.add("new")
            _undo(scene)
            assert scene.live() == damaged, (point, total)
        elif killed == -1:
            ends.add("old")
            left = list(scene.tree.parent.glob(".backup-admin-*"))
            assert len(left) <= 2 * point, (point, left)
        report = verify_snapshot(scene.open(), first, state=scene.state, reporter=QuietReporter())
        assert report.ok, (point, report.problems)
    assert ends == {"old", "new"}


def _sweep_undo(scene: Scene, *, system: bool, most: int) -> None:
    scene.back_up()
    good = scene.live()
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    scene.restore(plan)

    def work(_: LocalStorage) -> None:
        _undo(scene)

    total = _count(scene, work, system=system)
    for point in _points(total, most):
        assert scene.restore(plan).outcome == "restored"
        _killed_at(scene, work, point, system=system)
        results = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
        live = scene.live()
        assert live in (good, damaged), (point, total, results)
        assert not scene.state.maintenance_flag.exists(), (point, total, results)
        if live == good:
            _undo(scene)


def _undo(scene: Scene) -> None:
    report = undo_restore(scene.state, None, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
    assert report.outcome == "undone", report.message


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return make_scene(tmp_path)


def test_backup_killed_at_storage_calls_leaves_earlier_snapshots_whole(scene: Scene) -> None:
    _sweep_backup(scene, system=False, most=25)


def test_restore_killed_at_storage_and_journal_calls_is_old_or_new(scene: Scene) -> None:
    _sweep_restore(scene, system=False, most=40)


def test_undo_killed_at_journal_calls_is_old_or_new(scene: Scene) -> None:
    _sweep_undo(scene, system=False, most=20)


@pytest.mark.long
def test_undo_killed_at_every_call(scene: Scene) -> None:
    _sweep_undo(scene, system=True, most=10_000)


@pytest.mark.long
def test_backup_killed_at_every_call(scene: Scene) -> None:
    _sweep_backup(scene, system=True, most=10_000)


@pytest.mark.long
def test_restore_killed_at_every_call(scene: Scene) -> None:
    _sweep_restore(scene, system=True, most=10_000)
