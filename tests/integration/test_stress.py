"""Writers and collectors at once over a storage that fails: no snapshot ever lacks a byte.

Each process notes what it is going to store before it does. At the end every snapshot
that is there is restored and compared with those notes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import pytest

from backup_admin.core.clock import SystemClock
from backup_admin.core.errors import BackupAdminError, StorageError
from backup_admin.core.progress import QuietReporter
from backup_admin.core.state import StateFolder
from backup_admin.operations.check import check_repository
from backup_admin.operations.extract import extract
from backup_admin.operations.prune import PruneOptions, prune
from backup_admin.operations.results import SourceSet
from backup_admin.sources.files import FileSource
from backup_admin.storage.local import LocalStorage
from tests.factories import make_storage, noise, open_test_repository, prose, run_backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.process import BaseProcess
    from pathlib import Path

    from backup_admin.storage.base import Buffer, ObjectInfo, PutResult, Storage

T = TypeVar("T")
WRITERS, COLLECTORS = 3, 2
SECONDS = float(os.environ.get("BACKUP_ADMIN_TEST_STRESS_SECONDS", "30"))
POOL = [noise(3_000 + 900 * n, seed=n) if n % 2 else prose(5_000 + 1_500 * n, seed=n) for n in range(30)]


class UnsureStorage:
    """Fails now and then, before or after it did what it was told; may go dead for good.

    Every third one does not fail. Each call of the others may, so a prune of thousands of calls
    never gets through them, what it was to delete piles up, and collectors meet writers no more.
    """

    def __init__(self, inner: Storage, chance: random.Random) -> None:
        self.label = inner.label
        self._inner = inner
        self._chance = chance
        self._failing = 0.0 if chance.random() < 1 / 3 else 1.0
        self._calls_left = chance.randrange(5, 120) if chance.random() < 0.15 else 1 << 40

    def put(self, name: str, data: Buffer, *, if_absent: bool = True) -> PutResult:
        return self._try(lambda: self._inner.put(name, data, if_absent=if_absent))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._try(lambda: self._inner.get(name, offset, length))

    def stat(self, name: str) -> ObjectInfo | None:
        return self._try(lambda: self._inner.stat(name))

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self._try(lambda: list(self._inner.list_objects(prefix)))

    def delete(self, name: str) -> None:
        self._try(lambda: self._inner.delete(name))

    def _try(self, act: Callable[[], T]) -> T:
        self._calls_left -= 1
        fate = self._chance.random()
        if self._calls_left < 0 or fate < 0.002 * self._failing:
            raise StorageError("The request failed.")
        done = act()
        if fate < 0.006 * self._failing:
            raise StorageError("The reply was lost.")
        return done


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def note(path: Path, value: object) -> None:
    with path.open("a") as file:
        file.write(json.dumps(value) + "\n")
        file.flush()


def read_notes(folder: Path, pattern: str) -> list[list[object]]:
    return [json.loads(line) for path in folder.glob(pattern) for line in path.read_text().splitlines()]


def write(root: Path, number: int, end: float) -> None:
    """Store one snapshot after another of files that come from the same few contents."""
    chance = random.Random(f"writer {number}")
    files, state = root / f"files-{number}", root / f"state-{number}"
    turn = 0
    while time.monotonic() < end:
        turn += 1
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir()
        for at, content in enumerate(chance.sample(POOL, 8)):
            (files / f"{at}.bin").write_bytes(content)
        label = f"{number}-{turn}"
        note(root / f"stored-{number}.jsonl", [label, digests(files)])
        try:
            repository = open_test_repository(UnsureStorage(LocalStorage(root / "storage"), chance), state)
            run_backup(
                repository,
                SourceSet(files=(FileSource("app", files),)),
                state,
                label=label,
                clock=SystemClock(),
            )
            note(root / f"ended-{number}.jsonl", ["backup", "done"])
        except BackupAdminError as error:
            note(root / f"ended-{number}.jsonl", ["backup", error.code])


def collect(root: Path, number: int, end: float) -> None:
    """Forget most snapshots and prune, over and over."""
    chance = random.Random(f"collector {number}")
    state = root / f"state-c{number}"
    while time.monotonic() < end:
        try:
            repository = open_test_repository(UnsureStorage(LocalStorage(root / "storage"), chance), state)
            gone = [one for one in repository.snapshot_ids()[:-2] if chance.random() < 0.6]
            if gone:
                repository.record("forget", {"ids": gone}, actor="stress")
            options = PruneOptions(chance.choice([0, 0, 20, 100]), every_unknown=chance.random() < 0.7)
            report = prune(
                repository,
                options,
                actor="stress",
                state=StateFolder(state),
                reporter=QuietReporter(),
                clock=SystemClock(),
            )
            note(root / f"ended-c{number}.jsonl", ["taken", report.packs_taken])
        except BackupAdminError as error:
            note(root / f"ended-c{number}.jsonl", ["prune", error.code])


def beside_others(job: Callable[[Path, int, float], None], root: Path, number: int, end: float) -> None:
    """Leave the machine to the tests that run at the same time."""
    os.nice(10)
    job(root, number, end)


def run_all(root: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    context = multiprocessing.get_context("fork")
    jobs = [(write, number) for number in range(WRITERS)] + [
        (collect, number) for number in range(COLLECTORS)
    ]
    processes: list[BaseProcess] = [
        context.Process(target=beside_others, args=(job, root, number, end)) for job, number in jobs
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(seconds + 120)
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
    assert [process.exitcode for process in processes] == [0] * len(processes)


def assert_whole(root: Path) -> int:
    """Restore every snapshot and compare it with what its writer noted; return how many there are."""
    stored = {str(label): files for label, files in read_notes(root, "stored-*.jsonl")}
    shutil.rmtree(root / "proof", ignore_errors=True)
    repository = open_test_repository(LocalStorage(root / "storage"), root / "proof" / "state")
    assert repository.history_warning == ""
    repository.verify_history()
    for snapshot in repository.snapshots():
        target = root / "proof" / snapshot.id
        report = extract(repository, snapshot.id, target, reporter=QuietReporter())
        assert report.problems == ()
        assert digests(target / "files" / "app") == stored[snapshot.label]
        shutil.rmtree(target)
    check = check_repository(repository, read_data=True, reporter=QuietReporter())
    assert check.problems == ()
    return len(repository.snapshot_ids())


@pytest.mark.parametrize("seconds", [SECONDS, pytest.param(3600, marks=pytest.mark.long(minutes=60))])
def test_writers_and_collectors_at_once_lose_nothing(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "storage").mkdir()
    make_storage(LocalStorage(tmp_path / "storage"))

    run_all(tmp_path, seconds)

    assert assert_whole(tmp_path) > 0
    ends = Counter(str(value) for kind, value in read_notes(tmp_path, "ended-*.jsonl") if kind == "backup")
    taken = [int(str(value)) for kind, value in read_notes(tmp_path, "ended-c*.jsonl") if kind == "taken"]
    assert ends["done"] > seconds / 10
    assert sum(taken) > seconds / 10
