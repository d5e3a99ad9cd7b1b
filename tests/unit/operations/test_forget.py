"""Forgetting: what must stay stays, whoever commits meanwhile; no data is deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.clock import format_time
from backup_admin.core.errors import ForgetRefused, HistoryChanged, SnapshotMissing
from backup_admin.core.ids import SnapshotId
from backup_admin.core.state import StateFolder
from backup_admin.operations.forget import forget_by_policy, forget_named, plan_forget
from backup_admin.operations.retention import Policy
from backup_admin.operations.verified import note_verified, read_verified
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    CLOCK,
    file_sources,
    make_storage,
    open_test_repository,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import FaultyStorage, clone

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.repository.repository import Repository

LAST_ONE = Policy(last=1)


@pytest.fixture
def storage() -> MemoryStorage:
    made = MemoryStorage()
    make_storage(made)
    return made


@pytest.fixture
def ids(storage: MemoryStorage, tmp_path: Path) -> list[SnapshotId]:
    """Four snapshots, the last one degraded or not as the folder says: all complete."""
    repository = open_test_repository(storage, tmp_path / "state")
    made = []
    for number in range(4):
        tree = write_tree(tmp_path / "files", {f"{number}.txt": b"text %d" % number})
        made.append(run_backup(repository, file_sources(tree), tmp_path / "state").snapshot.id)
    return made


def reopened(storage: MemoryStorage, tmp_path: Path) -> Repository:
    return open_test_repository(storage, tmp_path / "state")


def pin(repository: Repository, snapshot: str, until: datetime | None = None) -> None:
    payload = {"pin": f"p-{snapshot}", "snapshot": snapshot, "reason": "court case"}
    repository.record("pin", payload | {"until": format_time(until) if until else ""}, actor="tests")


def named(repository: Repository, *snapshots: str, force: bool = False) -> None:
    forget_named(repository, [SnapshotId(one) for one in snapshots], force=force, actor="tests", clock=CLOCK)


def test_a_policy_forgets_what_it_does_not_keep_and_deletes_nothing(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    before = {info.name for info in storage.list_objects("")}
    repository = reopened(storage, tmp_path)

    plan = forget_by_policy(repository, LAST_ONE, verified=[ids[1]], actor="tests", clock=CLOCK)

    assert plan.removed == (ids[0], ids[2])
    fresh = open_test_repository(storage, tmp_path / "fresh")
    assert fresh.snapshot_ids() == (ids[1], ids[3])
    assert before < {info.name for info in storage.list_objects("")}
    assert all(report.ok for report in verify_all(storage, tmp_path / "fresh").values())


def test_a_plan_changes_nothing(storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path) -> None:
    before = list(storage.list_objects(""))

    plan = plan_forget(reopened(storage, tmp_path), LAST_ONE, verified=[], now=CLOCK.now())

    assert plan.removed == tuple(ids[:3])
    assert list(storage.list_objects("")) == before


def test_nothing_to_forget_writes_no_entry(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    repository = reopened(storage, tmp_path)
    head = repository.head

    forget_by_policy(repository, Policy(last=len(ids)), verified=[], actor="tests", clock=CLOCK)

    assert repository.head == head


def test_the_newest_complete_one_and_the_last_of_all_need_force(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    repository = reopened(storage, tmp_path)

    with pytest.raises(ForgetRefused, match="newest complete"):
        named(repository, ids[0], ids[3])
    assert repository.snapshot_ids() == tuple(ids)

    named(repository, ids[0], ids[3], force=True)
    assert repository.snapshot_ids() == (ids[1], ids[2])


def test_a_pinned_snapshot_stays_until_its_pin_ends(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    repository = reopened(storage, tmp_path)
    pin(repository, ids[0])
    pin(repository, ids[1], until=CLOCK.now() + timedelta(days=1))
    pin(repository, ids[2], until=datetime(2025, 1, 1, tzinfo=UTC))

    for snapshot in ids[:2]:
        with pytest.raises(ForgetRefused, match="court case"):
            named(repository, snapshot, force=True)
    plan = forget_by_policy(repository, LAST_ONE, verified=[], actor="tests", clock=CLOCK)

    assert plan.removed == (ids[2],)
    repository.record("unpin", {"pin": f"p-{ids[0]}"}, actor="tests")
    named(repository, ids[0])
    assert repository.snapshot_ids() == (ids[1], ids[3])


def test_a_pin_that_comes_at_the_last_moment_is_heard(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    other = open_test_repository(storage, tmp_path / "other")
    done: list[str] = []

    def rush(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/") and not done:
            done.append(name)
            pin(other, ids[0])

    faulty = FaultyStorage(storage, before=rush)
    repository = open_test_repository(faulty, tmp_path / "state")

    plan = forget_by_policy(repository, LAST_ONE, verified=[], actor="tests", clock=CLOCK)

    assert done
    assert plan.removed == tuple(ids[1:3])
    assert open_test_repository(storage, tmp_path / "fresh").snapshot_ids() == (ids[0], ids[3])


def test_who_names_what_another_forgot_just_now_is_told(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    other = open_test_repository(storage, tmp_path / "other")
    done: list[str] = []

    def rush(method: str, name: str) -> None:
        if method == "put" and name.startswith("chain/") and not done:
            done.append(name)
            named(other, ids[0])

    repository = open_test_repository(FaultyStorage(storage, before=rush), tmp_path / "state")

    with pytest.raises(SnapshotMissing):
        named(repository, ids[0], ids[1])
    assert repository.snapshot_ids() == tuple(ids[1:])


def test_a_snapshot_that_cannot_be_read_stays_unless_it_is_named(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    name = f"manifests/{ids[0]}"
    storage.put(name, storage.get(name)[:100], if_absent=False)
    repository = reopened(storage, tmp_path)

    plan = forget_by_policy(repository, LAST_ONE, verified=[], actor="tests", clock=CLOCK)

    assert plan.unreadable == (ids[0],)
    assert repository.snapshot_ids() == (ids[0], ids[3])
    named(repository, repository.find_id(ids[0][:26]))
    assert repository.snapshot_ids() == (ids[3],)


def test_an_older_copy_of_the_repository_is_not_written_to(
    storage: MemoryStorage, ids: list[SnapshotId], tmp_path: Path
) -> None:
    old = clone(storage)
    named(reopened(storage, tmp_path), ids[0])

    with pytest.raises(HistoryChanged):
        named(open_test_repository(old, tmp_path / "state"), ids[1])


def test_notes_of_what_was_verified_outlive_damage(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    note_verified(state, "aa", ["one"], now=CLOCK.now())
    note_verified(state, "aa", ["two"], now=CLOCK.now())

    assert set(read_verified(state, "aa")) == {"one", "two"}
    assert read_verified(state, "bb") == {}
    for path in state.heads.iterdir():
        path.write_bytes(b"[1,")
    assert read_verified(state, "aa") == {}
    note_verified(state, "aa", ["three"], now=CLOCK.now())
    assert set(read_verified(state, "aa")) == {"three"}
