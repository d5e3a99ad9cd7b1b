"""What keeps a repository from opening is mended, or it is said what is lost."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, Damaged, NotARepository, RepositoryError
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.rebuild import repair
from backup_admin.operations.reopen import mend_opening, plan_opening
from backup_admin.operations.results import SourceSet
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    CLOCK,
    OTHER_SECRET,
    SECRET,
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import Act, Fault, FaultyStorage, clone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.storage.base import Storage

COUNT = 4


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[MemoryStorage, Path]:
    """Return a storage with four snapshots and the state folder that saw them; do not change them."""
    root = tmp_path_factory.mktemp("site")
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    for number in range(COUNT):
        write_tree(root / "files", {f"{number}.jpg": noise(3000, number)})
        run_backup(open_test_repository(storage, root / "s"), file_sources(root / "files"), root / "s")
    return storage, root / "s"


@pytest.fixture
def storage(site: tuple[MemoryStorage, Path]) -> MemoryStorage:
    return clone(site[0])


@pytest.fixture
def state(site: tuple[MemoryStorage, Path], tmp_path: Path) -> StateFolder:
    """Return a state folder that has seen the repository."""
    open_test_repository(site[0], tmp_path / "seen")
    return StateFolder(tmp_path / "seen")


def reopen(storage: Storage, state: StateFolder, *, history: bool = True) -> list[str]:
    """Mend as the command does when opening fails."""
    try:
        open_test_repository(storage, state.root).require_history()
    except RepositoryError as error:
        opening = plan_opening(storage, [OTHER_SECRET, SECRET], error, state=state, clock=CLOCK)
        return mend_opening(storage, opening, history=history, state=state)
    raise AssertionError("It opens as it is.")


def mend(storage: Storage, state: StateFolder) -> bool:
    repository = open_test_repository(storage, state.root)
    return repair(
        repository, SourceSet(), actor="tests", state=state, reporter=QuietReporter(), clock=CLOCK
    ).ok


def problems(storage: Storage, folder: Path) -> tuple[str, ...]:
    repository = open_test_repository(storage, folder)
    return check_repository(repository, read_data=True, reporter=QuietReporter()).problems


def flip(storage: MemoryStorage, name: str, at: int) -> None:
    data = bytearray(storage.get(name))
    data[at] ^= 1
    storage.put(name, data, if_absent=False)


def entry(number: int) -> str:
    return f"chain/{number:020d}"


HARMS: dict[str, Callable[[MemoryStorage, str], object]] = {
    "delete": lambda storage, name: storage.delete(name),
    "flip": lambda storage, name: flip(storage, name, 70),
    "empty": lambda storage, name: storage.put(name, b"", if_absent=False),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_lost_config_is_made_again(
    storage: MemoryStorage, state: StateFolder, tmp_path: Path, harm: str
) -> None:
    HARMS[harm](storage, "config")

    done = reopen(storage, state)

    assert len(done) == 1
    assert problems(storage, tmp_path / "look") == ()
    assert set(verify_all(storage, tmp_path / "look")) == set(
        open_test_repository(storage, state.root).snapshot_ids()
    )


def test_every_flipped_byte_of_config_is_mended(
    storage: MemoryStorage, state: StateFolder, tmp_path: Path
) -> None:
    for at in range(0, len(storage.get("config")), 17):
        harmed = clone(storage)
        flip(harmed, "config", at)
        reopen(harmed, state)
        assert len(open_test_repository(harmed, tmp_path / str(at)).snapshot_ids()) == COUNT


def test_a_lost_config_stays_lost_where_nobody_has_seen_the_repository(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.delete("config")

    with pytest.raises(NotARepository, match="state folder of the machine that backed up"):
        reopen(storage, StateFolder(tmp_path / "fresh"))


def test_without_any_slot_nothing_can_be_mended_and_that_is_said(
    storage: MemoryStorage, state: StateFolder
) -> None:
    for info in list(storage.list_objects("keys/")):
        storage.delete(info.name)

    with pytest.raises(RepositoryError, match="No slot in memory opens with this key"):
        reopen(storage, state)


@pytest.mark.parametrize("harm", ["flip", "delete", "empty"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_lost_entry_costs_no_snapshot_when_it_is_known_which_it_committed(
    storage: MemoryStorage, state: StateFolder, tmp_path: Path, number: int, harm: str
) -> None:
    before = verify_all(storage, tmp_path / "before")
    HARMS[harm](storage, entry(number))

    done = reopen(storage, state)

    assert len(done) == 1
    assert mend(storage, state)
    after = verify_all(storage, tmp_path / "look")
    assert list(after) == list(before)
    assert all(report.ok for report in after.values())
    assert problems(storage, tmp_path / "look") == ()


def test_several_lost_entries_are_mended_together(
    storage: MemoryStorage, state: StateFolder, tmp_path: Path
) -> None:
    for number in (1, 3, 4):
        flip(storage, entry(number), 50)

    reopen(storage, state)

    assert mend(storage, state)
    assert len(verify_all(storage, tmp_path / "look")) == COUNT
    assert problems(storage, tmp_path / "look") == ()


def test_the_history_is_not_written_unless_that_is_asked_for(
    storage: MemoryStorage, state: StateFolder
) -> None:
    flip(storage, entry(2), 50)
    before = {info.name: storage.get(info.name) for info in storage.list_objects("")}

    with pytest.raises(Damaged, match="repair --history"):
        reopen(storage, state, history=False)

    assert {info.name: storage.get(info.name) for info in storage.list_objects("")} == before


def test_a_history_half_written_is_finished_by_the_next_call(
    storage: MemoryStorage, state: StateFolder, tmp_path: Path
) -> None:
    flip(storage, entry(1), 50)
    counting = FaultyStorage(clone(storage))
    reopen(counting, state)
    puts = counting.counts()["put"]

    for number in range(1, puts + 1):
        for act in (Act.FAIL, Act.LOSE_REPLY, Act.LIE):
            inner = clone(storage)
            faulty = FaultyStorage(inner, (Fault("put", number, act),))
            with suppress(BackupAdminError):
                reopen(faulty, state)
            folder = StateFolder(tmp_path / f"{number}-{act}")
            with suppress(AssertionError):  # where the fault did no harm
                reopen(inner, folder)
            assert mend(inner, folder)
            assert len(verify_all(inner, folder.root / "look")) == COUNT


def test_entries_that_were_replaced_are_kept_in_quarantine(
    storage: MemoryStorage, state: StateFolder
) -> None:
    flip(storage, entry(2), 50)
    before = {number: storage.get(entry(number)) for number in range(1, COUNT + 1)}

    reopen(storage, state)

    for number in (2, 3, 4):
        assert storage.get(f"quarantine/{entry(number)}") == before[number]
    assert storage.get(entry(1)) == before[1]
