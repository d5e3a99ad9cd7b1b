"""A restore in place: exact, undoable, and harmless when it cannot be done."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from backup_admin.core.errors import Busy, Cancelled, RestoreRefused, SnapshotMissing
from backup_admin.core.ids import RestoreId, new_ulid
from backup_admin.core.progress import QuietReporter
from backup_admin.core.settings import STREAMS_ROOT
from backup_admin.operations import restore_parts, tree_swap
from backup_admin.operations.backup import back_up
from backup_admin.operations.issues import Level
from backup_admin.operations.journal import list_journals
from backup_admin.operations.recover import recover
from backup_admin.operations.restore import carry_out
from backup_admin.operations.restore_report import RestoreHooks
from backup_admin.operations.results import BackupOptions
from backup_admin.operations.undo import remove_expired, undo_restore, undoable
from backup_admin.operations.validate import validate_restore
from backup_admin.sources.files import FileSource
from tests.integration.restore.scene import CLOCK, Scene, damage, make_scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = make_scene(tmp_path)
    made.back_up()
    return made


def test_restore_brings_back_exactly_what_was_backed_up(scene: Scene) -> None:
    good = scene.live()
    damage(scene)

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    assert scene.live() == good
    assert all(line.ok for line in report.checks)


def test_nothing_stays_open_when_a_restore_ended(scene: Scene, tmp_path: Path) -> None:
    plan = scene.plan()
    gc.disable()
    try:
        scene.restore(plan)
        opened = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    finally:
        gc.enable()

    assert [path for path in opened if path.startswith(f"{tmp_path}/")] == []


def test_the_snapshot_cannot_be_forgotten_while_it_is_restored(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[list[str]] = []
    stage_tree = restore_parts.stage_tree

    def looking(*arguments: Any, **more: Any) -> None:
        pinned.append([pin.snapshot for pin in scene.open().history.pins.values()])
        stage_tree(*arguments, **more)

    monkeypatch.setattr(restore_parts, "stage_tree", looking)
    plan = scene.plan()

    scene.restore(plan)

    assert pinned == [[plan.snapshot_id]]
    assert scene.open().history.pins == {}


def test_undo_brings_back_exactly_what_was_there_before(scene: Scene) -> None:
    damage(scene)
    damaged = scene.live()
    scene.restore(scene.plan())

    report = undo_restore(scene.state, None, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)

    assert report.outcome == "undone"
    assert scene.live() == damaged
    assert undoable(scene.state, CLOCK) == ()


def test_open_connections_see_the_restored_rows(scene: Scene) -> None:
    connection = sqlite3.connect(scene.database)
    damage(scene)
    assert connection.execute("select count(*) from photos").fetchone() == (250,)

    scene.restore(scene.plan())

    assert connection.execute("select count(*) from photos").fetchone() == (500,)
    connection.close()


def test_what_a_backup_leaves_out_stays_in_place(scene: Scene) -> None:
    damage(scene)

    scene.restore(scene.plan())

    assert (scene.tree / "temp" / "scratch").read_text() == "not backed up"
    assert (scene.tree / "cached" / ".cache" / "thumb").read_text() == "not backed up either"


def test_safety_backup_holds_what_was_live(scene: Scene) -> None:
    damage(scene)
    damaged = scene.live()

    report = scene.restore(scene.plan())
    undone = scene.restore(scene.plan(report.safety_snapshot))

    assert undone.outcome == "restored"
    assert scene.live() == damaged


def test_the_latest_is_never_what_a_restore_replaced(scene: Scene) -> None:
    good = scene.open().find_snapshot("latest").id
    damage(scene)

    report = scene.restore(scene.plan())

    assert scene.open().find_snapshot("latest").id == good
    assert scene.open().snapshot_ids()[-1] == report.safety_snapshot
    with pytest.raises(SnapshotMissing, match=f"has no snapshot '01zzz'; it has 2, the latest is {good}."):
        scene.open().find_snapshot("01zzz")


def test_everything_lost_comes_back(scene: Scene) -> None:
    good = scene.live()
    shutil.rmtree(scene.tree)
    scene.database.unlink()

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    assert report.notices == ()
    assert scene.live()["database"] == good["database"]
    assert scene.live()["tree"] == good["tree"]
    (choice,) = undoable(scene.state, CLOCK)
    assert choice.new_places == choice.places


def test_a_destroyed_database_is_replaced_and_kept(scene: Scene) -> None:
    good = scene.live()
    garbage = b"this is no database" * 1000
    scene.database.write_bytes(garbage)

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    assert scene.live() == good
    undo_restore(scene.state, None, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)
    assert scene.database.read_bytes() == garbage


def test_a_database_that_opens_but_has_damaged_pages_is_replaced_and_kept(scene: Scene) -> None:
    good = scene.live()
    plan = scene.plan()
    damaged = bytearray(scene.database.read_bytes())
    damaged[4096 + 50 : 3 * 4096] = os.urandom(2 * 4096 - 50)
    scene.database.write_bytes(damaged)

    report = scene.restore(plan)

    assert report.outcome == "restored", report.message
    assert scene.live() == good
    assert report.notices == ("The database app could not be kept: it is damaged.",)
    (kept,) = scene.root.glob("app/.backup-admin-*/aside/app.db")
    assert kept.read_bytes() == damaged


def test_a_database_inside_the_folder_is_never_moved(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    inside = scene.tree / "folder 3" / "app.db"
    scene.database.rename(inside)
    scene.database.symlink_to(inside)
    scene = _InsideScene(scene.root, scene.secret)
    scene.back_up()
    good = scene.live()
    inode = inside.stat().st_ino
    damage(scene)

    report = scene.restore(scene.plan())

    assert report.outcome == "restored", report.message
    assert inside.stat().st_ino == inode
    restored = scene.live()
    assert restored["database"] == good["database"]
    assert _without_database(restored["tree"]) == _without_database(good["tree"])


class _InsideScene(Scene):
    @property
    def database(self) -> Path:
        return self.tree / "folder 3" / "app.db"


def _without_database(tree: object) -> dict[bytes, object]:
    assert isinstance(tree, dict)
    left = (b"folder 3/app.db", b"folder 3/.backup-admin")
    return {path: entry for path, entry in tree.items() if not path.startswith(left) and path != b"folder 3"}


def test_a_failing_check_puts_everything_back(scene: Scene) -> None:
    damage(scene)
    damaged = scene.live()
    hooks = RestoreHooks(checks=(("the app", lambda: "broken"),))

    report = _carry_out(scene, hooks)

    assert report == ("rolled_back", 4)
    assert scene.live() == damaged
    assert not scene.state.maintenance_flag.exists()


def test_a_failing_swap_puts_everything_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    damage(scene)
    damaged = scene.live()
    monkeypatch.setattr(tree_swap, "swap_tree", _raise_os_error)

    report = scene.restore(scene.plan())

    assert report.outcome == "rolled_back"
    assert scene.live() == damaged
    assert list(scene.tree.parent.glob(".backup-admin-*")) == []


def _raise_os_error(*_: object) -> None:
    raise RestoreRefused("the disk is gone")


def test_damage_in_the_repository_is_found_before_anything_live_is_touched(scene: Scene) -> None:
    damage(scene)
    damaged = scene.live()
    plan = scene.plan()
    pack = max((scene.root / "repository" / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 1
    pack.write_bytes(data)

    report = scene.restore(plan)

    assert report.outcome == "rolled_back"
    assert report.exit_code == 4
    assert scene.live() == damaged


def test_maintenance_is_on_from_safety_backup_to_the_end(scene: Scene) -> None:
    seen: list[tuple[bool, bool]] = []
    hooks = RestoreHooks(maintenance=lambda on: seen.append((on, scene.state.maintenance_flag.exists())))

    _carry_out(scene, hooks)

    assert seen == [(True, True), (False, True)]
    assert not scene.state.maintenance_flag.exists()


def test_cancel_before_the_swap_changes_nothing(scene: Scene) -> None:
    damage(scene)
    damaged = scene.live()

    class Stops(QuietReporter):
        def stage(self, name: str, *, total_bytes: int = 0, total_items: int = 0) -> None:
            self.now = name

        def check_cancelled(self) -> None:
            if self.now == "safety_backup":
                raise Cancelled("Stopped on request. Nothing live was changed.")

    report = scene.restore(scene.plan(), reporter=Stops())

    assert (report.outcome, report.message) == (
        "rolled_back",
        "Stopped on request. Nothing live was changed.",
    )
    assert scene.live() == damaged


def test_a_second_restore_meanwhile_is_refused(scene: Scene) -> None:
    plan = scene.plan()

    with scene.state.lock("restore"), pytest.raises(Busy):
        scene.restore(plan)


def test_a_plan_for_another_snapshot_is_refused(scene: Scene) -> None:
    plan = scene.plan()
    other = make_scene(scene.root / "other")
    other.back_up()

    with pytest.raises(RestoreRefused):
        other.restore(plan)


def test_only_the_newest_restore_of_a_place_can_be_undone(scene: Scene) -> None:
    first = scene.restore(scene.plan())
    damage(scene)
    second = scene.restore(scene.plan())

    assert [one.restore_id for one in undoable(scene.state, CLOCK)] == [second.restore_id]
    with pytest.raises(RestoreRefused):
        undo_restore(
            scene.state, first.restore_id, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK
        )


def test_a_recovered_restore_can_be_undone_as_long_as_it_was_promised(scene: Scene) -> None:
    damage(scene)
    tools = replace(scene.tools(), undo_hours=1.0)
    restore_id = RestoreId(new_ulid(CLOCK.now()))
    carry_out(scene.plan(), scene.open(), scene.sources, restore_id=restore_id, actor="tester", tools=tools)
    path = scene.state.restores / f"restore-{restore_id}.journal"
    lines = path.read_bytes().splitlines(keepends=True)
    swapped = next(number for number, line in enumerate(lines) if b'"all_swapped"' in line)
    path.write_bytes(b"".join(lines[: swapped + 1]))  # as a kill right after the swap leaves it

    (recovered,) = recover(scene.state, hooks=RestoreHooks(), reporter=QuietReporter(), clock=CLOCK)

    assert recovered.outcome == "restored", recovered.message
    (choice,) = undoable(scene.state, CLOCK)
    assert choice.until < CLOCK.now() + timedelta(hours=1, minutes=1)


def test_old_state_is_removed_when_its_time_is_over(scene: Scene) -> None:
    class Later:
        def now(self) -> object:
            return CLOCK.now() + timedelta(hours=25)

        def __getattr__(self, name: str) -> object:
            return getattr(CLOCK, name)

    damage(scene)
    scene.restore(scene.plan())
    assert list(scene.tree.parent.glob(".backup-admin-*"))

    removed = remove_expired(scene.state, Later())  # type: ignore[arg-type]  # a clock ahead of time

    assert len(removed) == 1
    assert list(scene.tree.parent.glob(".backup-admin-*")) == []


def test_validation_names_a_lost_pack(scene: Scene) -> None:
    plan = scene.plan()
    for pack in (scene.root / "repository" / "packs").rglob("*"):
        if pack.is_file():
            pack.unlink()

    issues = validate_restore(plan, scene.open(), scene.sources, state=scene.state, clock=CLOCK)

    assert [issue.topic for issue in issues if issue.level is Level.BLOCK] == ["Backup"]


def test_the_streams_of_an_app_are_not_left_out_of_a_restore_but_no_part_of_it(scene: Scene) -> None:
    spool = scene.root / "spool"
    spool.mkdir()
    (spool / "0001.ltx").write_bytes(b"streamed")
    sources = scene.sources
    repository = scene.open()
    back_up(
        repository,
        replace(sources, files=(*sources.files, FileSource(STREAMS_ROOT, spool))),
        options=BackupOptions(),
        state=scene.state,
        reporter=QuietReporter(),
        clock=CLOCK,
    )

    plan = scene.plan()
    issues = validate_restore(plan, scene.open(), sources, state=scene.state, clock=CLOCK)

    assert STREAMS_ROOT in [root.name for root in scene.open().manifest(plan.snapshot_id).files]
    assert [part.name for part in plan.files] == ["files"]
    assert plan.left_out == ()
    assert [issue.level for issue in issues if issue.topic == "Streams"] == [Level.OK]
    assert [issue.topic for issue in issues if issue.level is not Level.OK] == []


def test_validation_refuses_folders_inside_each_other(scene: Scene) -> None:
    plan = scene.plan()
    inner = replace(plan.files[0], name="inner", root=f"{plan.files[0].root}/folder 1")

    issues = validate_restore(
        replace(plan, files=(*plan.files, inner)), scene.open(), scene.sources, state=scene.state, clock=CLOCK
    )

    assert "Folder inner" in [issue.topic for issue in issues if issue.level is Level.BLOCK]


def test_the_latest_is_the_last_commit_whatever_the_clock_said(scene: Scene) -> None:
    class Behind:
        def now(self) -> object:
            return CLOCK.now() - timedelta(days=400)

        def __getattr__(self, name: str) -> object:
            return getattr(CLOCK, name)

    result = back_up(
        scene.open(),
        scene.sources,
        options=BackupOptions(),
        state=scene.state,
        reporter=QuietReporter(),
        clock=Behind(),  # type: ignore[arg-type]  # a clock that is wrong
    )

    assert scene.open().find_snapshot("latest").id == result.snapshot.id


def test_plan_says_what_would_change(scene: Scene) -> None:
    damage(scene)

    plan = scene.plan()

    assert (plan.files[0].added, plan.files[0].removed) == (6, 1)
    rows = {table.table: (table.rows_now, table.rows_then) for table in plan.databases[0].tables}
    assert rows == {"photos": (250, 500), "later": (0, -1)}
    assert type(plan).from_json(plan.to_json()) == plan


def test_journal_tells_the_story(scene: Scene) -> None:
    scene.restore(scene.plan())

    (summary,) = list_journals(scene.state, CLOCK)

    assert summary.finished
    assert summary.actor == "tester"


def _carry_out(scene: Scene, hooks: RestoreHooks, reporter: QuietReporter | None = None) -> tuple[str, int]:
    tools = replace(scene.tools(hooks), reporter=reporter or QuietReporter())
    report = carry_out(
        scene.plan(),
        scene.open(),
        scene.sources,
        restore_id=RestoreId(new_ulid(CLOCK.now())),
        actor="tester",
        tools=tools,
    )
    return report.outcome, report.exit_code
