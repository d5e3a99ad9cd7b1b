"""A check names every damage and what it affects, and calls nothing damaged that is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from backup_admin.core.progress import QuietReporter
from backup_admin.operations.check import check_repository
from backup_admin.repository.packs import pack_name
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    change_tree,
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    run_backup,
    write_tree,
)
from tests.fakes import FaultyStorage, clone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.operations.results import CheckReport


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> MemoryStorage:
    """Return a storage with two snapshots; do not change it."""
    root = tmp_path_factory.mktemp("sound")
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    sources = file_sources(write_tree(root / "files"))
    for _ in range(2):
        run_backup(open_test_repository(storage, root / "state"), sources, root / "state")
        if (root / "files/small/03.txt").exists():
            change_tree(root / "files")
    return storage


@pytest.fixture
def storage(sound: MemoryStorage) -> MemoryStorage:
    return clone(sound)


def check(storage: MemoryStorage, state: Path, *, read_data: bool = True) -> CheckReport:
    return check_repository(
        open_test_repository(storage, state), read_data=read_data, reporter=QuietReporter()
    )


def names(storage: MemoryStorage, prefix: str) -> list[str]:
    return [info.name for info in storage.list_objects(prefix)]


def flip(storage: MemoryStorage, name: str, at: int) -> None:
    data = bytearray(storage.get(name))
    data[at] ^= 1
    storage.put(name, data, if_absent=False)


@pytest.mark.parametrize("read_data", [False, True])
def test_a_sound_repository_has_no_problems(storage: MemoryStorage, tmp_path: Path, read_data: bool) -> None:
    report = check(storage, tmp_path, read_data=read_data)

    assert (report.problems, report.notices, report.snapshots) == ((), (), 2)
    assert report.ok
    assert report.read_data is read_data
    packs = sum(len(storage.get(name)) for name in names(storage, "packs/"))
    assert (report.bytes_read > packs) is read_data


def test_the_objects_that_were_looked_at_are_counted(storage: MemoryStorage, tmp_path: Path) -> None:
    everything = len(names(storage, "")) - 1  # all but the configuration, which opening proves

    assert check(storage, tmp_path).objects == everything


def test_a_flipped_bit_in_any_pack_is_found_with_the_files_it_affects(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    for number, name in enumerate(names(storage, "packs/")):
        harmed = clone(storage)
        flip(harmed, name, 2000)

        report = check(harmed, tmp_path / str(number))

        assert f"{name} is damaged" in report.problems[0]
        assert len(report.problems) > 1
        assert not report.ok


def test_a_quick_check_misses_rot_and_says_that_it_read_no_data(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    repository = open_test_repository(storage, tmp_path)
    (root,) = repository.manifest(repository.snapshot_ids()[0]).files
    photo = next(entry for entry in repository.entries(root) if entry.path == b"media/photo.jpg")
    assert photo.content is not None
    place = repository.index().find(photo.content.chunks[0].id)
    assert place is not None
    flip(storage, pack_name(place.pack.name), place.frame_offset)

    report = check(storage, tmp_path, read_data=False)

    assert (report.ok, report.read_data) == (True, False)


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize(
    "harm",
    [
        lambda storage, name: storage.delete(name),
        lambda storage, name: storage.put(name, storage.get(name)[:400], if_absent=False),
        lambda storage, name: storage.put(name, b"", if_absent=False),
    ],
    ids=["missing", "cut", "empty"],
)
def test_a_pack_that_is_missing_or_cut_is_found_without_reading(
    storage: MemoryStorage,
    tmp_path: Path,
    harm: Callable[[MemoryStorage, str], None],
    read_data: bool,
) -> None:
    name = names(storage, "packs/")[0]
    harm(storage, name)

    report = check(storage, tmp_path, read_data=read_data)

    assert report.damage[0].message == f"{name} is missing from the storage or cut short."
    assert report.damage[0].files


@pytest.mark.parametrize("harm", ["delete", "flip"])
def test_an_index_object_that_is_gone_or_damaged_is_a_problem_not_the_end(
    storage: MemoryStorage, tmp_path: Path, harm: str
) -> None:
    name = names(storage, "index/")[0]
    if harm == "delete":
        storage.delete(name)
    else:
        flip(storage, name, 100)

    report = check(storage, tmp_path)

    assert any(name in problem for problem in report.problems)
    assert any("Snapshot" in problem for problem in report.problems)


@pytest.mark.parametrize("harm", ["delete", "flip", "swap"])
def test_a_manifest_that_is_not_what_was_committed_is_named(
    storage: MemoryStorage, tmp_path: Path, harm: str
) -> None:
    first, second = names(storage, "manifests/")
    if harm == "delete":
        storage.delete(first)
    elif harm == "flip":
        flip(storage, first, 200)
    else:
        storage.put(first, storage.get(second), if_absent=False)

    report = check(storage, tmp_path)

    assert [problem for problem in report.problems if first.rpartition("/")[2] in problem]
    assert not [problem for problem in report.problems if second.rpartition("/")[2] in problem]


def test_a_damaged_slot_is_named(storage: MemoryStorage, tmp_path: Path) -> None:
    storage.put("keys/0000000000000000", b"rubbish")

    assert any("0000000000000000" in problem for problem in check(storage, tmp_path).problems)


def test_a_pack_that_nobody_names_is_a_notice(storage: MemoryStorage, tmp_path: Path) -> None:
    storage.put("packs/00/" + "0" * 64, b"left by a killed run")

    report = check(storage, tmp_path)

    assert report.ok
    assert "Packs that belong to no snapshot: 1." in report.notices[0]


def test_a_history_that_was_cut_is_a_problem(storage: MemoryStorage, tmp_path: Path) -> None:
    check(storage, tmp_path)
    storage.delete(names(storage, "chain/")[-1])

    assert "ends at entry 1, but 2 was seen" in check(storage, tmp_path).problems[0]


def test_a_lost_pack_whose_content_was_stored_anew_affects_no_snapshot(
    storage: MemoryStorage, tmp_path: Path, sound: MemoryStorage
) -> None:
    tree = write_tree(tmp_path / "files")
    fresh = make_storage()
    assert isinstance(fresh, MemoryStorage)
    run_backup(open_test_repository(fresh, tmp_path / "state"), file_sources(tree), tmp_path / "state")
    for name in names(fresh, "packs/"):
        fresh.delete(name)
    run_backup(open_test_repository(fresh, tmp_path / "state"), file_sources(tree), tmp_path / "state")

    report = check(fresh, tmp_path / "state")

    assert not [problem for problem in report.problems if problem.startswith("Snapshot")]
    assert all("No snapshot lacks anything by it." in problem for problem in report.problems)
    assert report.problems


def place_of(storage: MemoryStorage, state: Path, path: bytes) -> tuple[str, int]:
    """Return the pack and the offset of the frame that holds the beginning of a file."""
    repository = open_test_repository(storage, state)
    (root,) = repository.manifest(repository.snapshot_ids()[-1]).files
    entry = next(entry for entry in repository.entries(root) if entry.path == path)
    assert entry.content is not None
    place = repository.index().find(entry.content.chunks[0].id)
    assert place is not None
    return pack_name(place.pack.name), place.frame_offset


def test_only_what_cannot_be_read_counts_as_lost_in_a_damaged_pack(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    name, at = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, at)

    report = check(storage, tmp_path)

    assert [(damage.name, damage.files, damage.more_files) for damage in report.damage] == [
        (name, ("uploads: media/photo.jpg",), 0)
    ]


def test_damage_in_a_part_that_snapshots_share_is_named_for_each(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    name, at = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, at)
    ids = open_test_repository(storage, tmp_path).snapshot_ids()

    report = check(storage, tmp_path)

    assert set(report.damage[0].snapshots) == set(ids)
    for snapshot_id in ids:
        assert f"Snapshot {snapshot_id}: uploads: media/photo.jpg lacks 1 of its pieces." in report.problems
    assert f"It affects 2 snapshots ({ids[1]}, {ids[0]}): uploads: media/photo.jpg." in report.problems[0]


def test_damage_to_the_table_of_contents_alone_affects_no_file(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, len(storage.get(name)) - 1)

    report = check(storage, tmp_path)

    assert [problem for problem in report.problems if "No snapshot lacks anything by it." in problem]
    assert len(report.problems) == 1


def test_many_damaged_files_are_named_in_part_and_counted_whole(tmp_path: Path) -> None:
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    files = {f"{number:03d}.jpg": noise(2000, number) for number in range(100)}
    sources = file_sources(write_tree(tmp_path / "files", files))
    run_backup(open_test_repository(storage, tmp_path), sources, tmp_path)
    index = open_test_repository(storage, tmp_path).index()
    (root,) = (
        open_test_repository(storage, tmp_path)
        .manifest(open_test_repository(storage, tmp_path).snapshot_ids()[0])
        .files
    )
    kept = {place.pack.name for ref in root.shard_lists if (place := index.find(ref.id))}
    for name in names(storage, "packs/"):
        if bytes.fromhex(name[-64:]) not in kept:
            storage.delete(name)

    report = check(storage, tmp_path)

    lost = [problem for problem in report.problems if problem.startswith("Snapshot")]
    assert len(lost) == 21
    assert "more things, not named here, not whole" in lost[-1]
    named = sum(len(damage.files) + damage.more_files for damage in report.damage)
    assert named == 20 + int(lost[-1].split(" more")[0].split()[-1].replace(",", ""))
    assert all(len(damage.files) <= 20 for damage in report.damage)


def test_each_shard_is_read_once_however_many_snapshots_share_it(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    faulty = FaultyStorage(storage)
    sources = file_sources(write_tree(tmp_path / "files"))
    run_backup(open_test_repository(storage, tmp_path / "s"), sources, tmp_path / "s")
    check_repository(open_test_repository(faulty, tmp_path / "a"), read_data=False, reporter=QuietReporter())
    once = sum(name.startswith("packs/") for method, name in faulty.calls if method == "get")
    for _ in range(3):
        run_backup(open_test_repository(storage, tmp_path / "s"), sources, tmp_path / "s")
    faulty.reset()
    check_repository(open_test_repository(faulty, tmp_path / "b"), read_data=False, reporter=QuietReporter())

    assert sum(name.startswith("packs/") for method, name in faulty.calls if method == "get") <= once + 3
