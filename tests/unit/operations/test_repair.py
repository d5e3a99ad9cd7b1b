"""A repair saves what can be saved, deletes nothing, and says what stays damaged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import HistoryChanged
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.rebuild import RepairReport, repair
from backup_admin.operations.repair import Finder, RepairPlan
from backup_admin.operations.results import SourceSet
from backup_admin.repository.packs import pack_name
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    CLOCK,
    change_tree,
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import FaultyStorage, clone

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

NOTHING = SourceSet()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


class Site:
    """A storage with two snapshots, and the folder as it is in the second."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = write_tree(root / "files")
        made = make_storage()
        assert isinstance(made, MemoryStorage)
        self.storage = made
        for turn in range(2):
            run_backup(open_test_repository(self.storage, root / "s"), file_sources(self.files), root / "s")
            if turn == 0:
                change_tree(self.files)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Return a site; do not change it."""
    return Site(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def storage(sound: Site) -> MemoryStorage:
    return clone(sound.storage)


def mend(storage: Storage, folder: Path, sources: SourceSet = NOTHING) -> RepairReport:
    return repair(
        open_test_repository(storage, folder),
        sources,
        actor="tests",
        state=StateFolder(folder),
        reporter=QuietReporter(),
        clock=CLOCK,
    )


def look(storage: Storage, folder: Path) -> RepairPlan:
    state = StateFolder(folder)
    return Finder(open_test_repository(storage, folder), state.scratch, QuietReporter()).find()


def problems(storage: Storage, folder: Path) -> tuple[str, ...]:
    report = check_repository(open_test_repository(storage, folder), read_data=True, reporter=QuietReporter())
    return report.problems


def damaged_files(storage: Storage, folder: Path) -> dict[str, int]:
    return {name: len(report.problems) for name, report in verify_all(storage, folder).items()}


def names(storage: MemoryStorage, prefix: str = "") -> list[str]:
    return [info.name for info in storage.list_objects(prefix)]


def flip(storage: MemoryStorage, name: str, at: int) -> None:
    data = bytearray(storage.get(name))
    data[at] ^= 1
    storage.put(name, data, if_absent=False)


def place_of(storage: MemoryStorage, folder: Path, path: bytes) -> tuple[str, int]:
    """Return the pack and the offset of the frame with the beginning of a file."""
    repository = open_test_repository(storage, folder)
    (root,) = repository.manifest(repository.snapshot_ids()[0]).files
    entry = next(entry for entry in repository.entries(root) if entry.path == path)
    assert entry.content is not None
    place = repository.index().find(entry.content.chunks[0].id)
    assert place is not None
    return pack_name(place.pack.name), place.frame_offset


def test_nothing_is_done_to_a_sound_repository(storage: MemoryStorage, tmp_path: Path) -> None:
    before = {name: storage.get(name) for name in names(storage)}

    report = mend(storage, tmp_path)

    assert (report.done, report.ok) == ((), True)
    assert {name: storage.get(name) for name in names(storage)} == before


def test_looking_writes_nothing(storage: MemoryStorage, tmp_path: Path) -> None:
    for name in names(storage, "packs/")[:2]:
        flip(storage, name, 2000)
    storage.delete(names(storage, "index/")[0])
    before = {name: storage.get(name) for name in names(storage)}

    plan = look(storage, tmp_path)

    assert plan.is_needed
    assert {name: storage.get(name) for name in names(storage)} == before


def test_nothing_is_ever_deleted_or_changed(storage: MemoryStorage, tmp_path: Path) -> None:
    for name in names(storage, "packs/")[:2]:
        flip(storage, name, 2000)
    flip(storage, names(storage, "index/")[0], 60)
    before = {name: storage.get(name) for name in names(storage)}

    mend(storage, tmp_path)

    assert {name: storage.get(name) for name in before} == before


@pytest.mark.parametrize("harm", ["delete", "flip"])
@pytest.mark.parametrize("which", [[0], [1], [0, 1]])
def test_lost_index_objects_are_made_again_from_the_packs(
    storage: MemoryStorage, tmp_path: Path, harm: str, which: list[int]
) -> None:
    lost = [names(storage, "index/")[number] for number in which]
    for name in lost:
        if harm == "delete":
            storage.delete(name)
        else:
            flip(storage, name, 100)

    report = mend(storage, tmp_path / "a")

    assert set(report.found.lost_indexes) == set(lost)
    assert report.ok
    assert problems(storage, tmp_path / "b") == ()
    assert set(damaged_files(storage, tmp_path / "b").values()) == {0}
    assert names(storage, "quarantine/") == (
        [] if harm == "delete" else [f"quarantine/{name}" for name in lost]
    )


def test_every_sound_chunk_of_a_damaged_pack_is_saved(storage: MemoryStorage, tmp_path: Path) -> None:
    name, at = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, at)
    before = damaged_files(storage, tmp_path / "b")

    report = mend(storage, tmp_path / "a")

    assert not report.ok
    assert list(before.values()) == [1, 1]
    assert damaged_files(storage, tmp_path / "c") == before
    assert {loss.what for losses in report.left.damaged.values() for loss in losses.named} == {
        "uploads: media/photo.jpg"
    }
    assert storage.get(f"quarantine/{name}") == storage.get(name)
    assert not [text for text in problems(storage, tmp_path / "c") if not text.startswith("Snapshot")]


@pytest.mark.parametrize("at", [2, 30, -3, -5000])
def test_a_pack_damaged_in_its_header_or_contents_loses_nothing(
    storage: MemoryStorage, tmp_path: Path, at: int
) -> None:
    for name in names(storage, "packs/"):
        harmed = clone(storage)
        data = bytearray(harmed.get(name))
        if at == -5000:
            harmed.put(name, data[:-1], if_absent=False)
        else:
            flip(harmed, name, at if at >= 0 else len(data) + at)

        report = mend(harmed, tmp_path / name)

        assert len(report.found.bad) == 1
        assert report.ok
        assert problems(harmed, tmp_path / name / "look") == ()


def test_a_missing_pack_goes_off_the_books_and_its_snapshots_are_named(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    storage.delete(name)

    report = mend(storage, tmp_path / "a")

    assert not report.ok
    repository = open_test_repository(storage, tmp_path / "b")
    assert repository.history.damaged == set(report.left.damaged)
    assert len(repository.snapshot_ids()) == 2
    assert repository.missing_packs() == ()
    again = mend(storage, tmp_path / "b")
    assert (again.done, again.left.damaged.keys()) == ((), report.left.damaged.keys())


def test_what_the_sources_still_have_is_stored_again_and_heals_older_snapshots(
    storage: MemoryStorage, sound: Site, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    storage.delete(name)

    report = mend(storage, tmp_path / "a", file_sources(sound.files))

    assert report.snapshot
    assert report.ok
    assert problems(storage, tmp_path / "b") == ()
    assert list(damaged_files(storage, tmp_path / "b").values()) == [0, 0, 0]


def test_a_backup_after_a_repair_refers_to_nothing_that_was_lost(
    storage: MemoryStorage, sound: Site, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    storage.delete(name)
    report = mend(storage, tmp_path / "a")

    made = run_backup(
        open_test_repository(storage, tmp_path / "c"), file_sources(sound.files), tmp_path / "c"
    )

    assert made.snapshot.id not in report.left.damaged
    assert damaged_files(storage, tmp_path / "b")[made.snapshot.id] == 0


def test_later_backups_do_not_read_everything_again(
    storage: MemoryStorage, sound: Site, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    storage.delete(name)
    mend(storage, tmp_path / "a")
    run_backup(open_test_repository(storage, tmp_path / "c"), file_sources(sound.files), tmp_path / "c")

    made = run_backup(
        open_test_repository(storage, tmp_path / "c"), file_sources(sound.files), tmp_path / "c"
    )

    assert made.snapshot.parent == open_test_repository(storage, tmp_path / "c").snapshot_ids()[-2]
    assert not [text for text in made.notices if "read again" in text]
    assert made.new_bytes < 20_000


def test_packs_that_come_back_after_a_repair_are_used_again(storage: MemoryStorage, tmp_path: Path) -> None:
    away = {name: storage.get(name) for name in names(storage, "packs/")[::2]}
    for name in away:
        storage.delete(name)
    assert not mend(storage, tmp_path / "a").ok
    for name, data in away.items():
        storage.put(name, data)

    report = mend(storage, tmp_path / "a")

    assert len(report.found.returned) > 0
    assert report.ok
    assert problems(storage, tmp_path / "b") == ()
    assert open_test_repository(storage, tmp_path / "b").history.damaged == set()


def test_a_damaged_manifest_stays_in_its_place_and_the_others_are_whole(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    first, second = names(storage, "manifests/")
    flip(storage, first, 200)

    report = mend(storage, tmp_path)

    assert list(report.left.damaged) == [first.removeprefix("manifests/")]
    repository = open_test_repository(storage, tmp_path)
    assert len(repository.snapshot_ids()) == 2
    assert repository.history.damaged == {first.removeprefix("manifests/")}
    assert second in names(storage)


def test_an_index_object_and_a_pack_it_lists_may_both_be_damaged(
    storage: MemoryStorage, sound: Site, tmp_path: Path
) -> None:
    name, at = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, at)
    for index in names(storage, "index/"):
        storage.delete(index)

    report = mend(storage, tmp_path / "a", file_sources(sound.files))

    assert report.ok
    assert problems(storage, tmp_path / "b") == ()


def test_a_repository_that_lost_its_newest_entries_is_not_repaired(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    mend(storage, tmp_path)
    storage.delete(names(storage, "chain/")[-1])
    before = names(storage)

    with pytest.raises(HistoryChanged):
        mend(storage, tmp_path)

    assert names(storage) == before


def test_a_snapshot_made_while_a_repair_prepares_is_taken_into_account(
    storage: MemoryStorage, sound: Site, tmp_path: Path
) -> None:
    name, _ = place_of(storage, tmp_path, b"media/photo.jpg")
    flip(storage, name, 3000)
    write_tree(tmp_path / "other", {"a.jpg": noise(9000)})
    faulty = FaultyStorage(storage)
    done: list[str] = []

    def commit_between(method: str, put: str) -> None:
        if method == "put" and put.startswith("chain/") and not done:
            done.append(put)
            folder = tmp_path / "w"
            run_backup(open_test_repository(storage, folder), file_sources(tmp_path / "other"), folder)

    faulty.before = commit_between

    mend(faulty, tmp_path / "a", file_sources(sound.files))

    assert done
    assert problems(storage, tmp_path / "b") == ()
    assert len(open_test_repository(storage, tmp_path / "b").snapshot_ids()) == 4
