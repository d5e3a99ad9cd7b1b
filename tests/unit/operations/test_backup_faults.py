"""Whatever a storage call of a backup does, earlier snapshots stay and the next run succeeds."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from backup_admin.core.errors import BackupAdminError
from backup_admin.core.state import StateFolder
from backup_admin.repository.chain import PREFIX as CHAIN
from backup_admin.storage.local import LocalStorage
from tests.factories import (
    Protected,
    change_tree,
    file_sources,
    make_storage,
    open_test_repository,
    protected_folder,
    run_backup,
    verify_all,
    write_tree,
)
from tests.fakes import METHODS, Act, Fault, FaultyStorage, clone

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from backup_admin.operations.results import BackupResult, SourceSet
    from backup_admin.storage.base import Storage

KILL_POINTS = 110


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sync nothing: what a killed process wrote is there all the same."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Protected:
    root = tmp_path_factory.mktemp("protected")
    return protected_folder(root / "files", root / "state")


def calls_of_a_backup(protected: Protected, folder: Path) -> list[tuple[str, str]]:
    storage = FaultyStorage(clone(protected.storage))
    repository = open_test_repository(storage, folder)
    storage.reset()
    run_backup(repository, protected.sources, folder)
    return storage.calls


def assert_all_sound(storage: Storage, folder: Path, snapshots: int) -> set[str]:
    reports = verify_all(storage, folder)
    assert {name: report.problems for name, report in reports.items() if report.problems} == {}
    assert len(reports) == snapshots
    assert all(report.files == 20 for report in list(reports.values())[1:])
    return set(reports)


@dataclass(frozen=True)
class Trial:
    """One backup with a fault, and what came of it."""

    storage: Storage
    result: BackupResult | None

    @property
    def snapshots(self) -> int:
        """Return how many snapshots there must be: one before, perhaps one more."""
        return 1 if self.result is None else 2


def attempt(protected: Protected, folder: Path, *faults: Fault) -> Trial:
    """Back up with faults; whatever happened, check everything, back up again, and check again."""
    inner = clone(protected.storage)
    storage = FaultyStorage(inner)
    repository = open_test_repository(storage, folder / "state")
    storage.reset(*faults)
    result = None
    with suppress(BackupAdminError):
        result = run_backup(repository, protected.sources, folder / "state")
    count = len(open_test_repository(inner, folder / "look").snapshot_ids())
    assert count >= (1 if result is None else 2)
    names = assert_all_sound(inner, folder / "look", count)
    assert protected.first in names
    storage.reset()
    again = run_backup(repository, protected.sources, folder / "state")
    names = assert_all_sound(inner, folder / "look", count + 1)
    assert again.snapshot.id in names
    return Trial(inner, result)


@pytest.mark.parametrize("act", [Act.FAIL, Act.LOSE_REPLY])
@pytest.mark.parametrize("method", METHODS)
def test_each_storage_call_of_a_backup_may_fail_or_lose_its_reply(
    protected: Protected, tmp_path: Path, method: str, act: Act
) -> None:
    calls = [name for name in calls_of_a_backup(protected, tmp_path / "dry") if name[0] == method]

    for number in range(1, len(calls) + 1):
        attempt(protected, tmp_path / str(number), Fault(method, number, act))


@pytest.mark.parametrize("act", [Act.TEAR, Act.LIE, Act.LIE_TORN])
def test_a_put_that_happens_by_half_or_only_in_words_never_becomes_a_snapshot(
    protected: Protected, tmp_path: Path, act: Act
) -> None:
    names = [name for method, name in calls_of_a_backup(protected, tmp_path / "dry") if method == "put"]
    assert names[-1].startswith(CHAIN)

    for number in range(1, len(names)):
        trial = attempt(protected, tmp_path / str(number), Fault("put", number, act))
        assert trial.result is None


def test_a_storage_that_only_claims_to_store_fails_the_backup_before_the_commit(
    protected: Protected, tmp_path: Path
) -> None:
    inner = clone(protected.storage)
    storage = FaultyStorage(inner)
    repository = open_test_repository(storage, tmp_path)
    storage.reset(*(Fault("put", number, Act.LIE) for number in range(1, 100)))

    with pytest.raises(BackupAdminError):
        run_backup(repository, protected.sources, tmp_path)

    assert not any(method == "put" and name.startswith(CHAIN) for method, name in storage.calls)


def test_a_commit_that_a_storage_only_claims_to_have_is_no_success(
    protected: Protected, tmp_path: Path
) -> None:
    names = [name for method, name in calls_of_a_backup(protected, tmp_path / "dry") if method == "put"]

    trial = attempt(protected, tmp_path / "run", Fault("put", len(names), Act.LIE))

    assert trial.result is None


def test_a_commit_whose_reply_is_lost_is_a_success(protected: Protected, tmp_path: Path) -> None:
    names = [name for method, name in calls_of_a_backup(protected, tmp_path / "dry") if method == "put"]

    for act in (Act.LOSE_REPLY, Act.DENY):
        trial = attempt(protected, tmp_path / act, Fault("put", len(names), act))
        assert trial.result is not None


def test_reading_back_half_of_a_pack_fails_the_backup(protected: Protected, tmp_path: Path) -> None:
    calls = [name for method, name in calls_of_a_backup(protected, tmp_path / "dry") if method == "get"]
    numbers = [number for number, name in enumerate(calls, 1) if name.startswith("packs/")]

    trial = attempt(protected, tmp_path / "run", Fault("get", numbers[-1], Act.LIE_TORN))

    assert trial.result is None


# --- kills -------------------------------------------------------------------


@dataclass(frozen=True)
class Base:
    """A repository in a folder with one snapshot, and work for a second."""

    objects: Path
    state: Path
    sources: SourceSet


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    storage = LocalStorage(root / "objects")
    make_storage(storage)
    sources = file_sources(write_tree(root / "files"))
    run_backup(open_test_repository(storage, root / "state"), sources, root / "state")
    change_tree(root / "files")
    return Base(root / "objects", root / "state", sources)


class _Points:
    """Counts places where a process may die; kills it at the chosen one."""

    def __init__(self, fatal: int) -> None:
        self.fatal = fatal
        self.seen = 0

    def point(self, *_: str) -> None:
        self.seen += 1
        if self.seen == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **more: object) -> object:
            self.point()
            result = call(*arguments, **more)
            self.point()
            return result

        return counted


def _backup_in_child(base: Base, folder: Path, fatal: int, report: int) -> None:
    """Back up, die at the chosen point, or report how many points there were."""
    points = _Points(fatal)
    for name in ("fsync", "link", "write", "mkdir", "unlink"):
        setattr(os, name, points.around(getattr(os, name)))
    storage = FaultyStorage(LocalStorage(folder / "objects"), before=points.point, after=points.point)
    repository = open_test_repository(storage, folder / "state")
    run_backup(repository, base.sources, folder / "state")
    seen = points.seen
    os.pwrite(report, str(seen).encode(), 0)


def _run_child(base: Base, folder: Path, fatal: int) -> tuple[bool, int]:
    """Return whether the child was killed, and the number of points it passed otherwise."""
    shutil.copytree(base.objects, folder / "objects")
    shutil.copytree(base.state, folder / "state")
    report = os.open(folder / "report", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _backup_in_child(base, folder, fatal, report)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    text = os.pread(report, 20, 0)
    os.close(report)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0
    return killed, int(text or b"0")


def test_a_backup_killed_anywhere_harms_nothing_and_the_next_succeeds(base: Base, tmp_path: Path) -> None:
    _, total = _run_child(base, tmp_path / "dry", 0)
    assert total > KILL_POINTS
    killed = 0

    for number in range(KILL_POINTS):
        folder = tmp_path / str(number)
        died, _ = _run_child(base, folder, 1 + number * total // KILL_POINTS)
        killed += died
        storage = LocalStorage(folder / "objects")
        count = len(open_test_repository(storage, folder / "look").snapshot_ids())
        assert count in (1, 2)
        assert_all_sound(storage, folder / "look", count)
        run_backup(open_test_repository(storage, folder / "state"), base.sources, folder / "state")
        assert_all_sound(storage, folder / "look", count + 1)
        shutil.rmtree(folder)

    assert killed >= KILL_POINTS - 5


def test_copies_that_a_killed_backup_left_are_removed_by_the_next(tmp_path: Path) -> None:
    protected = protected_folder(tmp_path / "files", tmp_path / "state")
    scratch = StateFolder(tmp_path / "state").scratch
    left = scratch / "backup-killed"
    left.mkdir()
    (left / "copy.db").write_bytes(b"rows that nobody should find here")
    other = scratch / "plan-at-work"
    other.mkdir()
    forgotten = scratch / "verify-killed"
    forgotten.mkdir()
    os.utime(forgotten, (0, 0))

    run_backup(
        open_test_repository(protected.storage, tmp_path / "state"), protected.sources, tmp_path / "state"
    )

    assert list(scratch.iterdir()) == [other]
