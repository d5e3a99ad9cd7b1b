"""What meets a restore from outside: locks, lost databases, hooks that fail."""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from backup_admin.core.errors import NeedsAttention
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.operations import sqlite_part, tree_swap
from backup_admin.operations.journal import Journal, Step
from backup_admin.operations.recover import recover
from backup_admin.operations.restore import carry_out
from backup_admin.operations.restore_report import RestoreHooks, RestoreReport
from backup_admin.operations.sqlite_part import SqlitePart
from backup_admin.operations.undo import undo_restore
from backup_admin.sources import exchange
from tests.integration.restore.scene import CLOCK, Scene, damage, make_scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = make_scene(tmp_path)
    made.back_up()
    return made


@pytest.mark.parametrize("content", [None, b"no database any more", b"SQLite format 3\0" + bytes(8000)])
def test_undo_brings_back_a_database_that_was_lost_after_the_restore(
    scene: Scene, content: bytes | None
) -> None:
    damage(scene)
    damaged = scene.live()
    restored = scene.restore(scene.plan())
    scene.database.unlink()
    if content is not None:
        scene.database.write_bytes(content)

    report = _undo(scene)

    assert report.outcome == "undone", report.message
    assert scene.live() == damaged
    assert not scene.state.maintenance_flag.exists()
    kept = [path.read_bytes() for path in scene.database.parent.rglob("*") if path.is_file()]
    assert content is None or content in kept, restored.restore_id


def test_what_is_left_out_stays_also_in_folders_that_came_after_the_backup(scene: Scene) -> None:
    left_out = [scene.tree / name / "temp" / "scratch" for name in ("later", "folder 1/later/still")]
    for path in left_out:
        path.parent.mkdir(parents=True)
        path.write_text("not backed up")
    (left_out[1].parent.parent / "new file").write_text("came after the backup")

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    assert [path.read_text() for path in left_out] == ["not backed up"] * 2
    assert not (left_out[1].parent.parent / "new file").exists()
    assert _undo(scene).outcome == "undone"
    assert [path.read_text() for path in left_out] == ["not backed up"] * 2


def test_a_folder_mounted_from_its_own_file_system_is_restored_inside(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = scene.live()
    damage(scene)
    mounts = exchange._mount_points() | {scene.tree}
    monkeypatch.setattr(exchange, "_mount_points", lambda: mounts)

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    staged = [path.name for path in scene.tree.glob(".backup-admin-*")]
    assert staged == [f".backup-admin-{report.restore_id}-files"]
    live = scene.live()
    kept = {path: entry for path, entry in live["tree"].items() if not path.startswith(b".backup-admin-")}
    assert {**live, "tree": kept} == good
    assert _undo(scene).outcome == "undone"
    assert (scene.tree / "new file").exists()


def test_a_damaged_last_line_takes_no_committed_restore_back(scene: Scene) -> None:
    damage(scene)
    restored = scene.restore(scene.plan())
    journal = scene.state.restores / f"restore-{restored.restore_id}.journal"
    data = bytearray(journal.read_bytes())
    data[-2] ^= 1
    journal.write_bytes(data)
    (scene.tree / "written since").write_text("by the app")

    with pytest.raises(NeedsAttention, match="is damaged"):
        recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)

    assert (scene.tree / "written since").exists()


def test_an_error_after_the_commit_takes_nothing_back(scene: Scene) -> None:
    good = scene.live()
    damage(scene)

    report = _carry_out(scene, _Hook(RuntimeError("the proxy does not answer")))

    assert report.outcome == "restored"
    assert "the proxy does not answer" in report.message
    assert "backup-admin recover" in report.message
    assert report.exit_code == 1
    assert report.undo_until is not None
    assert scene.live() == good
    recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
    assert not scene.state.maintenance_flag.exists()
    assert scene.live() == good
    assert _undo(scene).outcome == "undone"


def test_an_interrupt_after_the_commit_takes_nothing_back(scene: Scene) -> None:
    good = scene.live()
    damage(scene)

    with pytest.raises(KeyboardInterrupt):
        _carry_out(scene, _Hook(KeyboardInterrupt()))

    assert scene.live() == good


def test_a_database_locked_at_the_swap_was_not_touched(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    monkeypatch.setattr(sqlite_part, "_SWAP_SECONDS", 0.5)
    swap = SqlitePart.swap
    with closing(sqlite3.connect(scene.database, isolation_level=None)) as writer:

        def lock_and_swap(part: SqlitePart, *, live_usable: bool) -> None:
            writer.execute("begin exclusive")
            swap(part, live_usable=live_usable)

        monkeypatch.setattr(SqlitePart, "swap", lock_and_swap)
        report = scene.restore(plan)

    assert report.outcome == "rolled_back", report.message
    assert "stayed locked" in report.message
    assert report.message.count("Nothing live was changed") == 1
    assert not scene.state.maintenance_flag.exists()
    assert scene.live() == damaged


def test_a_disk_that_takes_no_copy_of_live_ends_the_restore(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    keep = SqlitePart.keep_old
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def keep_on_a_small_disk(part: SqlitePart) -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        try:
            return keep(part)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(SqlitePart, "keep_old", keep_on_a_small_disk)
    report = scene.restore(plan)

    assert report.outcome == "rolled_back", report.message
    assert "File too large" in report.message
    assert "Nothing live was changed" in report.message
    assert scene.live() == damaged


def test_a_crash_while_the_rollback_is_ended_leaves_no_locked_app(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    with monkeypatch.context() as patch:
        patch.setattr(tree_swap, "swap_tree", _fail)
        patch.setattr(Journal, "write", _full_at(Step.ROLLED_BACK))
        report = scene.restore(plan)
    assert report.outcome == "needs_attention"
    assert "No space left on device" in report.message
    assert "backup-admin recover" in report.message

    found = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)

    assert [one.outcome for one in found] == ["rolled_back"], found
    assert not scene.state.maintenance_flag.exists()
    assert scene.live() == damaged
    assert list(scene.tree.parent.glob(".backup-admin-*")) == []


@pytest.mark.parametrize("step", list(Step)[1:8])
def test_a_full_state_folder_ends_in_a_report(
    scene: Scene, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    monkeypatch.setattr(Journal, "write", _full_at(step))

    report = scene.restore(plan)

    assert report.outcome == "rolled_back"
    assert "No space left on device" in report.message
    assert "Nothing live was changed" in report.message or step is Step.SWAPPED
    assert not scene.state.maintenance_flag.exists()
    assert scene.live() == damaged


def _full_at(full: Step) -> Callable[..., None]:
    """Make a journal that finds no space for one step."""
    write = Journal.write

    def refuse(journal: Journal, step: Step, **data: Any) -> None:
        if step is full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(journal, step, **data)

    return refuse


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


class _Hook:
    """A hook of the host that fails once when writers are let in."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __call__(self, closed: bool) -> None:
        if not closed:
            raise self._error


def _carry_out(scene: Scene, hook: _Hook) -> RestoreReport:
    return carry_out(
        scene.plan(),
        scene.open(),
        scene.sources,
        restore_id=RestoreId(new_ulid(CLOCK.now())),
        actor="tester",
        tools=scene.tools(RestoreHooks(maintenance=hook)),
    )


def _undo(scene: Scene) -> RestoreReport:
    return undo_restore(scene.state, None, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
