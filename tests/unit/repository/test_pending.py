"""What a killed run stored is taken over by the next, whole or not at all."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import StorageError
from backup_admin.repository.pending import PendingPacks, whole_packs
from backup_admin.storage.local import LocalStorage
from tests.factories import (
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import Act, Fault, FaultyStorage

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.operations.results import SourceSet

NAMES = [bytes([number]) * 32 for number in range(3)]
FILES = 40
FILE_BYTES = 50_000


@pytest.fixture
def sources(tmp_path: Path) -> SourceSet:
    files = {f"{number:02d}.jpg": b"\xff\xd8\xff" + noise(FILE_BYTES, number) for number in range(FILES)}
    return file_sources(write_tree(tmp_path / "files", files))


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "objects")
    make_storage(made)
    return made


def notes(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "state/cache").glob("*/pending")
    return path


def pack_bytes(storage: LocalStorage) -> int:
    return sum(info.size for info in storage.list_objects("packs/"))


def kill_after_packs(storage: LocalStorage, sources: SourceSet, state: Path, count: int) -> None:
    """Run a backup in a child that is killed once so many packs were stored."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    stored: list[str] = []

    def kill(method: str, name: str) -> None:
        if method == "put" and name.startswith("packs/"):
            stored.append(name)
        if len(stored) == count:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        run_backup(open_test_repository(FaultyStorage(storage, after=kill), state), sources, state)
    finally:
        os._exit(1)


def test_a_run_after_a_killed_one_stores_only_the_rest(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    kill_after_packs(storage, sources, state, 20)
    left = pack_bytes(storage)
    seen = FaultyStorage(storage)

    result = run_backup(open_test_repository(seen, state), sources, state)

    total = FILES * FILE_BYTES
    assert left > total // 3
    assert result.new_bytes < total - left + 200_000
    assert pack_bytes(storage) < total + 300_000
    (report,) = verify_all(storage, tmp_path / "fresh").values()
    assert (report.files, report.problems) == (FILES, ())
    assert result.evidence.objects_read >= 20
    assert not list((state / "cache").glob("*/pending"))


def test_without_the_notes_everything_is_stored_again(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    kill_after_packs(storage, sources, tmp_path / "state", 20)
    notes(tmp_path).unlink()

    result = run_backup(open_test_repository(storage, tmp_path / "state"), sources, tmp_path / "state")

    assert result.new_bytes > FILES * FILE_BYTES


def test_packs_left_behind_that_are_gone_or_damaged_are_stored_anew(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    kill_after_packs(storage, sources, tmp_path / "state", 20)
    left = [info.name for info in storage.list_objects("packs/")]
    storage.delete(left[0])
    for name, harm in zip(left[1:4], (b"", b"short", bytes(70_000)), strict=True):
        storage.put(name, harm, if_absent=False)
    flipped = bytearray(storage.get(left[4]))
    flipped[1000] ^= 1
    storage.put(left[4], flipped, if_absent=False)

    run_backup(open_test_repository(storage, tmp_path / "state"), sources, tmp_path / "state")

    (report,) = verify_all(storage, tmp_path / "fresh").values()
    assert (report.files, report.problems) == (FILES, ())
    used = open_test_repository(storage, tmp_path / "fresh").index().packs()
    assert not {f"packs/{p.name.hex()[:2]}/{p.name.hex()}" for p in used} & set(left[:5])


def test_collected_packs_are_never_taken_over(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    kill_after_packs(storage, sources, tmp_path / "state", 20)
    left = [info.name.rpartition("/")[2] for info in storage.list_objects("packs/")]
    collector = open_test_repository(storage, tmp_path / "collector")
    collector.record("gc-delete", {"packs": left}, actor="collector")

    repository = open_test_repository(storage, tmp_path / "state")

    assert len(left) == 20
    assert repository.new_store().new_packs == []
    run_backup(repository, sources, tmp_path / "state")
    for name in left:
        storage.delete(f"packs/{name[:2]}/{name}")
    (report,) = verify_all(storage, tmp_path / "fresh").values()
    assert (report.files, report.problems) == (FILES, ())


def test_a_run_that_failed_in_the_same_process_leaves_its_packs_to_the_next(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    faulty = FaultyStorage(storage)
    repository = open_test_repository(faulty, tmp_path / "state")
    faulty.reset(Fault("put", 25, Act.FAIL))
    with pytest.raises(StorageError):
        run_backup(repository, sources, tmp_path / "state")
    left = pack_bytes(storage)

    result = run_backup(repository, sources, tmp_path / "state")

    assert result.new_bytes < FILES * FILE_BYTES - left + 300_000
    (report,) = verify_all(storage, tmp_path / "fresh").values()
    assert (report.files, report.problems) == (FILES, ())


def test_nothing_is_listed_to_find_what_was_left(
    storage: LocalStorage, sources: SourceSet, tmp_path: Path
) -> None:
    kill_after_packs(storage, sources, tmp_path / "state", 5)
    repository = open_test_repository(FaultyStorage(storage), tmp_path / "state")
    seen = repository.storage
    assert isinstance(seen, FaultyStorage)
    seen.reset()

    repository.new_store()

    assert seen.counts()["list"] == 0
    assert seen.counts()["put"] == 1


def test_notes_survive_a_line_cut_short_anywhere(tmp_path: Path) -> None:
    pending = PendingPacks(tmp_path, 0)
    for name in NAMES[:2]:
        pending.note(name)
    whole = (tmp_path / "pending").read_bytes()

    for size in range(len(whole) + 1):
        (tmp_path / "pending").write_bytes(whole[:size])
        pending.note(NAMES[2])
        found = pending.names()
        assert found[-1] == NAMES[2]
        assert set(found) <= set(NAMES)


@pytest.mark.parametrize("seed", range(20))
def test_notes_that_are_rubbish_name_nothing(tmp_path: Path, seed: int) -> None:
    (tmp_path / "pending").write_bytes(random.Random(seed).randbytes(5000))

    assert PendingPacks(tmp_path, 0).names() == ()


def test_a_note_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    pending = PendingPacks(tmp_path / "not there", 0)

    pending.note(NAMES[0])
    pending.clear()

    assert pending.names() == ()


def test_a_storage_that_cannot_be_reached_is_not_taken_for_one_without_packs(
    storage: LocalStorage, tmp_path: Path
) -> None:
    repository = open_test_repository(storage, tmp_path / "state")
    gone = LocalStorage(tmp_path / "unmounted")

    with pytest.raises(StorageError, match="is not there"):
        list(whole_packs(gone, repository.keys, NAMES))
