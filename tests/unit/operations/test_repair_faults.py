"""Whatever ends a repair, the repository is no worse, and the next repair finishes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError, StorageUnavailable
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.rebuild import repair
from backup_admin.operations.results import SourceSet
from backup_admin.storage.memory import MemoryStorage
from tests.factories import (
    CLOCK,
    file_sources,
    make_storage,
    noise,
    open_test_repository,
    prose,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import Act, Fault, FaultyStorage, clone

if TYPE_CHECKING:
    from pathlib import Path

    from backup_admin.storage.base import Storage

SPREAD = 6
PUTS = ("put",)
CALLS = ("put", "get", "stat", "list")


@dataclass(frozen=True, slots=True)
class Harmed:
    """A damaged repository, what it had lost, and what a repair leaves lost."""

    storage: MemoryStorage
    before: dict[str, frozenset[str]]
    after: dict[str, frozenset[str]]
    calls: tuple[tuple[str, str], ...]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def harmed(tmp_path_factory: pytest.TempPathFactory) -> Harmed:
    """Return two snapshots with a rotten pack, a missing one, and a lost index object."""
    root = tmp_path_factory.mktemp("harmed")
    storage = make_storage()
    assert isinstance(storage, MemoryStorage)
    files = {f"{number}.jpg": noise(30_000, number) for number in range(5)} | {"a.txt": prose(5000)}
    sources = file_sources(write_tree(root / "files", files))
    run_backup(open_test_repository(storage, root / "s"), sources, root / "s")
    earlier = {info.name for info in storage.list_objects("index/")}
    # The two largest hold photographs; names are chance, and so is their order.
    packs = sorted(storage.list_objects("packs/"), key=lambda info: info.size)
    first, second = (info.name for info in packs[-2:])
    write_tree(root / "files", {"b.jpg": noise(30_000, 9), "b.txt": prose(3000, 9)})
    run_backup(open_test_repository(storage, root / "s"), sources, root / "s")
    data = bytearray(storage.get(first))
    data[1000] ^= 1
    storage.put(first, data, if_absent=False)
    storage.delete(second)
    (later,) = {info.name for info in storage.list_objects("index/")} - earlier
    storage.delete(later)
    trial = FaultyStorage(clone(storage))
    mend(trial, root / "trial")
    return Harmed(storage, losses(storage, root / "b"), losses(trial.inner, root / "a"), tuple(trial.calls))


def mend(storage: Storage, folder: Path) -> None:
    repair(
        open_test_repository(storage, folder),
        SourceSet(),
        actor="tests",
        state=StateFolder(folder),
        reporter=QuietReporter(),
        clock=CLOCK,
    )


def losses(storage: Storage, folder: Path) -> dict[str, frozenset[str]]:
    """Return what each snapshot lacks, by reading all of it."""
    reports = verify_all(storage, folder)
    return {
        name: frozenset(problem.partition(":")[0] for problem in report.problems)
        for name, report in reports.items()
    }


def assert_no_worse(harmed: Harmed, storage: MemoryStorage, folder: Path) -> None:
    now = losses(storage, folder / "now")
    assert now.keys() == harmed.before.keys()
    assert all(now[name] <= harmed.before[name] or now[name] == harmed.after[name] for name in now)
    before = {info.name for info in harmed.storage.list_objects("")}
    assert before <= {info.name for info in storage.list_objects("")}


def assert_next_finishes(harmed: Harmed, storage: MemoryStorage, folder: Path) -> None:
    mend(storage, folder)
    assert losses(storage, folder / "then") == harmed.after
    repository = open_test_repository(storage, folder / "then")
    report = check_repository(repository, read_data=True, reporter=QuietReporter())
    assert [problem for problem in report.problems if not problem.startswith("Snapshot")] == []


def test_the_damage_of_these_tests_is_partly_mended(harmed: Harmed) -> None:
    assert any(harmed.before[name] != harmed.after[name] for name in harmed.before)
    assert any(harmed.after.values())


def numbers(harmed: Harmed, method: str, spread: int) -> range:
    count = sum(1 for called, _ in harmed.calls if called == method)
    return range(1, count + 1, max(1, count // spread))


def attempt(harmed: Harmed, folder: Path, fault: Fault) -> None:
    inner = clone(harmed.storage)
    with suppress(BackupAdminError):
        mend(FaultyStorage(inner, (fault,)), folder / "a")
    assert_no_worse(harmed, inner, folder)
    assert_next_finishes(harmed, inner, folder / "a")


@pytest.mark.parametrize("act", [Act.FAIL, Act.LOSE_REPLY])
@pytest.mark.parametrize("method", CALLS)
def test_a_call_of_a_repair_may_fail_or_lose_its_reply(
    harmed: Harmed, tmp_path: Path, method: str, act: Act
) -> None:
    for number in numbers(harmed, method, SPREAD):
        attempt(harmed, tmp_path / str(number), Fault(method, number, act))


@pytest.mark.parametrize("act", [Act.TEAR, Act.LIE, Act.LIE_TORN])
def test_a_put_of_a_repair_may_happen_by_half_or_only_in_words(
    harmed: Harmed, tmp_path: Path, act: Act
) -> None:
    for number in numbers(harmed, "put", 20)[:-1]:
        attempt(harmed, tmp_path / str(number), Fault("put", number, act))


@pytest.mark.long
@pytest.mark.parametrize("act", [Act.FAIL, Act.LOSE_REPLY])
@pytest.mark.parametrize("method", CALLS)
def test_every_call_of_a_repair_may_fail_or_lose_its_reply(
    harmed: Harmed, tmp_path: Path, method: str, act: Act
) -> None:
    for number in numbers(harmed, method, 10_000):
        attempt(harmed, tmp_path / str(number), Fault(method, number, act))


def stop_at(harmed: Harmed, folder: Path, last: int) -> None:
    """Let nothing reach the storage after a number of calls, as when the process is killed."""
    inner = clone(harmed.storage)
    storage = FaultyStorage(inner)

    def stop(_method: str, _name: str) -> None:
        if len(storage.calls) > last:
            raise StorageUnavailable("The process was killed.")

    storage.before = stop
    with suppress(BackupAdminError):
        mend(storage, folder / "a")
    assert_no_worse(harmed, inner, folder)
    assert_next_finishes(harmed, inner, folder / "a")


def test_a_repair_may_be_cut_off_at_any_call(harmed: Harmed, tmp_path: Path) -> None:
    count = len(harmed.calls)
    for last in range(0, count, max(1, count // 25)):
        stop_at(harmed, tmp_path / str(last), last)


@pytest.mark.long
def test_a_repair_may_be_cut_off_at_every_call(harmed: Harmed, tmp_path: Path) -> None:
    for last in range(len(harmed.calls)):
        stop_at(harmed, tmp_path / str(last), last)
